"""What a study's own run in MLflow shows of its points, read from points.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.runs.files import append_json_line
from ai4sdk.studies.point import Objective
from ai4sdk.tracking.points import PointsTail
from ai4sdk.tracking.tail import Point

LOSS, ACC = Objective("loss", "min"), Objective("val/acc", "max")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "points.jsonl"


def ended(file: Path, number: int, *values: float, time: float = 1.0, state: str = "succeeded") -> None:
    record = {"time": time, "event": "ended", "number": number, "state": state, "values": list(values) or None}
    append_json_line(file, record)


def rest(tail: PointsTail, limit: int = 1000) -> list[Point]:
    points = []
    while (batch := tail.next_batch(limit)) is not None:
        points += batch.points
    return points


def shown(points: list[Point], name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in points if point.name == name]


def test_a_points_value_stands_at_its_number_and_the_best_in_the_order_of_ending(file: Path) -> None:
    for number, value in ((2, 0.3), (0, 0.1), (1, 0.2)):
        ended(file, number, value, time=10 + number)
    tail = PointsTail(file, [LOSS])
    points = rest(tail)
    assert shown(points, "point.loss") == [(2, 0.3), (0, 0.1), (1, 0.2)]
    assert shown(points, "best.loss") == [(1, 0.3), (2, 0.1), (3, 0.1)]
    assert [point.time for point in points if point.name == "point.loss"] == [12_000, 10_000, 11_000]
    assert tail.best_point == 0


def test_every_objective_has_its_own_best_and_then_no_point_is_the_best(file: Path) -> None:
    ended(file, 0, 0.3, 0.9)
    ended(file, 1, 0.1, 0.5)
    tail = PointsTail(file, [LOSS, ACC])
    points = rest(tail)
    assert shown(points, "best.loss") == [(1, 0.3), (2, 0.1)]
    assert shown(points, "best.val/acc") == [(1, 0.9), (2, 0.9)]
    assert tail.best_point is None


def test_pruned_and_undefined_values_are_never_the_best(file: Path) -> None:
    ended(file, 0, 0.1, state="pruned")
    ended(file, 1, float("nan"))
    ended(file, 2, 0.4)
    ended(file, 3, state="failed")
    tail = PointsTail(file, [LOSS])
    points = rest(tail)
    assert [step for step, _ in shown(points, "point.loss")] == [0, 1, 2]
    assert shown(points, "best.loss") == [(3, 0.4)]
    assert tail.best_point == 2


def test_a_point_that_failed_and_was_tried_again_has_the_value_of_its_success(file: Path) -> None:
    ended(file, 0, state="failed")
    append_json_line(file, {"time": 2.0, "event": "started", "number": 0, "run": "points/00000", "attempt": 2})
    tail = PointsTail(file, [LOSS])
    assert rest(tail) == []
    assert (tail.running, tail.final) == ([0], [])
    ended(file, 0, 0.5)
    ended(file, 0, 0.5)
    assert shown(rest(tail), "point.loss") == [(0, 0.5)]
    assert (tail.running, tail.final) == ([], [0])


def test_points_are_told_by_how_they_stand(file: Path) -> None:
    for number in range(4):
        append_json_line(file, {"time": 1.0, "event": "asked", "number": number, "params": {}, "overrides": []})
    for number in (1, 2):
        append_json_line(file, {"time": 1.0, "event": "started", "number": number, "run": "x", "attempt": 1})
    ended(file, 2, state="interrupted")
    append_json_line(file, {"time": 1.0, "event": "reused", "number": 3, "run": "earlier", "values": [0.25]})
    tail = PointsTail(file, [LOSS])
    assert shown(rest(tail), "point.loss") == [(3, 0.25)]
    assert tail.counts == "1 waiting, 1 running, 1 interrupted, 1 reused"
    assert (tail.running, tail.final) == ([1], [])
    assert tail.reused == {3: "earlier"}
    assert tail.best_point == 3


@pytest.mark.parametrize("limit", [1, 2, 1000])
@pytest.mark.parametrize("known", [0, 1, 3, 5])
def test_who_begins_in_the_middle_goes_on_as_who_read_it_all(file: Path, limit: int, known: int) -> None:
    values = [0.5, 0.2, 0.4, 0.1, 0.3]
    offsets, points = [0], []
    whole = PointsTail(file, [LOSS])
    for number, value in enumerate(values):
        ended(file, number, value)
        offsets.append(file.stat().st_size)
        points.append(rest(whole))
    tail = PointsTail(file, [LOSS], offsets[known])
    assert rest(tail, limit) == [point for some in points[known:] for point in some]
    assert tail.best_point == whole.best_point == 3
    assert tail.final == list(range(5))


@pytest.mark.parametrize(
    "record",
    [
        {"event": "resumed", "number": 1},
        {"event": "ended", "number": -1, "state": "succeeded", "values": [1]},
        {"event": "ended", "number": "1", "state": "succeeded", "values": [1]},
        {"event": "ended", "number": 1, "state": "fish", "values": [1]},
        {"event": "ended", "number": 1, "state": "succeeded", "values": [1, 2]},
        {"event": "ended", "number": 1, "state": "succeeded", "values": ["x"]},
        {"event": "ended", "number": 1, "state": "succeeded", "values": 1},
    ],
)
def test_lines_that_are_not_known_are_passed_over(file: Path, record: dict[str, Any]) -> None:
    append_json_line(file, {"time": 1.0, **record})
    ended(file, 0, 0.5)
    assert shown(rest(PointsTail(file, [LOSS])), "point.loss") == [(0, 0.5)]


def test_half_a_line_is_left_for_later(file: Path) -> None:
    ended(file, 0, 0.5)
    line = json.dumps({"time": 1.0, "event": "ended", "number": 1, "state": "succeeded", "values": [0.4]})
    with open(file, "a", encoding="utf-8") as stream:
        stream.write(line[:30])
    tail = PointsTail(file, [LOSS])
    assert shown(rest(tail), "point.loss") == [(0, 0.5)]
    with open(file, "a", encoding="utf-8") as stream:
        stream.write(line[30:] + "\n")
    assert shown(rest(tail), "point.loss") == [(1, 0.4)]
