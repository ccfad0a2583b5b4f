"""What stands in metrics.jsonl is yielded once, whole and in order."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.runs.files import append_json_line
from ai4sdk.tracking.tail import MetricsTail, Point


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def record(step: int, time: float = 1.0, **metrics: float) -> dict[str, object]:
    return {"time": time, "step": step, "epoch": 0, "metrics": metrics}


def rest(tail: MetricsTail, limit: int = 1000) -> list[Point]:
    points = []
    while (batch := tail.next_batch(limit)) is not None:
        points += batch.points
    return points


def test_a_file_that_does_not_exist_yet_has_nothing(file: Path) -> None:
    assert MetricsTail(file).next_batch() is None


def test_values_come_with_their_time_in_milliseconds_and_their_step(file: Path) -> None:
    append_json_line(file, record(7, time=1_700_000_000.1239, loss=0.5, acc=1))
    assert rest(MetricsTail(file)) == [
        Point("loss", 0.5, 1_700_000_000_124, 7),
        Point("acc", 1.0, 1_700_000_000_124, 7),
    ]


def test_a_line_without_an_end_is_left_until_it_has_one(file: Path) -> None:
    line = json.dumps(record(1, loss=0.5))
    file.write_text(line[:20], encoding="utf-8")
    tail = MetricsTail(file)
    assert tail.next_batch() is None
    file.write_text(line + "\n", encoding="utf-8")
    assert [point.step for point in rest(tail)] == [1]


def test_a_line_cut_short_by_a_kill_gives_the_record_that_follows_in_it(file: Path) -> None:
    half = json.dumps(record(1, loss=0.5))[:25]
    file.write_text(half, encoding="utf-8")
    append_json_line(file, record(2, loss=0.4))
    append_json_line(file, record(3, loss=0.3))
    assert [point.step for point in rest(MetricsTail(file))] == [2, 3]


def test_of_a_metric_and_a_step_the_first_value_counts(file: Path) -> None:
    for attempt, steps in ((0, range(10)), (1, range(5, 15))):
        for step in steps:
            append_json_line(file, record(step, time=attempt * 100 + step, loss=attempt))
    points = rest(MetricsTail(file))
    assert [(point.step, point.value) for point in points] == [(s, 0.0 if s < 10 else 1.0) for s in range(15)]


def test_a_step_seen_under_one_name_is_new_under_another(file: Path) -> None:
    append_json_line(file, record(3, loss=1))
    append_json_line(file, record(3, loss=2, acc=3))
    assert [(point.name, point.value) for point in rest(MetricsTail(file))] == [("loss", 1.0), ("acc", 3.0)]


def test_starting_again_from_an_offset_knows_what_came_before_it(file: Path) -> None:
    for step in range(10):
        append_json_line(file, record(step, loss=step))
    first = MetricsTail(file)
    batch = first.next_batch(4)
    assert batch is not None
    append_json_line(file, record(2, time=9, loss=99))
    again = MetricsTail(file, batch.end)
    assert again.offset == batch.end
    assert [point.step for point in rest(again)] == [4, 5, 6, 7, 8, 9]
    assert again.last_step == 9


def test_a_file_that_became_shorter_is_read_from_its_beginning(file: Path) -> None:
    for step in range(20):
        append_json_line(file, record(step, loss=step))
    tail = MetricsTail(file)
    rest(tail)
    file.unlink()
    append_json_line(file, record(19, loss=0))
    append_json_line(file, record(20, loss=0))
    assert [point.step for point in rest(tail)] == [20]
    assert [point.step for point in rest(MetricsTail(file, 10**6))] == []


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"no json\n",
        b"[1, 2]\n",
        b"\xff\xfe\n",
        b'{"time": 1, "step": "1", "metrics": {"a": 1}}\n',
        b'{"time": 1, "step": true, "metrics": {"a": 1}}\n',
        b'{"time": 1, "step": 1e3, "metrics": {"a": 1}}\n',
        b'{"time": 1, "step": 99999999999999999999, "metrics": {"a": 1}}\n',
        b'{"time": -1, "step": 1, "metrics": {"a": 1}}\n',
        b'{"time": NaN, "step": 1, "metrics": {"a": 1}}\n',
        b'{"time": 1e300, "step": 1, "metrics": {"a": 1}}\n',
        b'{"time": 1, "step": 1}\n',
        b'{"time": 1, "step": 1, "metrics": [1]}\n',
        b'{"time": 1, "step": 1, "metrics": {"a": "x", "b": null, "c": true}}\n',
        b'{"time": 1, "step": 1, "metrics": {"a": 1' + b"0" * 400 + b"}}\n",
    ],
)
def test_what_is_no_record_is_left_out_and_the_rest_is_not(file: Path, line: bytes) -> None:
    file.write_bytes(line)
    append_json_line(file, record(2, loss=0.5))
    assert [(point.name, point.step) for point in rest(MetricsTail(file))] == [("loss", 2)]


def test_nan_and_infinity_are_values(file: Path) -> None:
    append_json_line(file, record(1, a=math.nan, b=math.inf, c=-math.inf))
    values = {point.name: point.value for point in rest(MetricsTail(file))}
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


def test_a_record_longer_than_a_batch_and_a_block_is_whole(file: Path) -> None:
    append_json_line(file, record(1, **{f"metric_{number}_{'x' * 200}": number for number in range(6000)}))
    append_json_line(file, record(2, loss=1))
    assert file.stat().st_size > 1 << 20
    assert len(rest(MetricsTail(file))) == 6001


def test_a_million_steps_are_remembered_in_little_memory(file: Path) -> None:
    block = "".join(json.dumps(record(step, loss=1), separators=(",", ":")) + "\n" for step in range(100_000))
    file.write_text(block, encoding="utf-8")
    tracemalloc.start()
    try:
        tail = MetricsTail(file, file.stat().st_size)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tail.next_batch() is None
    assert held < 200_000  # a set of pairs would hold 10 MB


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(-3, 30), st.floats(allow_nan=False)), max_size=60),
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.data(),
)
def test_batches_and_restarts_never_change_what_is_yielded(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int, float]],
    limits: list[int],
    data: st.DataObject,
) -> None:
    file = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    for name, step, value in rows:
        append_json_line(file, record(step, **{name: value}))
    expected: dict[tuple[str, int], float] = {}
    for name, step, value in rows:
        expected.setdefault((name, step), value)
    found: list[tuple[str, int, float]] = []
    tail = MetricsTail(file)
    for turn in range(1000):
        batch = tail.next_batch(limits[turn % len(limits)])
        if batch is None:
            break
        found += [(point.name, point.step, point.value) for point in batch.points]
        if data.draw(st.booleans()):
            tail = MetricsTail(file, batch.end)
    assert found == [(name, step, value) for (name, step), value in expected.items()]
