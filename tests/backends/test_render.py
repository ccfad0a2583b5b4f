"""What would be started, read before it is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

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


BATCHES = """
import resource
import numpy
for batch in range(20):
    tensors = [numpy.ones(2 * 2**20, dtype=numpy.uint8) for _ in range(16)]
    del tensors
    if batch == 0:
        warm = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - warm)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep memory in ways of their own")
def test_a_task_keeps_the_memory_of_a_batch_for_the_next(project: Path) -> None:
    plan = ai4sdk.plan("train")
    command = LocalBackend().render(plan, RunPaths(project / "runs" / "one"), project).tasks[0]
    python = [sys.executable, "-c", BATCHES]
    faults = subprocess.run(python, env={**os.environ, **command.env}, capture_output=True, text=True, check=True)
    assert int(faults.stdout) < 1000, "32 MB of pages were given back after each batch"
