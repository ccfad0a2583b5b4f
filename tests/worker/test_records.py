"""What a running task tells the world."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ai4sdk.runs.files import read_json, read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.records import Progress, Records


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_metrics_are_one_object_a_line(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    records = Records(paths)
    records.metrics({"loss": 0.5, "accuracy": 1.0}, step=10, epoch=2)
    records.metrics({"loss": math.nan}, step=20, epoch=2)
    lines = list(read_json_lines(paths.metrics))  # read while the file is still open: nothing is buffered
    assert lines[0].items() >= {"step": 10, "epoch": 2, "metrics": {"loss": 0.5, "accuracy": 1.0}}.items()
    assert lines[0]["time"] <= lines[1]["time"]
    assert math.isnan(lines[1]["metrics"]["loss"])
    records.close()


def test_a_line_cut_short_by_a_kill_does_not_spoil_the_next(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.metrics.write_text('{"step": 1, "metrics": {}}\n{"step": 2, "met')
    records = Records(paths)
    records.metrics({"loss": 1.0}, step=3, epoch=0)
    records.close()
    assert [line["step"] for line in read_json_lines(paths.metrics)] == [1, 3]


def test_a_resumed_task_knows_which_phases_are_finished(tmp_path: Path) -> None:
    progress = Progress(RunPaths(tmp_path))
    progress.enter("fit")
    progress.finish("fit")
    progress.enter("evaluate")
    again = Progress(RunPaths(tmp_path))
    assert again.finished == ["fit"]
    again.enter("evaluate")
    again.finish("evaluate")
    assert Progress(RunPaths(tmp_path)).finished == ["fit", "evaluate"]


def test_unreadable_progress_counts_as_none(tmp_path: Path) -> None:
    RunPaths(tmp_path).progress.write_text('["no progress"]')
    assert Progress(RunPaths(tmp_path)).finished == []


def test_progress_is_due_four_times_a_second(tmp_path: Path) -> None:
    clock = Clock()
    progress = Progress(RunPaths(tmp_path), clock=clock)
    assert progress.due
    progress.update(step=0, epoch=0)
    clock.now += 0.24
    assert not progress.due
    clock.now += 0.02
    assert progress.due


def test_progress_tells_the_rate_of_the_last_seconds(tmp_path: Path) -> None:
    clock = Clock()
    paths = RunPaths(tmp_path)
    progress = Progress(paths, clock=clock)
    progress.enter("fit")
    for step in range(0, 100, 10):  # ten steps a second
        progress.update(step=step, batch=step)
        clock.now += 1
    assert read_json(paths.progress)["rate"] == 10
    for step in range(100, 1000, 100):  # faster
        progress.update(step=step, batch=step)
        clock.now += 1
    assert read_json(paths.progress)["rate"] == 100


def test_progress_that_cannot_be_written_does_not_end_a_training(tmp_path: Path) -> None:
    progress = Progress(RunPaths(tmp_path / "gone"))
    progress.update(step=1)


def test_events_are_appended(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    records = Records(paths)
    records.event("checkpoint", step=5)
    records.close()
    line = json.loads(paths.events.read_text())
    assert (line["event"], line["step"]) == ("checkpoint", 5)
