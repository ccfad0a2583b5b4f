"""Reports of a training to its study: answered once, decided once, and never waited for in vain."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import hold_lock
from ai4sdk.studies.reports import ReportTail
from ai4sdk.worker.reporting import Reporter
from ai4sdk.worker.signals import StopTraining


@pytest.fixture
def point(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "study/points/00000")
    paths.root.mkdir(parents=True)
    paths.membership.write_text(json.dumps({"study": "study", "number": 0, "report": "val_loss"}))
    return paths


def test_only_points_that_are_asked_to_report(point, tmp_path):
    reporter = Reporter.of(point)
    assert reporter is not None
    assert reporter.metric == "val_loss"
    assert Reporter.of(RunPaths(tmp_path)) is None
    point.membership.write_text("[]")
    assert Reporter.of(point) is None


def answered(point: RunPaths, verdicts: dict[int, bool]) -> threading.Thread:
    """Play the engine: answer each step as told."""
    tail = ReportTail(point)

    def play() -> None:
        left = dict(verdicts)
        deadline = time.monotonic() + 20
        while left and time.monotonic() < deadline:
            for step, _ in tail.read():
                tail.answer(step, left.pop(step))
            time.sleep(0.005)

    thread = threading.Thread(target=play)
    thread.start()
    return thread


def test_a_training_goes_on_or_stops_as_the_study_says(point):
    lock = hold_lock(RunPaths(point.root.parent.parent))
    engine = answered(point, {0: True, 1: False})
    reporter = Reporter(point, "val_loss")
    reporter.report(0, 0.5)
    with pytest.raises(StopTraining, match="pruned"):
        reporter.report(1, 0.6)
    engine.join()
    os.close(lock)
    # After a kill what was decided is decided, though nobody is there.
    again = Reporter(point, "val_loss")
    again.report(0, 0.5)
    with pytest.raises(StopTraining):
        again.report(1, 0.6)
    assert len(point.reports.read_text().splitlines()) == 2
    tail = ReportTail(point)
    assert tail.given_up
    assert [*tail.read()] == []


def test_without_an_engine_nobody_is_waited_for(point):
    began = time.monotonic()
    Reporter(point, "val_loss").report(0, 0.5)
    assert time.monotonic() - began < 10
    assert [*ReportTail(point).read()] == [(0, 0.5)]


def test_half_a_line_is_no_report_yet(point):
    point.reports.write_text('{"step": 0, "value": 1.0}\n{"step": 1, "val')
    tail = ReportTail(point)
    assert [*tail.read()] == [(0, 1.0)]
    with open(point.reports, "a") as file:
        file.write('ue": 2.0}\n')
    assert [*tail.read()] == [(1, 2.0)]
