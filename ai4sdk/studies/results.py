"""What the points of a study say together: which is best, how much a seed matters, how long it will take."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai4sdk.studies.axes import all_axes, is_seed, value_key
from ai4sdk.studies.point import Objective, PointState, Result, StudyView

__all__ = [
    "Spread",
    "Summary",
    "best",
    "by_seed",
    "counts",
    "estimate",
    "history",
    "in_order",
    "objective_value",
    "pareto_front",
    "ranked",
    "records",
]


@dataclass(frozen=True)
class Spread:
    """How the values of one objective spread.

    Parameters
    ----------
    mean
        Their mean.
    deviation
        Standard deviation of the sample (by n - 1); ``None`` for a single value.
    least, most
        Smallest and largest.
    """

    mean: float
    deviation: float | None
    least: float
    most: float


@dataclass(frozen=True)
class Summary:
    """Points that differ in their seed only.

    Parameters
    ----------
    params
        What they share: their parameters without the seed.
    count
        How many succeeded.
    spreads
        One for each objective.
    """

    params: Mapping[str, Any]
    count: int
    spreads: tuple[Spread, ...]


def objective_value(result: Result, index: int = 0) -> float:
    """Return a point's value of an objective; NaN if there is none."""
    values = result.values or ()
    return values[index] if index < len(values) else math.nan


def ranked(view: StudyView) -> list[Result]:
    """Return the points that succeeded, the best first.

    With several objectives the Pareto front comes first, then the front of what remains, and so on; within a front the
    first objective decides. Points with a value that is no number come last, ties go by number.
    """
    done = [result for result in view.results if result.state is PointState.SUCCEEDED]
    fronts = _front_of_each(done, view.objectives) if len(view.objectives) > 1 else {}
    # A point without all its numbers is in no front.
    last = len(done)
    return sorted(done, key=lambda result: (fronts.get(result.point.number, last), *_by_value(result, view)))


def in_order(view: StudyView) -> list[Result]:
    """Return all points, the best first; those that did not succeed follow: running, pruned, then the others."""
    states = [PointState.RUNNING, PointState.PRUNED, PointState.FAILED]
    others = [result for result in view.results if result.state is not PointState.SUCCEEDED]

    def place(result: Result) -> tuple[int, float, bool, float, int]:
        state = states.index(result.state) if result.state in states else len(states)
        # The last report of a pruned point says how good it was; a running one is found by its number.
        pruned = result.state is PointState.PRUNED
        return (state, 0.0, *_by_value(result, view)) if pruned else (state, 0.0, False, 0.0, result.point.number)

    return ranked(view) + sorted(others, key=place)


def best(view: StudyView) -> Result | None:
    """Return the first of `ranked`; None if no point has a number for each objective."""
    first = next(iter(ranked(view)), None)
    return first if first is not None and view.objectives and _complete(first, view.objectives) else None


def pareto_front(view: StudyView) -> list[Result]:
    """Return the points that no other point is better than in every respect, by the first objective.

    With one objective these are the best point and those with the same value.
    """
    complete = [result for result in ranked(view) if _complete(result, view.objectives)]
    fronts = _front_of_each(complete, view.objectives) if view.objectives else {}
    return [result for result in complete if fronts.get(result.point.number) == 0]


def by_seed(view: StudyView) -> list[Summary]:
    """Return points that differ in their seed only as one summary each, the best mean first.

    Empty if no axis is a seed or nothing was repeated.
    """
    if not any(is_seed(axis) for axis in all_axes(view)):
        return []
    groups: dict[str, list[Result]] = {}
    for result in view.results:
        if result.state is PointState.SUCCEEDED:
            groups.setdefault(value_key(_without_seed(result)), []).append(result)
    if all(len(group) < 2 for group in groups.values()):
        return []
    summaries = [
        Summary(
            _without_seed(group[0]),
            len(group),
            tuple(
                _spread([objective_value(result, index) for result in group]) for index in range(len(view.objectives))
            ),
        )
        for group in groups.values()
    ]
    if view.objectives:
        summaries.sort(key=lambda summary: _cost(summary.spreads[0].mean, view.objectives[0]))
    return summaries


def counts(view: StudyView) -> dict[str, int]:
    """Count the points by state, and how many of those that succeeded were ``reused``; zeros are left out.

    Points that were not asked for yet are waiting, so that all states together are the study's total.
    """
    numbers = Counter(str(result.state) for result in view.results)
    numbers[PointState.WAITING] += max(0, view.total - len(view.results))
    numbers["reused"] = sum(result.reused for result in view.results)
    return {name: numbers[name] for name in [*map(str, PointState), "reused"] if numbers[name]}


