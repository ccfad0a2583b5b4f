"""Random orders that are the same on every machine and with every version of every library."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

__all__ = ["Draw", "by_value", "shuffled"]

Draw = Callable[[], float]
"""``random.Random(seed).random``: of Python's generator only that method is promised to stay the same."""

Value = TypeVar("Value", bound=Hashable)


def shuffled(count: int, draw: Draw) -> list[int]:
    """Return 0..count-1 in random order."""
    keys = [draw() for _ in range(count)]
    return sorted(range(count), key=keys.__getitem__)


def by_value(values: Sequence[Value]) -> dict[Value, list[int]]:
    """Return value → positions, in order of appearance."""
    members: dict[Value, list[int]] = {}
    for index, value in enumerate(values):
        members.setdefault(value, []).append(index)
    return members
