"""What a study varies: axes in Hydra's sweep grammar → the values each may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException, OverrideParseException

from ai4sdk.config.compose import COMMAND_LINE, override_problem
from ai4sdk.config.encode import encode
from ai4sdk.config.keys import nearest
from ai4sdk.config.repository import Repository
from ai4sdk.errors import Origin, Problem

__all__ = ["Axis", "Choice", "Interval", "Space", "read_axes", "split_sweeps"]

MOST_VALUES = 100_000
"""Values on one axis beyond which it is refused: `range(10**9)` is a slip of the pen."""


@dataclass(frozen=True)
class Choice:
    """Values one by one.

    Parameters
    ----------
    values
        Plain values; for a group the names of options.
    ordered
        Whether they are steps of a scale, as in ``range(1, 9)`` or ``tag(ordered, choice(small, large))``.
    """

    values: tuple[Any, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Interval:
    """All numbers between two bounds.

    Parameters
    ----------
    low, high
        The bounds, both included.
    log
        Whether equal ratios, not equal distances, are equally likely (``tag(log, interval(...))``).
    integer
        Whether only whole numbers count, as in ``int(interval(1, 8))``.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False


@dataclass(frozen=True)
class Axis:
    """One thing a study varies.

    Parameters
    ----------
    key
        What stands left of ``=``: a key, a group, with ``+`` in front or ``@package`` behind where they were written.
    values
        What it may be.
    when
        Another axis and the value it must have for this one to be there; ``None`` for always.
    """

    key: str
    values: Choice | Interval
    when: tuple[str, Any] | None = None


Space = tuple[Axis, ...]


def split_sweeps(texts: Sequence[str], repository: Repository) -> tuple[list[str], list[Axis], list[Problem]]:
    """Part the overrides that have several values from the others.

    Parameters
    ----------
    texts
        Overrides as typed.
    repository
        The configs, which ``glob(...)`` chooses among.

    Returns
    -------
    fixed
        Overrides with one value; those that cannot be read are among them, for composing to complain about.
    axes
        The others, in order.
    problems
        Axes that cannot be used.
    """
    fixed: list[str] = []
    axes: dict[str, Axis] = {}
    problems: list[Problem] = []
    typed: dict[str, str] = {}
    parser = OverridesParser.create()
    for text in texts:
        try:
            override = parser.parse_override(text)
        except (OverrideParseException, HydraException, ValueError, RecursionError):
            fixed.append(text)
            continue
        key = override.get_key_element().lstrip("+")
        if key in typed and (override.is_sweep_override() or any(axis.lstrip("+") == key for axis in axes)):
            message = f"{key} is given twice, and once with several values: {typed[key]} and {text}"
            problems.append(Problem(message, key=override.key_or_group, origin=Origin(COMMAND_LINE, text=text)))
        typed[key] = text
        if not override.is_sweep_override():
            fixed.append(text)
            continue
        try:
            axes[override.get_key_element()] = _axis(override, repository)
        except ValueError as error:
            origin = Origin(COMMAND_LINE, text=text)
            problems.append(Problem(str(error), key=override.key_or_group, origin=origin))
    return fixed, list(axes.values()), problems


def read_axes(axes: Mapping[str, Any], repository: Repository) -> tuple[list[Axis], list[Problem]]:
    """Read ``sweep.axes``.

    Parameters
    ----------
    axes
        The section as plain values: key → text in the grammar, a list, a single value, or ``{values, when}``.
    repository
        The configs, which ``glob(...)`` chooses among.

    Returns
    -------
    axes
        Those that can be used.
    problems
        Why others cannot, with their keys.
    """
    found: dict[str, Axis] = {}
    problems: list[Problem] = []
    parser = OverridesParser.create()
    for key, content in axes.items():
        where = f"sweep.axes.{key}"
        values, when = (content.get("values"), content.get("when")) if isinstance(content, Mapping) else (content, None)
        try:
            if isinstance(values, str):
                override = parser.parse_override(f"{key}={values}")
                axis = _axis(override, repository)
            else:
                parser.parse_override(f"{key}=0")  # the key must be readable, too
                axis = Axis(key, Choice(_distinct(values if isinstance(values, list) else [values])))
            found[axis.key] = Axis(axis.key, axis.values, _condition(when, axes) if when is not None else None)
        except (OverrideParseException, HydraException, RecursionError) as error:
            reason = override_problem(f"{key}={values}", error)
            problems.append(Problem(f"{where}: {reason.message}", key=where, fix="such as 1e-3,1e-2 or range(5)"))
        except ValueError as error:
            problems.append(Problem(f"{where}: {error}", key=where))
    return list(found.values()), problems


def _condition(when: str, axes: Mapping[str, Any]) -> tuple[str, Any]:
    key, equals, _ = when.partition("=")
    if not equals:
        raise ValueError(f"when: {when!r} is not written AXIS=VALUE")
    if key not in axes:
        near = nearest(key, axes)
        raise ValueError(f"when: {key!r} is no axis" + (f"; {near} is" if near else ""))
    return key, OverridesParser.create().parse_override(when).value()


def _axis(override: Override, repository: Repository) -> Axis:
    """Return the axis that an override describes; raises ValueError with the reason if it describes none."""
    key, value = override.get_key_element(), override._value
    if override.is_delete():
        raise ValueError(f"{key}: what is deleted has no values")
    if isinstance(value, IntervalSweep):
        return Axis(key, _interval(key, value))
    if isinstance(value, Glob):
        options = value.filter(repository.get_group_options(override.key_or_group))
        if not options and not repository.group_exists(override.key_or_group):
            raise ValueError(f"{key}: glob chooses among the options of a group, and {override.key_or_group} is none")
        if not options:
            raise ValueError(f"{key}: no option of the group {override.key_or_group!r} fits {override.input_line}")
        return Axis(key, Choice(tuple(options)))
    if isinstance(value, RangeSweep) and not value.step:
        raise ValueError(f"{key}: a range needs a step other than 0")
    elements = list(islice(override.sweep_iterator(), MOST_VALUES + 1)) if isinstance(value, Sweep) else [value]
    if len(elements) > MOST_VALUES:
        raise ValueError(f"{key} has more than {MOST_VALUES:,} values; interval(a, b) with sweep=random draws from it")
    values = _distinct([Override._convert_value(element) for element in elements])
    if not values:
        raise ValueError(f"{key}: {override.get_value_string()} has no values")
    ordered = isinstance(value, RangeSweep) or (isinstance(value, ChoiceSweep) and "ordered" in value.tags)
    return Axis(key, Choice(values, ordered))


def _interval(key: str, sweep: IntervalSweep) -> Interval:
    low, high = sweep.start, sweep.end
    assert low is not None
    assert high is not None
    log = "log" in sweep.tags
    if not low < high or high - low == float("inf"):
        raise ValueError(f"{key}: interval({low}, {high}) holds no numbers")
    if log and low <= 0:
        raise ValueError(f"{key}: a log scale starts above 0, not at {low}")
    return Interval(low, high, log, integer=isinstance(low, int) and isinstance(high, int))


def _distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values, each once; 1 and true are two values, 1 and 1.0 one text apart."""
    return tuple({encode(value): value for value in values}.values())
