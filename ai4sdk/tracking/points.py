"""Following points.jsonl: what became of a study's points, and the values that the study's own run in MLflow shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ai4sdk.studies.point import Objective, PointState
from ai4sdk.tracking.names import ValidNames
from ai4sdk.tracking.tail import Point, Tail, milliseconds, number_in

__all__ = ["PointsTail"]


class PointsTail(Tail):
    """Reads points.jsonl as it grows.

    A point's value stands at the step of its number, as ``point.OBJECTIVE``. ``best.OBJECTIVE`` stands at the number
    of points that had a value by then: points end in any order, and the last step must be the best of all.

    Parameters
    ----------
    path
        The file; it may not exist yet.
    objectives
        What is optimised.
    offset
        Bytes from the beginning that are known already: they are read to learn what they hold, and not yielded.
    """

    def __init__(self, path: Path, objectives: Sequence[Objective], offset: int = 0) -> None:
        super().__init__(path)
        self._optimise(objectives)
        self._valued: set[int] = set()
        self._states: dict[int, PointState] = {}
        self.reused: dict[int, str] = {}
        """Number of a point that ran elsewhere → its run directory, from the runs folder."""
        self.best_point: int | None = None
        """Number of the best point, where there is one objective."""
        self._skip_to(offset)

    def _optimise(self, objectives: Sequence[Objective]) -> None:
        names = ValidNames()
        self._objectives = [
            (objective, names(f"point.{objective.name}"), names(f"best.{objective.name}")) for objective in objectives
        ]
        self._best: list[float | None] = [None] * len(objectives)

    @property
    def running(self) -> list[int]:
        """Numbers of the points that run."""
        return sorted(number for number, state in self._states.items() if state is PointState.RUNNING)

    @property
    def final(self) -> list[int]:
        """Numbers of the points that ran here and are through, even when the study is resumed."""
        return sorted(number for number, state in self._states.items() if state.final and number not in self.reused)

    @property
    def counts(self) -> str:
        """How the points stand, such as ``2 running, 9 succeeded, 1 reused``."""
        states = (state for number, state in self._states.items() if number not in self.reused)
        known = Counter(states)
        texts = [f"{known[state]} {state}" for state in PointState if known[state]]
        return ", ".join(texts + ([f"{len(self.reused)} reused"] if self.reused else []))

    def _points(self, record: Mapping[str, Any], place: int) -> Iterator[Point]:
        event, number, time = record.get("event"), record.get("number"), milliseconds(record.get("time"))
        if event == "objective" and not self._objectives:  # a study without one is judged as its first run can be
            self._optimise([Objective(str(record.get("name")), "max" if record.get("direction") == "max" else "min")])
        if event not in ("asked", "started", "reused", "ended"):
            return
        if not isinstance(number, int) or isinstance(number, bool) or number < 0 or time is None:
            self._complain(place)
            return
        if event == "asked":
            self._states.setdefault(number, PointState.WAITING)
        elif event == "started":
            self._states[number] = PointState.RUNNING
        elif event == "reused":
            self._states[number] = PointState.SUCCEEDED
            self.reused[number] = str(record.get("run"))
            yield from self._values(number, record.get("values"), time)
        elif event == "ended":
            try:
                self._states[number] = PointState(str(record.get("state")))
            except ValueError:
                self._complain(place)
                return
            yield from self._values(number, record.get("values"), time)

    def _values(self, number: int, values: Any, time: int) -> Iterator[Point]:
        if not isinstance(values, list) or len(values) != len(self._objectives) or number in self._valued:
            return
        known = [number_in(value) for value in values]
        if any(value is None for value in known):
            return
        self._valued.add(number)
        self.last_step = max(self.last_step, number)
        # What was stopped early did not reach its value: it is shown, and is never the best.
        counts = self._states[number] is PointState.SUCCEEDED
        for index, (value, (objective, name, best_name)) in enumerate(zip(known, self._objectives, strict=True)):
            assert value is not None
            yield Point(name, value, time, number)
            best = self._best[index]
            if counts and not math.isnan(value) and (best is None or objective.better(value, best)):
                best = self._best[index] = value
                if len(self._objectives) == 1:
                    self.best_point = number
            if best is not None:
                yield Point(best_name, best, time, len(self._valued))
