"""A function that notes each start, waits as long as it is told, and fails where it is told; and what became of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import ai4sdk

CODE = """
import os, time


def score(x=0, fails=None, until=None):
    with open(f"mark-{x}-{time.time_ns()}", "w"):
        pass
    while until and not os.path.exists(until):
        time.sleep(0.1)
    if x == fails and not os.path.exists("mended"):
        raise ValueError("the pond is empty")
    return {"loss": float((x - 3) ** 2)}
"""


def started(folder: Path) -> list[str]:
    """Each start of a point, by its x."""
    return sorted(mark.name.split("-")[1] for mark in folder.glob("mark-*"))


def states_of(study: ai4sdk.Study) -> Counter[str]:
    """How many points are in which state."""
    return Counter(str(result.state) for result in study.view.results)
