"""The values a study chooses from, axis by axis. Pure functions over plain data."""

from __future__ import annotations

import difflib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ai4sdk.config.axes import Axis, Choice, Interval, Space
from ai4sdk.config.encode import unwritable_keys
from ai4sdk.errors import ConfigError, Problem

__all__ = [
    "active",
    "check",
    "grid",
    "identity",
    "listed",
    "sample",
    "size",
    "unlisted",
]


def identity(value: Any) -> str:
    """Return a text that two plain values share only if they are the same; 1, 1.0, true and "1" are four values."""
    return json.dumps(value, sort_keys=True)


def listed(values: Choice | Interval) -> Sequence[Any] | None:
    """Return the values one by one, each once; ``None`` for an interval of numbers that lie dense."""
    if isinstance(values, Choice):
        return tuple({identity(value): value for value in values.values}.values())
    if values.integer:
        return range(math.ceil(values.low), math.floor(values.high) + 1)
    return None


def active(axis: Axis, params: Mapping[str, Any]) -> bool:
    """Tell whether an axis is there, given the values of the axes before it."""
    if axis.when is None:
        return True
    key, value = axis.when
    return key in params and identity(params[key]) == identity(value)


def grid(space: Space) -> Iterator[dict[str, Any]]:
    """Go through every combination once, the last axis fastest.

    Parameters
    ----------
    space
        The axes.

    Yields
    ------
    dict
        Axis → value, of those axes that are there.

    Raises
    ------
    ConfigError
        If an axis is an interval.
    """
    if problems := unlisted(space):
        raise ConfigError(problems)
    yield from _combinations([(axis, listed(axis.values) or ()) for axis in space], {})


def _combinations(axes: list[tuple[Axis, Sequence[Any]]], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not axes:
        yield chosen
        return
    (axis, values), *rest = axes
    if not active(axis, chosen):
        yield from _combinations(rest, chosen)
        return
    for value in values:
        yield from _combinations(rest, {**chosen, axis.key: value})


def unlisted(space: Space) -> list[Problem]:
    """Return what is wrong with a space as a grid: a problem for each interval."""
    return [
        Problem(
            f"{axis.key} is an interval, which a grid cannot go through",
            key=f"sweep.axes.{axis.key}",
            fix="sweep=random or sweep=tpe; or list the values",
        )
        for axis in space
        if listed(axis.values) is None
    ]


def size(space: Space) -> int | None:
    """Return how many combinations there are, counted without going through them; ``None`` if there is no end."""
    branches: dict[tuple[str, str], int] = {}
    total = 1
    for axis in reversed(space):
        values = listed(axis.values)
        if values is None:
            return None
        # An axis offers one combination a value, but where others depend on the value as many as these offer.
        below = [count for (key, _), count in branches.items() if key == axis.key]
        count = len(values) - len(below) + sum(below)
        if axis.when is None:
            total *= count
        else:
            parent = (axis.when[0], identity(axis.when[1]))
            branches[parent] = branches.get(parent, 1) * count
    return total


def sample(space: Space, seed: int, number: int) -> dict[str, Any]:
    """Draw a point at random.

    Parameters
    ----------
    space
        The axes.
    seed
        Of the search.
    number
        Of the point. A point depends on nothing but these two, so that more points change none that were there.

    Returns
    -------
    dict
        Axis → value, of those axes that are there.
    """
    # Only random() is promised to give the same numbers in every version of Python.
    draw = random.Random(f"{seed}:{number}").random
    params: dict[str, Any] = {}
    for axis in space:
        chance = draw()
        if active(axis, params):
            params[axis.key] = _at(axis.values, chance)
    return params


def _at(values: Choice | Interval, chance: float) -> Any:
    """Return the value that a number from [0, 1) picks."""
    steps = listed(values)
    if steps is not None and not (isinstance(values, Interval) and values.log):
        return steps[int(chance * len(steps))]
    assert isinstance(values, Interval)
    # Half a unit more on both sides gives the first and the last whole number the room that others have.
    margin = 0.5 if values.integer else 0.0
    low, high = values.low - margin, values.high + margin
    if values.log:
        number = math.exp(math.log(low) + chance * (math.log(high) - math.log(low)))
    else:
        number = low + chance * (high - low)
    number = min(max(number, values.low), values.high)
    return round(number) if values.integer else number


def check(space: Space) -> list[Problem]:
    """Find axes that cannot be searched.

    Parameters
    ----------
    space
        The axes.

    Returns
    -------
    list of Problem
        All mistakes, with keys below ``sweep.axes``.
    """
    problems = []
    before: dict[str, Axis] = {}
    for axis in space:
        key = f"sweep.axes.{axis.key}"
        found = []
        if axis.key in before:
            found.append((f"{axis.key} is varied twice", "leave one of them out"))
        found += _bad_values(axis)
        if axis.when is not None:
            found += _bad_condition(axis, *axis.when, before, [other.key for other in space])
        problems += [Problem(message, key=key, fix=fix) for message, fix in found]
        before[axis.key] = axis
    return problems


def _bad_values(axis: Axis) -> Iterator[tuple[str, str]]:
    key, values = axis.key, axis.values
    if isinstance(values, Choice):
        if not values.values:
            yield f"{key} has no values to choose from", f"{key}: 1,2,3"
        for name in unwritable_keys(values.values)[:1]:
            yield f"{key} has a mapping with the key {name!r}, which is no plain name", "vary a group with such options"
        return
    if not (math.isfinite(values.low) and math.isfinite(values.high)):
        yield f"{key} has a bound that is not finite", f"{key}: interval(0, 1)"
    elif values.low > values.high:
        yield f"{key} starts above its end", f"{key}: interval({values.high:g}, {values.low:g})"
    elif values.integer and not (float(values.low).is_integer() and float(values.high).is_integer()):
        yield f"{key} is of whole numbers, but its bounds are not", f"{key}: interval(1, 10)"
    elif values.log and values.low <= 0:
        yield f"{key} is logarithmic and must start above 0", f"{key}: tag(log, interval(1e-5, {values.high:g}))"


def _bad_condition(
    axis: Axis, key: str, value: Any, before: Mapping[str, Axis], every: list[str]
) -> Iterator[tuple[str, str]]:
    if key not in before:
        if key == axis.key:
            yield f"{axis.key} depends on itself", "leave out when"
        elif key in every:
            yield f"{axis.key} depends on {key}, which comes after it", f"put {key} before {axis.key}"
        else:
            near = difflib.get_close_matches(key, every, n=1)
            fix = f"when: {near[0]}={value}" if near else f"add {key} to sweep.axes, or leave out when"
            yield f"{axis.key} depends on {key}, which is no axis", fix
        return
    if any(_bad_values(before[key])):
        return
    values = listed(before[key].values)
    if values is None:
        yield f"{axis.key} depends on one value of {key}, which is an interval", f"list the values of {key}"
    elif identity(value) not in map(identity, values):
        shown = ", ".join(str(one) for one in values[:10])
        yield f"{axis.key} needs {key}={value}, which {key} never is", f"when: {key}= one of {shown}"
