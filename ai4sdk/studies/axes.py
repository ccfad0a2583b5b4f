"""Names and values of axes as people read them, and which scale a set of numbers asks for."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ai4sdk.studies.point import PointState, Result, StudyView

__all__ = [
    "all_axes",
    "as_number",
    "describe",
    "figure",
    "is_seed",
    "params_text",
    "shortened",
    "shows_decades",
    "value_key",
    "value_text",
]

DECADES = 100 * (1 - 1e-9)
"""Positive numbers whose largest is so many times the smallest are read by their powers of ten; 0.001 to 0.1 are."""


def all_axes(view: StudyView) -> tuple[str, ...]:
    """Return the axes of a study in order, those that only points have last."""
    return tuple(dict.fromkeys([*view.axes, *(axis for result in view.results for axis in result.point.params)]))


def is_seed(axis: str) -> bool:
    """Tell whether an axis only repeats the same with other random numbers."""
    return axis == "seed" or axis.endswith(".seed")


def shortened(names: Sequence[str]) -> dict[str, str]:
    """Return each name's last component or, where several end alike, as many components as tell them apart."""
    parts = {name: re.split(r"(?<=[./@])", name) for name in names}
    short: dict[str, str] = {}
    for count in range(1, max(map(len, parts.values()), default=0) + 1):
        ends = {name: "".join(part[-count:]) for name, part in parts.items()}
        often = Counter(ends.values())
        short |= {name: end for name, end in ends.items() if name not in short and often[end] == 1}
    return {name: short.get(name, name) for name in names}


def as_number(value: Any) -> float | None:
    """Return a value as a finite number; None for anything else, booleans too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def shows_decades(numbers: Iterable[float]) -> bool:
    """Tell whether a logarithmic scale shows these numbers best: all are positive and they span two decades."""
    numbers = list(numbers)
    return bool(numbers) and min(numbers) > 0 and max(numbers) / DECADES >= min(numbers)


def value_text(value: Any) -> str:
    """Write a value as in YAML, on one line; numbers with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value if value.isprintable() else json.dumps(value)
    return value_key(value)


def value_key(value: Any) -> str:
    """Write a value exactly, so that values are equal where their texts are."""
    return json.dumps(value, sort_keys=True, default=str)


def figure(value: float) -> str:
    """Write a figure with four significant digits, trailing zeros too, so that figures below each other line up."""
    return f"{value:#.4g}".removesuffix(".")


def params_text(params: Mapping[str, Any], short: Mapping[str, str]) -> str:
    """Write parameters as ``lr=0.01 depth=3``."""
    return " ".join(f"{short.get(axis, axis)}={value_text(value)}" for axis, value in params.items())


def describe(result: Result, view: StudyView, short: Mapping[str, str]) -> str:
    """Return a point in one line: its number, how it stands unless it succeeded, its figures and its parameters."""
    figures = [
        f"{objective.name} {figure(value)}"
        for objective, value in zip(view.objectives, result.values or (), strict=False)
    ]
    state = "" if result.state is PointState.SUCCEEDED else f" {result.state}"
    parts = [f"#{result.point.number}{state}", *figures, params_text(result.point.params, short)]
    return ", ".join(part for part in parts if part)
