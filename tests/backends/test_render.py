"""What would be started, read before it is."""

from __future__ import annotations

from pathlib import Path

import ai4sdk
from ai4sdk.backends.local.backend import LocalBackend
from ai4sdk.runs.layout import RunPaths


def test_the_hash_seed_is_the_same_for_every_plan(project: Path) -> None:
    seeds = set()
    for seed in (1, 2):
        plan = ai4sdk.plan("train", f"seed={seed}")
        submission = LocalBackend().render(plan, RunPaths(project / "runs" / "one"), project)
        seeds |= {command.env["PYTHONHASHSEED"] for command in submission.tasks}
    assert seeds == {"0"}
