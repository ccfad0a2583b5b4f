"""What tests of several rooms do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from safetensors.numpy import load_file

import ai4sdk

__all__ = ["command", "wait_for", "weights"]


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run ``ai4sdk`` to its end, in a process of its own."""
    return subprocess.run([sys.executable, "-m", "ai4sdk", *argv], capture_output=True, text=True, check=False)


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until something is true; fail if it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def weights(run: ai4sdk.Run) -> dict[str, bytes]:
    """Return the weights of a run's package, to the last bit."""
    return {name: array.tobytes() for name, array in load_file(run.paths.package / "weights.safetensors").items()}
