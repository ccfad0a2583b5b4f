"""A look at one point for each value of each axis, before anything runs: what is wrong, and what all must share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from ai4sdk.config.axes import Axis, Choice
from ai4sdk.config.compose import COMMAND_LINE, Composition
from ai4sdk.config.encode import encode, texts_of
from ai4sdk.config.history import place
from ai4sdk.config.keys import value_at
from ai4sdk.config.validate import located
from ai4sdk.errors import ConfigError, Origin, Problem
from ai4sdk.planning.plan import Plan
from ai4sdk.spec.units import format_size, format_span
from ai4sdk.studies.space import active, identity, listed

__all__ = ["MOST_LOOKED_AT", "MOST_SHOWN", "Corners", "Look", "ends_of", "first_of"]

MOST_SHOWN = 20
MOST_LOOKED_AT = 2_000

_NEEDS = ("cpus", "gpus")
_SHARED = ("hardware.memory", "hardware.wall_time", "backend.kind", "backend.grace", "tracking", "runs")
"""What a study has once, for all of its points: it keeps one pool, one folder and one place for its records."""


@dataclass(frozen=True)
class Corners:
    """What a look at one point for each value showed.

    Parameters
    ----------
    first
        The plan of the first point; ``None`` if it cannot be planned.
    problems
        Every mistake found, each once.
    digests
        Overrides → digest of the points looked at.
    needs
        The largest ``cpus`` and ``gpus`` of a point.
    watched
        Metric and mode by which points choose their best weights (``training.checkpoint``).
    """

    first: Plan | None
    problems: tuple[Problem, ...]
    digests: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    needs: Mapping[str, int] = field(default_factory=dict)
    watched: frozenset[tuple[str | None, str]] = frozenset()


@dataclass(frozen=True)
class _Seen:
    """A point that was looked at."""

    varied: str | None
    """The axis in which it differs from the first one."""
    params: Mapping[str, Any]
    plan: Plan | None
    problems: tuple[Problem, ...] = ()

    @property
    def known(self) -> set[tuple[str, str]]:
        return {_name(problem) for problem in self.problems}


class Look:
    """A look at the points of a study, one for each value of each axis.

    Parameters
    ----------
    plan
        Plans a point; raises `ConfigError`.
    is_group
        Tells whether an axis chooses options of a group.
    space
        What is varied.
    base
        The config without its axes.
    by_hand
        Key → override as typed.
    """

    def __init__(
        self,
        plan: Callable[[Mapping[str, Any]], Plan],
        is_group: Callable[[str], bool],
        space: Sequence[Axis],
        base: Composition,
        by_hand: Mapping[str, str],
    ) -> None:
        self._plan, self._is_group = plan, is_group
        self._space, self._base, self._by_hand = space, base, by_hand
        self._seen: list[_Seen] = []

    def __call__(self) -> Corners:
        """Plan the points, so that every wrong value is found whatever it is combined with."""
        wrong: set[tuple[str, str]] = set()
        for varied, params in islice(_corners(self._space), MOST_LOOKED_AT):
            self._seen.append(self._look(varied, params))
            wrong |= self._seen[-1].known
            if len(wrong) >= MOST_SHOWN:
                break
        problems = tuple(self._mistakes() if wrong else self._unshared())
        plans = [seen.plan for seen in self._seen if seen.plan is not None]
        checkpoints = [plan.job["training"]["checkpoint"] for plan in plans]
        return Corners(
            plans[0] if plans else None,
            problems,
            {texts_of(seen.params): seen.plan.digest for seen in self._seen if seen.plan is not None},
            {name: max((getattr(task, name) for plan in plans for task in plan.tasks), default=0) for name in _NEEDS},
            frozenset((checkpoint["monitor"], checkpoint["mode"]) for checkpoint in checkpoints),
        )

    def _look(self, varied: str | None, params: Mapping[str, Any]) -> _Seen:
        try:
            return _Seen(varied, params, self._plan(params))
        except ConfigError as error:
            return _Seen(varied, params, None, error.problems)

    def located(self, problem: Problem) -> Problem:
        """Give a problem of the sweep the place it was made: the command line for axes that were typed there."""
        typed = self._by_hand.get(problem.key.removeprefix("sweep.axes."))
        if typed is not None:
            return replace(problem, origin=Origin(COMMAND_LINE, text=typed))
        return located(self._base, problem.key, problem.message, problem.fix)

    # ------------------------------------------------------------------ mistakes

    def _mistakes(self) -> Iterator[Problem]:
        """Yield each problem once, with the value that made it."""
        always = self._wrong_without_axes()
        told: set[tuple[str, str]] = set()
        for seen in self._seen:
            for problem in seen.problems:
                if _name(problem) not in told:
                    told.add(_name(problem))
                    yield problem if _name(problem) in always else self._with_value(problem, seen)

    def _wrong_without_axes(self) -> set[tuple[str, str]]:
        return self._look(None, {}).known

    def _with_value(self, problem: Problem, seen: _Seen) -> Problem:
        """Let a problem point at the axis as it is written, or say which values it came with."""
        key, culprit = self._axis_of(problem, seen.params), seen.varied or self._to_blame(problem)
        found = self.at_axis(problem, seen.params) or problem
        if culprit is None or culprit == key:
            everything = f" (with {' '.join(texts_of(seen.params))})" if key is None else ""
            return replace(found, message=found.message + everything)
        message = f"{found.message} (with {culprit}={encode(seen.params[culprit])})"
        fix = self._only_when(key, culprit) if key is not None else None
        return replace(found, message=message, fix=fix or self._without_options(found.fix, culprit))

    def _axis_of(self, problem: Problem, params: Mapping[str, Any]) -> str | None:
        """Return the axis whose value a problem is of."""
        origin = problem.origin
        if origin is None or origin.source != COMMAND_LINE:
            return None
        return next((key for key, text in zip(params, texts_of(params), strict=True) if origin.text == text), None)

    def at_axis(self, problem: Problem, params: Mapping[str, Any]) -> Problem | None:
        """Let a problem of a value point at the axis as it is written; ``None`` if it is of no value of an axis."""
        key = self._axis_of(problem, params)
        if key is None:
            return None
        text = f"{key}={encode(params[key])}"
        typed, value, fix = self._by_hand.get(key, text), text.partition("=")[2], problem.fix
        if fix is not None and fix == f"{fix.partition('=')[0]}={value}":  # another key, the same values
            fix = f"{fix.partition('=')[0]}={typed.partition('=')[2]}"
        found = None if key in self._by_hand else place(self._base, f"sweep.axes.{key}")
        return replace(problem, fix=fix, origin=found or Origin(COMMAND_LINE, text=typed))

    def _only_when(self, key: str, other: str) -> str | None:
        """Propose to have an axis only with the value of another one that it goes with."""
        fitting = [
            seen.params[other]
            for seen in self._seen
            if key in seen.params
            and other in seen.params
            and all(self._axis_of(one, seen.params) != key for one in seen.problems)
        ]
        if not fitting:
            return None
        values = self._by_hand.get(key, "=VALUES").partition("=")[2]
        condition = f"when: {other}={encode(fitting[0])}"
        return f"in YAML, under sweep.axes: {key.lstrip('+')}: {{values: '{values}', {condition}}}"

    def _to_blame(self, problem: Problem) -> str | None:
        """Return the one axis on which another value than the first takes a problem of the first point away."""
        first, *others = self._seen
        if len(first.params) == 1:
            return next(iter(first.params))
        axes = {seen.varied for seen in others if seen.varied in first.params and _name(problem) not in seen.known}
        return axes.pop() if len(axes) == 1 else None

    def _without_options(self, fix: str | None, key: str) -> str | None:
        """Propose to leave out the options of a group that do not fit the rest."""
        axis = next(axis for axis in self._space if axis.key == key)
        if not self._is_group(key) or not isinstance(axis.values, Choice):
            return fix
        ours = [seen for seen in self._seen if key in seen.params and seen.varied in (key, None)]
        wrong = {identity(seen.params[key]) for seen in ours if seen.problems}
        left = [encode(value) for value in listed(axis.values) or () if identity(value) not in wrong]
        leave = f"leave it out: {key}={','.join(left)}" if left else None
        return f"{fix}; or {leave}" if fix and leave else fix or leave

    # ------------------------------------------------------------------ what all points share

    def _unshared(self) -> Iterator[Problem]:
        """Yield what differs between points, but is there once for the whole study."""
        for key in self._seen[0].params:
            if key.lstrip("+").split("@")[0].split(".")[0] == "sweep":
                message = f"{key} steers the study itself; it cannot differ between its points"
                fix = "start a study for each value"
                yield self.located(Problem(message, key=f"sweep.axes.{key}", fix=fix))
        for key in _SHARED:
            first, *others = [(seen, value_at(seen.plan.job, key)) for seen in self._seen if seen.plan is not None]
            other = next((one for one in others if one[1] != first[1]), None)
            if other is None:
                continue
            varied = str(other[0].varied)
            message = f"{key} cannot differ between the points of a study: all of them share one"
            if not isinstance(other[1], dict):
                shown = encode(other[0].params[varied])
                message += f" ({_shown(key, first[1])} at first, {_shown(key, other[1])} with {varied}={shown})"
            fix = _once(key, varied, first[1], other[1])
            yield self.located(Problem(message, key=f"sweep.axes.{varied}", fix=fix))


def _name(problem: Problem) -> tuple[str, str]:
    return problem.key, problem.message


def _corners(space: Sequence[Axis]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield a point with the first value of each axis, then points that differ from it in one axis, with that axis.

    Axes with few values come first, so that one with very many leaves none of the others unseen.
    """
    firsts = first_of(space)
    yield None, firsts
    for varied in sorted(space, key=lambda axis: len(ends_of(axis))):
        for value in ends_of(varied)[0 if varied.when else 1 :]:
            point: dict[str, Any] = {}
            for axis in space:
                if axis is varied:
                    point[axis.key] = value
                elif varied.when is not None and axis.key == varied.when[0]:
                    point[axis.key] = varied.when[1]
                elif active(axis, point):
                    point[axis.key] = firsts.get(axis.key, ends_of(axis)[0])
            yield varied.key, point


def first_of(space: Sequence[Axis]) -> dict[str, Any]:
    """Return the point with the first value of each axis."""
    params: dict[str, Any] = {}
    for axis in space:
        if active(axis, params):
            params[axis.key] = ends_of(axis)[0]
    return params


def ends_of(axis: Axis) -> Sequence[Any]:
    """Return the values of an axis, of an interval its two ends."""
    values = axis.values
    return values.values if isinstance(values, Choice) else (values.low, values.high)


def _once(key: str, varied: str, mine: Any, other: Any) -> str:
    separate = "start a study for each value"
    if isinstance(mine, dict):
        return separate
    if isinstance(mine, str):
        largest: Any = mine
    else:
        largest = "null" if None in (mine, other) else f"{max(mine, other):g}{'s' if isinstance(mine, float) else ''}"
    if key == "hardware.memory" and largest != "null":
        largest = format_size(max(mine, other)).replace(" ", "")
    return f"{key.removesuffix('.kind')}={largest}, for all of them; or {separate}"


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if key == "hardware.memory":
        return format_size(value)
    return format_span(value) if isinstance(value, int | float) else str(value)
