"""The points of a study as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ai4sdk.runs.drawing import clipped
from ai4sdk.spec.units import format_span
from ai4sdk.studies.axes import all_axes, as_number, describe, figure, params_text, shortened, value_text
from ai4sdk.studies.point import Result, StudyView
from ai4sdk.studies.results import best, by_seed, counts, in_order, pareto_front

__all__ = ["seed_lines", "table_lines"]

MOST_CELL = 24
"""Characters of a cell or a column's name: longer ones are cut in the middle."""


def table_lines(view: StudyView, width: int, most: int = 20) -> list[str]:
    """Return a table of the points, the best first, then how many there are of each state, then the best one.

    Parameters
    ----------
    view
        The study.
    width
        Characters a line may have; what is longer is cut.
    most
        Points that are listed; how many were left out is said.
    """
    axes = all_axes(view)
    short = shortened(axes)
    results = in_order(view)
    head = ["#", *(each.name for each in view.objectives), *(short[axis] for axis in axes), "took", "state"]
    rows = [_row(result, view, axes) for result in results[:most]]
    numeric = [
        True,
        *(True for _ in view.objectives),
        *(any(as_number(result.point.params.get(axis)) is not None for result in view.results) for axis in axes),
        True,
        False,
    ]
    lines = _aligned(head, rows, numeric) if rows else []
    if len(results) > most:
        lines.append(f"… and {len(results) - most:,} more")
    numbers = ", ".join(f"{count:,} {name}" for name, count in counts(view).items())
    lines += [f"{max(view.total, len(results)):,} points: {numbers}" if numbers else "no points yet"]
    if (first := best(view)) is not None:
        lines.append(f"best: {describe(first, view, short)}")
        if len(view.objectives) > 1:
            front = ", ".join(f"#{result.point.number}" for result in pareto_front(view))
            lines.append(f"Pareto front: {front}")
    return [_cut(line, width) for line in lines]


def seed_lines(view: StudyView, width: int = 120) -> list[str]:
    """Return a line for each group of points that differ in their seed only, the best mean first; empty without any."""
    summaries = by_seed(view)
    if not summaries:
        return []
    short = shortened(all_axes(view))
    head = ["n", *(f"{each.name} (mean ± sd)" for each in view.objectives), "points that differ in their seed only"]
    rows = [
        [
            str(summary.count),
            *(_spread_text(spread.mean, spread.deviation) for spread in summary.spreads),
            params_text(summary.params, short) or "all",
        ]
        for summary in summaries
    ]
    return [_cut(line, width) for line in _aligned(head, rows, [True, *(True for _ in view.objectives), False])]


def _row(result: Result, view: StudyView, axes: Sequence[str]) -> list[str]:
    values = result.values or ()
    return [
        str(result.point.number),
        *(figure(values[index]) if index < len(values) else "" for index in range(len(view.objectives))),
        *(_param(result.point.params, axis) for axis in axes),
        "" if result.took is None else format_span(result.took),
        f"{result.state} (reused)" if result.reused else str(result.state),
    ]


def _param(params: Mapping[str, Any], axis: str) -> str:
    return clipped(value_text(params[axis]), MOST_CELL) if axis in params else "-"


def _spread_text(mean: float, deviation: float | None) -> str:
    return figure(mean) if deviation is None else f"{figure(mean)} ± {deviation:.2g}"


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[str]:
    """Return lines whose columns stand below each other, numbers to the right; the last column is as long as it is."""
    head = [*(clipped(name, MOST_CELL) for name in head[:-1]), head[-1]]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            f"{cell:>{size}}" if right else f"{cell:{size}}"
            for cell, size, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in [head, *rows]
    ]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: max(0, width - 1)]}…"
