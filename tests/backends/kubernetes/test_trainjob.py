"""Runs as TrainJobs of Kubeflow Trainer: what they say, and how they go on a stand-in."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from backends.kubernetes.crds import complaints
from hypothesis import given
from hypothesis import strategies as st

import ai4sdk
from ai4sdk.backends.kubernetes.manifests import manifests
from ai4sdk.backends.kubernetes.names import ROOM_IN_A_SET, object_name
from ai4sdk.backends.kubernetes.observed import last_state, observe
from ai4sdk.errors import ConfigError
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State
from ai4sdk.testing.helpers import command, wait_for

RUN = RunPaths(Path("/home/ana/pond/runs/20260102-030405-pond-abcd"))
PROJECT = Path("/home/ana/pond")
FUNCTION = """
import time
from pathlib import Path


def catch(boats, go=None, fails=False):
    print(f"{boats} boats leave the harbour", flush=True)
    if fails:
        raise ValueError("the pond is empty")
    while go and not Path(go).exists():
        time.sleep(0.05)
    return {"fish": 2 * boats}
"""


def trainjob(*overrides: str, workload: str = "trainjob") -> dict[str, Any]:
    backend = f"+backend={{kind: kubernetes, image: pond, claim: pond, workload: {workload}}}"
    plan = ai4sdk.plan("train", backend, *(f"+{word}" for word in overrides))
    found: dict[str, Any] = manifests(plan, RUN, PROJECT)[-1]
    return found


def pod_of(train_job: dict[str, Any]) -> dict[str, Any]:
    (patch,) = train_job["spec"]["runtimePatches"]
    (part,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod: dict[str, Any] = part["template"]["spec"]["template"]["spec"]
    return pod


NODES = ("hardware={cpus: 4, nodes: 3, memory: 8GiB, wall_time: 2h}", "+training.mode=ddp", "+training.processes=2")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        NODES,
        ("+backend.queue=gpus", "+backend.security=none", "+backend.service_account=me"),
        ("+backend.tolerations=[{key: a, operator: Exists}]", "+backend.volumes=[{claim: c, path: /c}]"),
        ("+backend.image_pull_secrets=[x]", "+backend.secrets={TOKEN: a/b}", "+backend.shared_memory=1GiB"),
    ],
)
def test_the_published_schema_knows_every_field(project: Path, overrides: tuple[str, ...]) -> None:
    made = trainjob(*overrides)
    assert complaints(made) == []
    (patch,) = made["spec"]["runtimePatches"]
    assert re.fullmatch(r"[a-z0-9.-]+/.+", patch["manager"]), "Trainer's webhook refuses any other"


def test_the_schema_finds_what_is_wrong(project: Path) -> None:
    wrong = trainjob()
    wrong["spec"]["trainer"]["numNodes"] = "3"
    wrong["spec"]["trainer"]["workingDir"] = "/"
    wrong["spec"]["podTemplateOverrides"] = []
    assert {place for place, _ in complaints(wrong)} == {"spec", "spec.trainer", "spec.trainer.numNodes"}


def test_its_pods_are_those_of_a_job_so_far_as_it_can_say(project: Path) -> None:
    made, job = trainjob(*NODES), trainjob(*NODES, workload="job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    trainer = made["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 2)
    assert trainer["resourcesPerNode"] == container["resources"]
    assert [*trainer["command"], *trainer["args"]][4:] == [*container["command"], *container["args"]]
    leader = {
        "name": "AI4SDK_LEADER",
        "value": "ai4-20260102-030405-pond-abcd-1-node-0-0.ai4-20260102-030405-pond-abcd-1:29500",
    }
    assert trainer["env"] == [*container["env"][:-1], leader]
    patched = pod_of(made)
    for name in ("terminationGracePeriodSeconds", "securityContext", "volumes"):
        assert patched[name] == pod[name]
    assert patched["containers"] == [
        {"name": "node", "securityContext": container["securityContext"], "volumeMounts": container["volumeMounts"]}
    ]


def test_its_command_starts_in_the_projects_folder_and_takes_signals_itself(project: Path) -> None:
    *shell, _ = trainjob()["spec"]["trainer"]["command"][:4]
    argv = [*shell, "/usr", "sh", "-c", 'pwd; echo $$; echo "$@"', "x", "a b", "*"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate()
    assert out.splitlines() == ["/usr", str(process.pid), "a b *"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("+backend.image_pull_policy=Always",), "a TrainJob cannot say image_pull_policy"),
        (("+backend.ttl_after_finished=2h",), "a TrainJob cannot say ttl_after_finished"),
        (("+backend.env={PET_NNODES: many}",), "Kubeflow Trainer sets PET_NNODES itself"),
    ],
)
def test_what_it_cannot_say_is_refused(project: Path, options: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        trainjob(*options)
    with pytest.raises(ConfigError, match="a Job has no runtime"):
        trainjob("+backend.runtime=mine", workload="job")


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=90), st.integers(1, 99))
def test_names_leave_room_for_those_of_its_pods(run_id: str, attempt: int) -> None:
    assert len(f"{object_name(run_id, attempt, ROOM_IN_A_SET)}-node-0-99-abcde") <= 63


def test_a_container_that_is_started_again_has_said_how_the_run_ended() -> None:
    word = json.dumps({"state": "failed", "cause": "the pond is empty", "exit_code": 4})
    waiting = {"name": "node", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    pod = {
        "metadata": {"name": "p", "annotations": {}},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"name": "a-proxy", "state": {"running": {}}},
                {**waiting, "lastState": {"terminated": {"exitCode": 4, "message": word}}},
            ],
        },
    }
    job = observe({"kind": "TrainJob", "metadata": {"name": "j"}, "spec": {"trainer": {"numNodes": 1}}}, [pod])
    state = last_state(job)
    assert state is not None
    assert (state.state, state.cause, job.kind) == (State.FAILED, "the pond is empty", "TrainJob")


@pytest.fixture
def pond(function_project: Path, kubernetes: Any) -> Path:
    (function_project / "pond.py").write_text(FUNCTION)
    (function_project / "configs").mkdir()
    (function_project / "pond.yaml").rename("configs/pond.yaml")
    backend = {"kind": "kubernetes", "image": "pond:1", "claim": "pond", "workload": "trainjob"}
    Path("configs/cluster.yaml").write_text(json.dumps({"defaults": ["pond", "_self_"], "backend": backend}))
    return function_project


@pytest.mark.slow
def test_a_run_ends_well_and_its_log_is_here(pond: Path, kubernetes: Any) -> None:
    run = ai4sdk.run("cluster", wait=False)
    run.wait(timeout=120)
    assert (run.state, run.status.exit_code) == (State.SUCCEEDED, 0)
    assert "3 boats leave the harbour" in command("logs", run.id).stdout
    (made,) = kubernetes.get("trainjobs")
    (config,) = kubernetes.get("configmaps")
    owner = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob"}
    assert config["metadata"]["ownerReferences"] == [
        {**owner, "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
    ]


@pytest.mark.slow
def test_code_that_fails_ends_the_run_though_its_runtime_may_try_again(pond: Path, kubernetes: Any) -> None:
    run = ai4sdk.run("cluster", "+function.fails=true", wait=False)
    wait_for(lambda: run.state.ended)
    assert (run.state, run.status.exit_code) == (State.FAILED, 4)
    assert "the pond is empty" in (run.status.cause or "")
    assert command("logs", run.id).stdout.count("boats leave the harbour") == 1, "the code did not run again"


@pytest.mark.slow
def test_it_waits_for_its_queue_is_cancelled_and_goes_on_anew(pond: Path, kubernetes: Any) -> None:
    go = pond / "go"
    run = ai4sdk.run("cluster", f"+function.go={go}", "+backend.queue=fish", wait=False)
    assert "suspended until its queue admits it" in command("status", run.id).stdout
    (made,) = kubernetes.get("trainjobs")
    kubernetes.admit(made["metadata"]["name"])
    wait_for(lambda: run.state is State.RUNNING and "harbour" in command("logs", run.id).stdout)
    assert command("cancel", run.id).returncode == 0
    assert run.state is State.CANCELLED
    wait_for(
        lambda: not kubernetes.get("trainjobs") and not kubernetes.get("pods") and not kubernetes.get("configmaps")
    )
    go.touch()
    run.resume(wait=False)
    (made,) = kubernetes.get("trainjobs")
    kubernetes.admit(made["metadata"]["name"])
    run.wait(timeout=120)
    assert (run.state, run.status.attempt) == (State.SUCCEEDED, 2)
    assert sorted(kubernetes.calls.count(("list", kind)) > 0 for kind in ("jobs", "trainjobs")) == [False, True]


@pytest.mark.slow
def test_several_nodes_meet(pond: Path, kubernetes: Any) -> None:
    code = """
import os

import torch


def meet():
    torch.distributed.init_process_group("gloo")
    total = torch.tensor([float(torch.distributed.get_rank() + 1)])
    torch.distributed.all_reduce(total)
    torch.distributed.destroy_process_group()
    print("the sum is", float(total), flush=True)
    return {"total": float(total)}
"""
    (pond / "meeting.py").write_text(code)
    words = ("~function.boats", "function._target_=meeting.meet", "+hardware={cpus: 1, nodes: 2}")
    run = ai4sdk.run("cluster", *words, wait=False)
    run.wait(timeout=200)
    assert run.state is State.SUCCEEDED, run.status.cause
    assert "the sum is 3.0" in command("logs", run.id).stdout
