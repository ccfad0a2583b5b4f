"""kill -9 at random moments, then resume: the final weights are those of a run that nobody disturbed, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.runs.state import State, is_alive
from ai4sdk.testing.helpers import weights

KILLS = int(os.environ.get("AI4SDK_KILLS", "20"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NOISY_NET = """
import os
import time
from pathlib import Path

import torch
from net import Net as Plain


class Net(Plain):
    \"\"\"Draws random numbers in every step, and takes its time: it comes to its last epoch, and waits to be let go.\"\"\"

    def __init__(self, width=8, features=2, until=""):
        super().__init__(width, features)
        self.layers.insert(2, torch.nn.Dropout(0.3))
        self.until, self.supervisor = until, os.getppid()

    def training_step(self, batch, batch_idx):
        if self.until:
            time.sleep(0.1)
            last = self.current_epoch == self.trainer.max_epochs - 1
            while last and not Path(self.until).exists() and os.getppid() == self.supervisor:
                time.sleep(0.01)  # and then a batch ends, at which a worker notices that nobody supervises it
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)
"""

JOB = (
    "module._target_=noisy.Net",
    "tracking.kind=none",
    "training.max_epochs=40",
    "dataset.loader.batch_size=8",
    "training.checkpoint={monitor: val_loss, every: 0.5s}",
    "+scheduler.schedule={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, patience: 1}",
    "+scheduler.monitor=val_loss",
)


def kill_somebody(run: ai4sdk.Run, rng: random.Random) -> bool:
    """Kill the worker, or now and then its supervisor; return whether there was anybody to kill."""
    status = run.status
    if status.state is not State.RUNNING:  # until it runs, the supervisor that is named is that of the attempt before
        return False
    started = [event["pid"] for event in run.events() if event["event"] == "task started"]
    victims = [pid for pid in (*started[-1:], status.pid) if pid and Path(f"/proc/{pid}").exists()]
    if not victims:
        return False
    os.kill(victims[0] if rng.random() < 0.75 else victims[-1], signal.SIGKILL)
    return True


def test_a_run_killed_at_random_moments_ends_with_the_same_weights(project, tmp_path_factory):
    (project / "noisy.py").write_text(NOISY_NET)
    undisturbed = ai4sdk.run("train", *JOB)
    expected = weights(undisturbed)

    rng = random.Random(20260301)
    enough = tmp_path_factory.mktemp("disturbed") / "enough"
    run = ai4sdk.run("train", *JOB, f"+module.until={enough}", wait=False)
    kills = 0
    while kills < KILLS:
        time.sleep(rng.uniform(0.0, 9.0))
        if not kill_somebody(run, rng):
            assert not run.state.ended, run
            continue
        kills += 1
        while is_alive(run.paths):
            time.sleep(0.05)
        assert run.state is State.INTERRUPTED, run
        run.resume(wait=False)
    enough.touch()
    run.wait(timeout=300)
    assert run.state is State.SUCCEEDED, run
    assert weights(run) == expected
    assert run.scores["accuracy"] == undisturbed.scores["accuracy"]
    print(f"{kills} kills, {run.status.attempt} attempts")
