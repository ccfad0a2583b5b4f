"""Runs on this machine: from start to package, and through every kind of bad day."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.errors import RunCancelled, RunFailed, RunInterrupted, UsageError
from ai4sdk.runs.files import read_json, read_json_lines
from ai4sdk.runs.state import State, is_alive
from ai4sdk.testing import helpers
from ai4sdk.testing.helpers import weights

pytestmark = pytest.mark.slow

SLOW_NET = """
import os, sys, time
import torch
from net import Net as Plain


class Net(Plain):
    def __init__(self, width=8, features=2, act="sleep", at=3, pause=0.3):
        super().__init__(width, features)
        self.act, self.at, self.pause = act, at, pause

    def training_step(self, batch, batch_idx):
        if self.global_step >= self.at:
            if self.act == "raise":
                raise ValueError("the pond is empty")
            if self.act == "exit":
                sys.exit(0)
            if self.act == "die":
                os._exit(0)
            if self.act == "hang":
                while True:
                    time.sleep(1)
            if self.act == "segfault":
                os.kill(os.getpid(), 11)
        time.sleep(self.pause)
        return super().training_step(batch, batch_idx)
"""


def ai4(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ai4sdk", *argv], capture_output=True, text=True, check=False)


wait_for = partial(helpers.wait_for, seconds=90.0)


def steps_logged(run: ai4sdk.Run) -> bool:
    return read_progress(run).get("phase") == "fit" and (read_progress(run).get("step") or 0) > 0


def read_progress(run: ai4sdk.Run) -> dict:
    try:
        return read_json(run.paths.progress)
    except (OSError, ValueError):
        return {}


def worker_pid(run: ai4sdk.Run) -> int:
    return next(event["pid"] for event in reversed(list(run.events())) if event["event"] == "task started")


@pytest.fixture
def slow_net(project: Path) -> Path:
    (project / "slow.py").write_text(SLOW_NET)
    return project


def start(*overrides: str, act: str = "sleep") -> ai4sdk.Run:
    return ai4sdk.run(
        "train", "module._target_=slow.Net", f"+module.act={act}", "tracking.kind=none", *overrides, wait=False
    )


def test_a_run_leaves_everything_the_readme_names(project):
    done = ai4("run", "config=train", "name=fish")
    assert done.returncode == 0, done.stderr
    run = ai4sdk.open_run("fish")
    assert run.state is State.SUCCEEDED
    for path in (
        run.paths.report,
        run.paths.package / "MLmodel",
        run.paths.last_checkpoint,
        run.paths.metrics,
        run.paths.scores,
    ):
        assert path.exists(), path
    assert [event["event"] for event in run.events()].count("running") == 1
    assert "accuracy" in done.stdout
    assert f"ai4sdk predict {run.id}" in done.stdout
    status = ai4("status", "fish", "--json")
    assert json.loads(status.stdout)["state"] == "succeeded"
    assert "succeeded" in ai4("ps").stdout
    assert ai4("logs", "fish").returncode == 0
    again = ai4("resume", "fish")
    assert again.returncode == 2
    assert "rerun" in again.stderr

    (project / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    predicted = ai4("predict", "fish", "--input", "rows.csv")
    assert predicted.returncode == 0, predicted.stderr
    assert len(json.loads(predicted.stdout)) == 2 or len(json.loads(predicted.stdout)["predictions"]) == 2

    rerun = ai4("rerun", "fish")
    assert rerun.returncode == 0, rerun.stderr
    assert weights(ai4sdk.open_run("latest")) == weights(run)
    assert ai4("diff", run.id, "latest").returncode == 0


def test_a_run_cannot_wait_for_another_where_nothing_queues(project):
    run = ai4sdk.run("train", "tracking.kind=none", "training.max_epochs=1")
    with pytest.raises(UsageError, match="&&"):
        ai4sdk.run("train", "tracking.kind=none", after=[run])
    assert ai4sdk.open_run("latest").id == run.id


def test_a_detached_run_is_cancelled_with_a_checkpoint_and_resumed_to_the_same_weights(slow_net):
    whole = start("+module.pause=0.0").wait()
    done = ai4(
        "run", "config=train", "module._target_=slow.Net", "+module.pause=0.0", "tracking.kind=none", "name=whole"
    )
    assert done.returncode == 0, done.stderr
    run = start()
    wait_for(lambda: steps_logged(run))
    cancelled = ai4("cancel", run.id)
    assert cancelled.returncode == 0, cancelled.stderr
    assert run.state is State.CANCELLED
    assert run.paths.last_checkpoint.exists()
    assert run.status.exit_code == 130
    resumed = ai4("resume", run.id)
    assert resumed.returncode == 0, resumed.stderr
    assert run.state is State.SUCCEEDED
    assert run.status.attempt == 2
    assert weights(run) == weights(whole)


@pytest.mark.parametrize("who", ["worker", "supervisor"])
def test_a_kill_interrupts_and_resume_ends_as_if_nothing_happened(slow_net, who):
    run = start()
    wait_for(lambda: steps_logged(run))
    worker = worker_pid(run)
    os.kill(worker if who == "worker" else run.status.pid, signal.SIGKILL)
    wait_for(lambda: run.state.ended)
    assert run.state is State.INTERRUPTED
    wait_for(lambda: not is_alive(run.paths))
    with pytest.raises(RunInterrupted, match="resume"):
        run.wait()
    assert not Path(f"/proc/{worker}").exists() or "zombie" in Path(f"/proc/{worker}/status").read_text()
    run.resume()
    assert run.state is State.SUCCEEDED


@pytest.mark.parametrize(
    ("act", "cause"),
    [("raise", "the pond is empty"), ("exit", "exit"), ("die", "before the work was done"), ("segfault", "SIGSEGV")],
)
def test_a_module_that_fails_is_never_a_success(slow_net, act, cause):
    run = start(act=act)
    with pytest.raises(RunFailed, match=cause) as caught:
        run.wait(timeout=120)
    assert caught.value.exit_code == 4
    assert run.state is State.FAILED
    if act == "raise":
        assert "Traceback" in run.log()
        shown = ai4("status", run.id)
        assert "the pond is empty" in shown.stdout


def test_a_module_that_never_returns_is_stopped_at_once_when_asked(slow_net):
    run = start(act="hang")
    wait_for(lambda: (read_progress(run).get("step") or 0) >= 3)
    assert ai4("cancel", run.id, "--now").returncode == 0
    assert run.state is State.CANCELLED


def test_a_module_that_never_returns_is_killed_after_the_grace(slow_net):
    run = start("backend.grace=1s", act="hang")
    wait_for(lambda: (read_progress(run).get("step") or 0) >= 3)
    assert run.cancel() is State.CANCELLED


def test_editing_code_after_submission_changes_nothing(slow_net):
    first = start("+module.pause=0.0").wait()
    run = start("+module.pause=0.0")
    (slow_net / "net.py").write_text("raise RuntimeError('edited')\n")
    (slow_net / "slow.py").write_text("raise RuntimeError('edited')\n")
    run.wait()
    assert weights(run) == weights(first)


def test_data_that_changed_since_the_plan_is_refused(project):
    plan = project / "plan.json"
    assert ai4("plan", "config=train", "tracking.kind=none", "--out", str(plan)).returncode == 0
    (project / "data.csv").write_text((project / "data.csv").read_text().replace("yes", "no", 3))
    done = ai4("run", "--plan", str(plan))
    assert done.returncode == 3
    assert "changed" in done.stderr


def test_a_run_directory_deleted_under_a_running_job_stops_it(slow_net):
    run = start()
    wait_for(lambda: steps_logged(run))
    worker, supervisor = worker_pid(run), run.status.pid
    shutil.rmtree(run.folder, ignore_errors=True)
    shutil.rmtree(run.folder, ignore_errors=True)

    def gone(pid: int) -> bool:
        try:
            return "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return True

    wait_for(lambda: gone(worker) and gone(supervisor), seconds=30)


def test_two_runs_at_once_do_not_meet(slow_net):
    runs = [start("+module.pause=0.0", f"seed={seed}") for seed in (1, 1)]
    for run in runs:
        run.wait()
    assert runs[0].id != runs[1].id
    assert weights(runs[0]) == weights(runs[1])


@pytest.mark.parametrize(("presses", "act"), [(1, "sleep"), (2, "hang")])
def test_ctrl_c_stops_cleanly_once_and_at_once_twice(slow_net, presses, act):
    argv = ["run", "config=train", "module._target_=slow.Net", "tracking.kind=none"]
    command = subprocess.Popen(
        [sys.executable, "-m", "ai4sdk", *argv, f"+module.act={act}"], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any((slow_net / "runs").glob("2*/progress.json")))
    run = ai4sdk.open_run("latest")
    wait_for(lambda: (read_progress(run).get("step") or 0) >= (1 if act == "sleep" else 3))
    for _ in range(presses):
        command.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert f"ai4sdk resume {run.id}" in err
    assert run.state is State.CANCELLED
    assert run.paths.last_checkpoint.exists()


def test_metrics_are_kept_with_their_steps(project):
    run = ai4sdk.run("train", "tracking.kind=none", "training.log_every_n_steps=1")
    lines = list(read_json_lines(run.paths.metrics))
    names = {name for line in lines for name in line["metrics"]}
    assert {"val_loss"} <= names
    assert all(line["step"] >= 0 and line["time"] > 1e9 for line in lines)


def test_a_task_that_was_stopped_before_its_supervisor_saw_the_request_was_cancelled(function_project):
    (function_project / "pond.py").write_text(
        "import os, pathlib\n\n\n"
        "def catch(boats):\n"
        "    next(pathlib.Path('runs').glob('*-pond-*/state.json')).with_name('cancel').write_text('now')\n"
        "    os._exit(130)\n"
    )
    run = ai4sdk.run("pond.yaml", wait=False)
    with pytest.raises(RunCancelled):
        run.wait(timeout=60)
