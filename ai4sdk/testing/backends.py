"""What every backend promises of a run, as tests.

A backend passes by subclassing `BackendContract` and naming its options; see the guide "Write a backend".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

import ai4sdk
from ai4sdk.errors import RunFailed, UsageError
from ai4sdk.runs.files import read_json
from ai4sdk.runs.state import State
from ai4sdk.testing.helpers import command, wait_for, weights
from ai4sdk.testing.project import write_project

__all__ = ["BackendContract"]

NET = """
import time
from pathlib import Path

import torch
from net import Net as Plain


class Net(Plain):
    \"\"\"Draws random numbers in every step; waits in its third epoch until it is let go, or fails there.\"\"\"

    def __init__(self, width=8, features=2, until="", fails=False):
        super().__init__(width, features)
        self.until, self.fails = until, fails

    def training_step(self, batch, batch_idx):
        if self.current_epoch == 2 and self.fails:
            raise ValueError("the pond is empty")
        if self.until and self.current_epoch >= 2 and not Path(self.until).exists():
            time.sleep(0.4)
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)
"""
JOB = ("module._target_=contract.Net", "tracking.kind=none", "dataset.loader.batch_size=8")


def epoch_of(run: ai4sdk.Run) -> int:
    try:
        return int(read_json(run.paths.progress).get("epoch") or 0)
    except (OSError, ValueError):
        return 0


class BackendContract:
    """The suite; each test gets a project of its own.

    ``tmp_path`` is that project: a scheduler has to see it.
    """

    options: ClassVar[tuple[str, ...]]
    """Overrides that choose the backend."""

    @pytest.fixture(autouse=True)
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return the project of the test, entered."""
        write_project(tmp_path)
        (tmp_path / "contract.py").write_text(NET)
        self.go_on = tmp_path / "go-on"
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def start(self, *overrides: str, epochs: int = 4) -> ai4sdk.Run:
        return ai4sdk.run("train", *JOB, f"training.max_epochs={epochs}", *self.options, *overrides, wait=False)

    def start_held(self) -> ai4sdk.Run:
        """Start a run that takes long in its third epoch, until ``self.go_on`` is there; wait for that epoch."""
        run = self.start(f"+module.until={self.go_on}", epochs=60)
        wait_for(lambda: epoch_of(run) >= 2 or run.state.ended)
        assert run.state is State.RUNNING
        return run

    def test_where_it_runs_changes_no_digest(self) -> None:
        assert ai4sdk.plan("train", *JOB, *self.options).digest == ai4sdk.plan("train", *JOB).digest

    def test_what_would_be_started_can_be_read_and_leaves_nothing(self, project: Path) -> None:
        shown = command("plan", "config=train", *JOB, *self.options)
        assert shown.returncode == 0, shown.stderr
        assert "ai4sdk.worker" in shown.stdout
        assert not (project / "runs").exists()

    def test_a_run_goes_from_queued_to_succeeded_and_leaves_its_log_and_model(self) -> None:
        run = self.start()
        first = run.state
        assert first in (State.QUEUED, State.RUNNING)
        run.wait(timeout=300)
        assert run.state is State.SUCCEEDED
        assert (run.paths.package / "MLmodel").exists()
        shown = command("logs", run.id)
        assert "phase phase=fit" in shown.stdout
        told = json.loads(command("status", run.id, "--json").stdout)
        assert (told["state"], told["attempt"], told["exit_code"]) == ("succeeded", 1, 0)
        assert f"{run.id}  succeeded" in command("ps").stdout
        with pytest.raises(UsageError, match="rerun"):
            run.resume()

    def test_a_log_can_be_followed_to_the_end(self) -> None:
        run = self.start()
        followed = command("logs", "-f", run.id)
        assert run.state is State.SUCCEEDED
        assert "task train is done" in followed.stdout

    def test_code_that_raises_fails_the_run_with_its_reason(self) -> None:
        run = self.start("+module.fails=true")
        with pytest.raises(RunFailed, match="the pond is empty") as caught:
            run.wait(timeout=300)
        assert caught.value.exit_code == 4
        assert run.state is State.FAILED

    def test_a_cancelled_run_has_a_checkpoint_and_resumes_to_the_same_weights(self) -> None:
        whole = self.start(epochs=60).wait(timeout=300)
        run = self.start_held()
        cancelled = command("cancel", run.id)
        assert cancelled.returncode == 0, cancelled.stderr
        assert run.state is State.CANCELLED
        assert run.status.exit_code == 130
        assert run.paths.last_checkpoint.exists()
        with pytest.raises(UsageError, match="not running"):
            run.cancel()
        self.go_on.touch()
        run.resume(wait=False).wait(timeout=300)
        assert run.status.attempt == 2
        assert weights(run) == weights(whole)

    def test_a_run_can_be_stopped_at_once(self) -> None:
        run = self.start_held()
        assert run.cancel(now=True) is State.CANCELLED

    def test_a_run_is_never_executed_twice_at_once(self) -> None:
        run = self.start_held()
        again = command("resume", run.id)
        assert again.returncode == 2
        assert "running" in again.stderr
        self.go_on.touch()
        run.wait(timeout=300)
        assert run.status.attempt == 1
