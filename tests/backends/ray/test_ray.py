"""Runs on a real Ray of one node, beyond what every backend promises."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ai4sdk
from ai4sdk.backends.registry import get_backend
from ai4sdk.errors import RunFailed, UsageError
from ai4sdk.runs.files import read_json
from ai4sdk.runs.state import State, hold_lock
from ai4sdk.testing.helpers import command, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.ray]

FUNCTION = """
import os
import time
from pathlib import Path


def catch(boats, go=None, nets=2):
    print(f"{boats} boats leave the harbour", flush=True)
    while go and not Path(go).exists():
        time.sleep(0.05)
    return {"fish": boats * nets, "gpus": len(os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")) if boats else 0}
"""


@pytest.fixture
def pond(function_project: Path, ray: Any) -> Iterator[Path]:
    (function_project / "pond.py").write_text(FUNCTION)
    yield function_project
    (function_project / "go").touch()  # whatever became of the test, no job keeps its CPUs


def start(*overrides: str) -> ai4sdk.Run:
    return ai4sdk.run("pond.yaml", "backend=ray", *overrides, wait=False)


def start_held(pond: Path, *overrides: str) -> ai4sdk.Run:
    run = start(f"+function.go={pond / 'go'}", *overrides)
    wait_for(lambda: run.paths.log("call").exists() and "boats leave" in run.paths.log("call").read_text())
    return run


def job_of(cluster: Any, run: ai4sdk.Run, attempt: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = cluster.ask(f"/api/jobs/{run.id}-{attempt}")
    return found


def post(cluster: Any, path: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{cluster.address}{path}", b"{}", method="POST"), timeout=60).close()


def test_a_job_gets_what_the_plan_asks_for(pond: Path, ray: Any) -> None:
    run = start("+hardware={cpus: 2, gpus: 2, memory: 1GiB}", "backend.resources={pond: 0.5}").wait(timeout=120)
    assert read_json(run.paths.root / "evaluation" / "metrics.json")["gpus"] == 2
    told = command("status", run.id).stdout
    assert f"job {run.id}-1" in told
    assert job_of(ray, run)["metadata"] == {"name": "pond", "run": str(run.paths.root), "plan": run.plan.digest}


def test_a_run_that_waits_says_so_and_is_cancelled_at_once(pond: Path, ray: Any) -> None:
    run = start("+hardware={cpus: 64}")
    told = command("status", run.id).stdout
    assert "queued" in told
    assert f"job {run.id}-1 is waiting for resources" in told
    cancelled = command("cancel", run.id)
    assert cancelled.returncode == 0, cancelled.stderr
    assert (run.state, run.status.exit_code) == (State.CANCELLED, 130)
    assert not run.paths.log("call").exists()


def test_one_call_tells_how_many_runs_stand(pond: Path, ray: Any) -> None:
    runs = [start_held(pond), start("+hardware={cpus: 64}"), start_held(pond)]
    told = command("ps").stdout
    assert [line.split()[1] for run in runs for line in told.splitlines() if run.id in line] == [
        "running",
        "queued",
        "running",
    ]
    for run in runs:
        run.cancel(now=True)
    wait_for(lambda: all(run.state.ended for run in runs))


def test_who_stops_a_job_at_ray_cancels_its_run_in_good_order(pond: Path, ray: Any) -> None:
    run = start_held(pond)
    post(ray, f"/api/jobs/{run.id}-1/stop")
    wait_for(lambda: run.state.ended)
    assert (run.state, run.status.cause) == (State.CANCELLED, f"job {run.id}-1 was stopped at Ray")
    (pond / "go").touch()
    assert run.resume(wait=False).wait(timeout=120).status.attempt == 2


def test_a_job_that_is_lost_makes_an_interrupted_run_that_resumes(pond: Path, ray: Any) -> None:
    run = start_held(pond)
    _kill_rays_own_process(run)
    wait_for(lambda: run.state.ended)
    assert (run.state, run.status.exit_code) == (State.INTERRUPTED, 5)
    assert "its node was lost" in str(run.status.cause)
    (pond / "go").touch()
    run.resume(wait=False).wait(timeout=120)
    assert (run.state, run.status.attempt) == (State.SUCCEEDED, 2)


def _kill_rays_own_process(run: ai4sdk.Run) -> None:
    """Kill the process that watches the entrypoint, as the loss of its node does."""
    supervisor = run.status.pid
    stat = Path(f"/proc/{supervisor}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)


def test_an_entrypoint_that_cannot_start_fails_the_run_with_what_it_said(pond: Path, ray: Any) -> None:
    run = start("backend.python=/nowhere/python")
    with pytest.raises(RunFailed, match=r"/nowhere/python.*not found") as caught:
        run.wait(timeout=120)
    assert caught.value.exit_code == 7
    assert "/nowhere/python" in command("logs", run.id, "--task", "ray").stdout


def test_a_run_is_not_submitted_twice(pond: Path, ray: Any) -> None:
    run = start_held(pond)
    backend = get_backend("ray")
    submission = backend.render(run.plan, run.paths, pond)
    lock = os.open(run.paths.lock, os.O_RDWR)
    with pytest.raises(UsageError, match=f"Ray has {run.id} already, as job {run.id}-1"):
        backend.submit(submission, run.paths, lock)
    assert not run.state.ended
    assert hold_lock(run.paths) is None
    (pond / "go").touch()
    run.wait(timeout=120)


def test_a_job_of_an_earlier_attempt_touches_nothing(pond: Path, ray: Any) -> None:
    run = start().wait(timeout=120)
    before = run.paths.state.read_bytes()
    request = json.loads(get_backend("ray").render(run.plan, run.paths, pond).script)
    body = json.dumps(request | {"submission_id": f"{run.id}-again"}).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{ray.address}/api/jobs/", body, headers), timeout=60).close()
    wait_for(lambda: ray.ask(f"/api/jobs/{run.id}-again")["driver_exit_code"] == 9)
    assert "the run has ended: it is succeeded" in ray.ask(f"/api/jobs/{run.id}-again")["message"]
    assert run.paths.state.read_bytes() == before


def test_several_processes_train_on_one_node(project: Path, ray: Any) -> None:
    run = ai4sdk.run(
        "train",
        "+backend=ray",
        "training=ddp",
        "+training.processes=2",
        "+hardware={cpus: 2}",
        "tracking.kind=none",
        wait=False,
    )
    run.wait(timeout=300)
    assert run.paths.log("train", 1).exists()
