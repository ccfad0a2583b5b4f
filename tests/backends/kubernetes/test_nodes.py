"""Tasks of several pods, on the stand-in for Kubernetes: they meet, fail as one, and start again as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ai4sdk
from ai4sdk.errors import RunFailed
from ai4sdk.runs.files import read_json
from ai4sdk.runs.state import State
from ai4sdk.testing.helpers import command, wait_for, weights

pytestmark = pytest.mark.slow

FUNCTION = """
import os
import time
from pathlib import Path


def work(folder, fails=False, meets=False):
    rank, folder = os.environ["RANK"], Path(folder)
    print(f"rank {rank} of {os.environ['WORLD_SIZE']} works", flush=True)
    if meets:
        import torch
        torch.distributed.init_process_group("gloo")
        total = torch.tensor([float(torch.distributed.get_rank() + 1)])
        torch.distributed.all_reduce(total)
        torch.distributed.destroy_process_group()
        return {"total": float(total), "local": int(os.environ["LOCAL_WORLD_SIZE"])}
    folder.mkdir(exist_ok=True)
    (folder / f"began-{rank}-{time.time_ns()}").touch()
    if fails and rank == "1":
        raise ValueError("the pond is empty")
    while not (folder / "go").exists():
        time.sleep(0.05)
    return {"ranks": int(os.environ["WORLD_SIZE"])}
"""


@pytest.fixture
def pond(project: Path, kubernetes: Any) -> Path:
    (project / "pond.py").write_text(FUNCTION)
    job = {
        "defaults": ["base", "_self_"],
        "name": "pond",
        "function": {"_target_": "pond.work", "folder": str(project / "marks")},
        "hardware": {"nodes": 2},
        "backend": {"kind": "kubernetes", "image": "pond:1", "claim": "pond"},
        "tracking": {"kind": "none"},
    }
    (project / "configs" / "pond.yaml").write_text(json.dumps(job))
    return project / "marks"


def start(*overrides: str) -> ai4sdk.Run:
    return ai4sdk.run("pond", *overrides, wait=False)


def began(folder: Path, rank: int) -> int:
    return len(list(folder.glob(f"began-{rank}-*")))


def pod(cluster: Any, index: int) -> str:
    """Return the newest pod with a number."""
    pods = [one["metadata"] for one in cluster.get("pods") if f"-{index}-" in one["metadata"]["name"][-8:]]
    return str(max(pods, key=lambda one: one["creationTimestamp"])["name"])


def test_ranks_in_two_pods_meet_and_all_that_they_print_comes_here(pond: Path, kubernetes: Any) -> None:
    run = start("+function.meets=true")
    run.wait(timeout=300)
    assert run.state is State.SUCCEEDED
    there = kubernetes.claims["pond"] / "runs" / run.id
    assert json.loads((there / "evaluation" / "metrics.json").read_text()) == {"total": 3.0, "local": 1}
    assert "rank 0 of 2 works" in command("logs", run.id).stdout
    assert "rank 1 of 2 works" in (run.paths.logs / "call.node1.log").read_text()
    wait_for(lambda: kubernetes.get("jobs")[0]["status"].get("succeeded") == 2)


def test_a_rank_that_fails_in_another_pod_ends_all_and_gives_the_reason(pond: Path, kubernetes: Any) -> None:
    run = start("+function.fails=true")
    with pytest.raises(RunFailed, match="the pond is empty") as caught:
        run.wait(timeout=300)
    assert caught.value.exit_code == 4
    assert began(pond, 1) == 1
    assert began(pond, 0) <= 1  # the other may have failed before it came to that
    assert kubernetes.get("jobs")[0]["status"]["conditions"][0]["reason"] == "PodFailurePolicy"


@pytest.mark.parametrize(("index", "hard"), [(0, False), (1, True)], ids=["first drained", "second lost"])
def test_all_start_again_when_one_is_taken_away(pond: Path, kubernetes: Any, index: int, hard: bool) -> None:
    run = start()
    wait_for(lambda: began(pond, 0) and began(pond, 1))
    kubernetes.evict(pod(kubernetes, index), hard=hard)
    wait_for(lambda: began(pond, 0) == began(pond, 1) == 2)
    (pond / "go").touch()
    run.wait(timeout=300)
    assert run.state is State.SUCCEEDED
    assert run.status.attempt == 2


def test_they_are_interrupted_together_when_one_is_taken_away_too_often(pond: Path, kubernetes: Any) -> None:
    run = start("+backend.backoff_limit=0")
    wait_for(lambda: began(pond, 0) and began(pond, 1))
    kubernetes.evict(pod(kubernetes, 1), hard=True)
    wait_for(lambda: run.state.ended)
    assert run.state is State.INTERRUPTED
    assert "its node was lost" in str(run.status.cause)


def test_they_are_cancelled_together(pond: Path, kubernetes: Any) -> None:
    run = start()
    wait_for(lambda: began(pond, 0) and began(pond, 1))
    cancelled = command("cancel", run.id)
    assert cancelled.returncode == 0, cancelled.stderr
    wait_for(lambda: run.state.ended)
    assert run.state is State.CANCELLED
    assert not kubernetes.get("jobs")
    assert not kubernetes.get("services")


NET = """
import time
from pathlib import Path

from net import Net as Plain


class Net(Plain):
    def __init__(self, until=None, width=8, features=2):
        super().__init__(width, features)
        self.until = until

    def training_step(self, batch, batch_idx):
        if self.until and self.current_epoch >= 2 and not Path(self.until).exists():
            time.sleep(0.1)
        return super().training_step(batch, batch_idx)
"""


def test_a_training_in_two_pods_gives_the_weights_of_one_machine_though_a_pod_was_drained(
    project: Path, kubernetes: Any
) -> None:
    (project / "ponds.py").write_text(NET)
    kubernetes.claims["pond"] = project
    mount = f"image: pond, claim: pond, mount_path: {project}"
    job = ("module._target_=ponds.Net", "tracking.kind=none", "dataset.loader.batch_size=4", "training.mode=ddp")
    job = (*job, "training.max_epochs=60")
    here = ai4sdk.run("train", *job, "+training.processes=2", "+hardware.cpus=2")
    nodes = ("+training.processes=1", "+hardware.nodes=2", f"+module.until={project / 'go'}")
    there = ai4sdk.run("train", *job, *nodes, f"+backend={{kind: kubernetes, {mount}}}", wait=False)
    wait_for(lambda: (_progress(there).get("epoch") or 0) >= 2)
    kubernetes.evict(pod(kubernetes, 1))
    wait_for(lambda: there.status.attempt == 2)
    (project / "go").touch()
    there.wait(timeout=300)
    assert any(event["event"] == "checkpoint" for event in there.events()), "it was told to stop in good order"
    assert weights(there) == weights(here)


def _progress(run: ai4sdk.Run) -> dict[str, Any]:
    try:
        return dict(read_json(run.paths.progress))
    except (OSError, ValueError):
        return {}
