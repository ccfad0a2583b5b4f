"""Ships a study: a parent run in MLflow, and each point that ran as a child of it, all by one process."""

from __future__ import annotations

import logging
import os
from typing import Any

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, is_run, read_state
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.point import Objective
from ai4sdk.tracking.describe import TAG_LIMIT
from ai4sdk.tracking.faults import RunGone, known_faults, verdict_on
from ai4sdk.tracking.ledger import ending_of, read_ledger
from ai4sdk.tracking.lock import open_log, take
from ai4sdk.tracking.names import cut
from ai4sdk.tracking.outcome import points_of
from ai4sdk.tracking.points import PointsTail
from ai4sdk.tracking.settings import Redactor, Settings, read_settings
from ai4sdk.tracking.shipper import Shipper

__all__ = ["StudyShipper"]

log = logging.getLogger(__name__)

TOLD = 3
"""Points whose problems are told one by one."""


class _PointShipper(Shipper):
    """Ships a point over its study's connection.

    Parameters
    ----------
    paths, settings, redact
        As of any run.
    client
        The study's MLflow client.
    lock
        Descriptor that keeps other processes from shipping the point.
    """

    watches_machine = False  # which point the load is of cannot be told

    def __init__(self, paths: RunPaths, settings: Settings, redact: Redactor, client: Any, lock: int) -> None:
        super().__init__(paths, settings, redact)
        self._client = client
        self._lock = lock

    def _connect(self) -> Any:
        return self._client

    def close(self) -> None:
        """Leave the point to others."""
        os.close(self._lock)


class StudyShipper(Shipper):
    """Ships one study and its points.

    Points that were reused ran elsewhere and have their own run there: here they are only told of.

    Parameters
    ----------
    paths, settings
        The study, and where it is recorded.
    redact
        Takes secrets out of what is written.
    """

    watches_machine = False
    _paths: StudyPaths
    _tail: PointsTail

    def __init__(self, paths: StudyPaths, settings: Settings, redact: Redactor) -> None:
        super().__init__(paths, settings, redact)
        self._going_on: dict[int, _PointShipper] = {}
        self._through: set[int] = set()
        self._refused: dict[int, str] = {}
        self._told: dict[str, str] = {}

    def _tail_from(self, offset: int) -> PointsTail:
        objectives = [
            Objective(str(entry["name"]), entry["direction"]) for entry in self.settings.plan.get("objectives") or ()
        ]
        return PointsTail(self._paths.ledger, objectives, offset)

    def disconnect(self) -> None:
        """Connect anew in the next round, for the study and its points."""
        super().disconnect()
        self._let_go()

    def begin_again(self) -> None:
        """Forget what was shipped: MLflow no longer has it."""
        super().begin_again()
        self._let_go()
        self._through.clear()
        self._told.clear()

    def _let_go(self) -> None:
        while self._going_on:
            self._going_on.popitem()[1].close()

    # -- one round

    def _send_records(self, problems: list[str], *, at_end: bool) -> None:
        self._send_metrics()
        self._tell()
        if at_end:
            for point in points_of(self._paths):
                self._send_point(int(point.root.name), at_end=True)
        else:
            for number in self._tail.final:
                if number not in self._through:
                    self._send_point(number, at_end=True)
            for number in self._tail.running:
                self._through.discard(number)  # it failed before, and is tried again
                self._send_point(number, at_end=False)
        texts = [f"point {number}: {text}" for number, text in sorted(self._refused.items())]
        problems += texts[:TOLD]
        if more := len(texts[TOLD:]):
            problems.append(f"{more} more points are not recorded either")

    def _tell(self) -> None:
        """Say in the study's tags how its points stand."""
        tags = {"ai4sdk.points": self._tail.counts}
        if self._tail.reused:
            runs = ", ".join(self._tail.reused[number] for number in sorted(self._tail.reused))
            tags |= {"ai4sdk.reused": str(len(self._tail.reused)), "ai4sdk.reused.runs": cut(runs, TAG_LIMIT)}
        if best := self._best_run():
            tags["ai4sdk.best"] = os.path.relpath(best.root, self._paths.root.parent)
        if tags != self._told:
            self._recorder.tag(tags)
            self._told = tags

    def _best_run(self) -> RunPaths | None:
        number = self._tail.best_point
        if number is None:
            return None
        elsewhere = self._tail.reused.get(number)
        return RunPaths(self._paths.root.parent / elsewhere) if elsewhere else self._paths.point(number)

    def _send_point(self, number: int, *, at_end: bool) -> None:
        """Send a point, which must not keep the others from being sent if MLflow refuses it for good."""
        paths = self._paths.point(number)
        if at_end and self._has_arrived(paths):
            self._through.add(number)
            return
        self._refused.pop(number, None)
        try:
            point = self._going_on.get(number) or self._take(number)
            if point is not None:
                self._ship_point(number, point, at_end=at_end)
        except known_faults() as error:
            if verdict_on(error) != "refused":
                raise
            self._refused[number] = self._explain(error)
        if at_end:
            self._through.add(number)
            if point := self._going_on.pop(number, None):
                point.close()

    def _has_arrived(self, paths: RunPaths) -> bool:
        ledger = read_ledger(paths.tracking)
        if not ledger.finished or (ledger.uri, ledger.parent) != (self._ledger.uri, self._ledger.run_id):
            return False
        try:
            return ledger.ending == ending_of(read_state(paths))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _take(self, number: int) -> _PointShipper | None:
        """Return who ships a point; ``None`` if it is not there yet, or another process ships it."""
        paths = self._paths.point(number)
        if not is_run(paths.root):
            return None
        settings = read_settings(paths.root)
        lock = open_log(paths)
        if not take(lock):
            os.close(lock)
            return None
        self._going_on[number] = _PointShipper(paths, settings, self._redact, self._recorder.client, lock)
        return self._going_on[number]

    def _ship_point(self, number: int, point: _PointShipper, *, at_end: bool) -> None:
        try:
            problems = self._round_of(point, at_end=at_end)
        except known_faults() as error:
            point.note(error)
            raise
        point.settle(problems)
        self.progress = max(self.progress, point.progress)
        if problems:
            self._refused[number] = "; ".join(problems)

    def _round_of(self, point: _PointShipper, *, at_end: bool) -> list[str]:
        try:
            return point.ship(at_end=at_end)
        except RunGone as gone:
            log.warning("%s; it is recorded anew", gone)
            point.begin_again()
            return point.ship(at_end=at_end)

    # -- the end

    def _send_outcome(self, state: RunState, problems: list[str]) -> None:
        self._send_files(problems)
        if state.state is State.SUCCEEDED and self.settings.tracking.register_as:
            self._try(problems, self._register_best)

    def _register_best(self) -> None:
        from ai4sdk.tracking.model import register

        best = self._best_run()
        if best is None:
            log.warning("no model is registered: no point is the best one by a single objective")
            return
        ledger = read_ledger(best.tracking)
        model = ledger.model or {}
        if ledger.uri != self._ledger.uri or ledger.run_id is None or not model.get("ready"):
            log.warning("no model is registered: the best run, %s, has none in %s", best.root, self._ledger.uri)
            return
        register(self._recorder, str(model["id"]), ledger.run_id)