def history(view: StudyView) -> list[tuple[int, float]]:
    """Return the number of each point that succeeded with a number, and the best value up to it."""
    steps: list[tuple[int, float]] = []
    for result in sorted(view.results, key=lambda result: result.point.number):
        value = objective_value(result)
        if result.state is not PointState.SUCCEEDED or math.isnan(value) or not view.objectives:
            continue
        if steps and not view.objectives[0].better(value, steps[-1][1]):
            value = steps[-1][1]
        steps.append((result.point.number, value))
    return steps


def estimate(view: StudyView, slots: int) -> float | None:
    """Return how many seconds the points that are not final will take.

    Parameters
    ----------
    view
        The study.
    slots
        How many points run at once.

    Returns
    -------
    float or None
        Rounds that are left times the median of what a point took here; ``None`` before the first one succeeded.
    """
    left = max(view.total, len(view.results)) - sum(result.state.final for result in view.results)
    spans = [
        result.took
        for result in view.results
        if result.state is PointState.SUCCEEDED and not result.reused and result.took is not None
    ]
    if not left:
        return 0.0
    return math.ceil(left / max(1, slots)) * statistics.median(spans) if spans else None


def records(view: StudyView) -> list[dict[str, Any]]:
    """Return one flat record a point, for a table, JSON or CSV; all have the same keys, some with ``None``.

    Axes and objectives have their own names; one that is taken already is written as ``axis.NAME`` or
    ``objective.NAME``.
    """
    taken = {"number", "state", "reused", "took", "attempts", "run", "cause"}
    columns: dict[tuple[str, str], str] = {}
    for kind, names in (("axis", all_axes(view)), ("objective", [each.name for each in view.objectives])):
        for name in names:
            columns[kind, name] = f"{kind}.{name}" if name in taken else name
        taken |= set(names)
    return [
        {
            "number": result.point.number,
            "state": str(result.state),
            **{columns["axis", axis]: result.point.params.get(axis) for axis in all_axes(view)},
            **{
                columns["objective", each.name]: result.values[index]
                if result.values and index < len(result.values)
                else None
                for index, each in enumerate(view.objectives)
            },
            "took": result.took,
            "reused": result.reused,
            "attempts": result.attempts,
            "run": str(result.run) if result.run is not None else None,
            "cause": result.cause,
        }
        for result in view.results
    ]


def _by_value(result: Result, view: StudyView) -> tuple[bool, float, int]:
    cost = _cost(objective_value(result), view.objectives[0]) if view.objectives else (False, 0.0)
    return (*cost, result.point.number)


def _cost(value: float, objective: Objective) -> tuple[bool, float]:
    """Return what sorts the better value first and NaN last."""
    if math.isnan(value):
        return True, 0.0
    return False, value if objective.direction == "min" else -value


def _complete(result: Result, objectives: Sequence[Objective]) -> bool:
    return not any(math.isnan(objective_value(result, index)) for index in range(len(objectives)))


def _front_of_each(results: Sequence[Result], objectives: Sequence[Objective]) -> dict[int, int]:
    """Return which front each point is in, by its number: 0 is dominated by none, 1 only by points of front 0, ..."""
    costs = sorted(
        (
            tuple(_cost(objective_value(result, index), objective)[1] for index, objective in enumerate(objectives)),
            result.point.number,
        )
        for result in results
        if _complete(result, objectives)
    )
    fronts: list[list[tuple[float, ...]]] = []
    found: dict[int, int] = {}
    for cost, number in costs:
        # Sorted, only earlier ones can dominate this one; and whatever a front dominates, each front before it does,
        # so that the first front that does not is found by halving.
        front = bisect_left(fronts, True, key=lambda members: not _dominated(cost, members))
        if front == len(fronts):
            fronts.append([])
        fronts[front].append(cost)
        found[number] = front
    return found


def _dominated(cost: tuple[float, ...], members: Sequence[tuple[float, ...]]) -> bool:
    # With two objectives the latest member is the best in the second one: it alone needs to be looked at.
    looked_at = members[-1:] if len(cost) == 2 else reversed(members)
    return any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in looked_at)


def _without_seed(result: Result) -> dict[str, Any]:
    return {axis: value for axis, value in result.point.params.items() if not is_seed(axis)}


def _spread(values: Sequence[float]) -> Spread:
    # By hand: the module statistics raises for infinities and for squares beyond the largest float.
    mean = sum(values) / len(values)
    deviation = None
    if len(values) > 1:
        deviation = math.sqrt(sum((value - mean) * (value - mean) for value in values) / (len(values) - 1))
    return Spread(mean, deviation, min(values), max(values))
