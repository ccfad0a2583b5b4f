"""What a study is made of: objectives, points, and what became of them. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

__all__ = ["Objective", "Point", "PointState", "Result", "StudyView"]


@dataclass(frozen=True)
class Objective:
    """A metric and which way is better."""

    name: str
    direction: Literal["min", "max"]

    def better(self, value: float, than: float) -> bool:
        """Tell whether one value is better than another."""
        return value < than if self.direction == "min" else value > than


@dataclass(frozen=True)
class Point:
    """One choice of a value on every axis.

    Parameters
    ----------
    number
        Counted from 0 in the order of asking.
    params
        Axis → value, as plain values; axes that are not there for this point are missing.
    overrides
        The same as overrides that one could type.
    digest
        Of its plan.
    """

    number: int
    params: Mapping[str, Any]
    overrides: tuple[str, ...]
    digest: str


class PointState(StrEnum):
    """How a point stands."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PRUNED = "pruned"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it, even when the study is resumed."""
        return self in (PointState.SUCCEEDED, PointState.FAILED, PointState.PRUNED)


@dataclass(frozen=True)
class Result:
    """A point and what became of it.

    Parameters
    ----------
    point
        The point.
    state
        How it stands.
    values
        A value for each objective, once it succeeded (or was pruned: the last report); ``None`` if there are none.
    run
        Its run directory, once it has one.
    reused
        Whether its digest had succeeded before, so that it was not run here.
    cause
        Why it failed.
    took
        Seconds.
    attempts
        How often it was started here.
    reports
        Step → value, as reported while training.
    """

    point: Point
    state: PointState = PointState.WAITING
    values: tuple[float, ...] | None = None
    run: Path | None = None
    reused: bool = False
    cause: str | None = None
    took: float | None = None
    attempts: int = 0
    reports: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyView:
    """A study at one moment, for tables, reports and records.

    Parameters
    ----------
    id
        The study's id, which is its folder's name.
    name
        Name of the job.
    config
        The config as asked for.
    search
        How points are chosen.
    objectives
        What is optimised; empty where nothing can be said yet.
    axes
        Names of the axes, in order.
    total
        Points there will be.
    results
        The points so far, by number.
    state
        State of the study: that of its engine.
    started, ended
        Unix times in seconds.
    pruner
        What gives points up, if anything does.
    """

    id: str
    name: str
    config: str
    search: str
    objectives: tuple[Objective, ...]
    axes: tuple[str, ...]
    total: int
    results: tuple[Result, ...]
    state: str
    started: float | None = None
    ended: float | None = None
    pruner: str | None = None
