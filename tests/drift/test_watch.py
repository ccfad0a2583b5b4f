"""Watching never holds up who feeds it, tells each change once, and survives whatever it is fed."""

import json
import logging
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ai4sdk.drift import feeding as room
from ai4sdk.drift.features import features_of_inputs, features_of_outputs
from ai4sdk.drift.reference import make_reference
from ai4sdk.drift.sketch import sketch
from ai4sdk.drift.states import Hits, Latch, worst
from ai4sdk.drift.streams import ranks
from ai4sdk.drift.watch import DriftWatch
from ai4sdk.drift.windows import Windows
from ai4sdk.errors import EnvironmentFault
from ai4sdk.spec.drift import DriftWatching
from ai4sdk.worker.prediction import Prediction

NUMBERS = DriftWatching(window=100, load=1.0)


def fed(watch, batches):
    for samples, prediction in batches:
        assert watch.feed(samples, prediction)
    assert watch.drain()


def test_undrifted_data_are_ok(reference, batch):
    with DriftWatch(reference, NUMBERS) as watch:
        fed(watch, (batch(20, seed) for seed in range(25)))
        told = watch.snapshot()
    assert told["state"] == "ok"
    assert told["counters"]["batches"] == 25
    assert told["counters"]["samples"] == 500
    assert told["counters"]["windows"] == 5
    assert told["counters"]["errors"] == 0
    assert told["gauges"]["window_samples"] == 0
    json.dumps(told, allow_nan=False)


def test_drift_is_a_warning_after_a_window_and_drift_after_two_and_goes_away(reference, batch, tmp_path, caplog):
    events = tmp_path / "drift.jsonl"
    caplog.set_level(logging.WARNING, "ai4sdk.drift")
    with DriftWatch(reference, NUMBERS, events=events, name="heart", version="3") as watch:
        states, by_feature = [], []
        for seed, moved in enumerate([0, 30, 30, 30, 0, 0]):
            fed(watch, [batch(100, seed, moved)])
            states.append(watch.state)
            by_feature.append(watch.snapshot()["features"]["input:age"])
        assert watch.snapshot()["features"]["input:smokes"] == "ok"
    assert states == ["ok", "warning", "drift", "drift", "warning", "ok"]
    assert by_feature == states
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert (lines[0]["event"], lines[0]["name"], lines[0]["version"]) == ("began", "heart", "3")
    changes = [(line["was"], line["state"]) for line in lines[1:] if line["stream"] == "windows"]
    assert changes == [("ok", "warning"), ("warning", "drift"), ("drift", "warning"), ("warning", "ok")]
    assert lines[1]["findings"][0]["name"] == "age"
    assert len(caplog.messages) == 4  # once for each change
    assert caplog.messages[0] == "model heart: drift watch: windows went from ok to warning (input age)"
    assert caplog.messages[3] == "model heart: drift watch: windows went from warning to ok"


def test_who_feeds_never_waits_and_what_is_dropped_is_counted(reference, batch):
    watch = DriftWatch(reference, DriftWatching(window=100, queue=3))  # nobody looks: it was not started
    samples, prediction = batch(10)
    assert [watch.feed(samples, prediction) for _ in range(5)] == [True, True, True, False, False]
    counters = watch.snapshot()["counters"]
    assert (counters["dropped_batches"], counters["dropped_samples"]) == (2, 20)
    assert watch.snapshot()["gauges"]["queue"] == 3
    watch.start()
    assert watch.drain()
    assert watch.feed(samples, prediction)
    watch.close()
    assert not watch.feed(samples, prediction)


def test_views_of_memory_that_is_used_again_are_kept(reference, batch):
    _, prediction = batch(20)
    samples = np.random.default_rng(0).normal(size=(20, 3))
    memory = samples.copy()
    watch = DriftWatch(reference, NUMBERS)
    assert watch.feed(memory[:], prediction)
    memory[:] = -1e9
    work, _ = watch._queue.get()
    assert np.array_equal(work.args[0], samples)
    memory[:] = samples
    assert watch.feed(memory[:], Prediction("other", memory.reshape(20, 3)))  # its module answers with what it is asked
    memory[:] = -1e9
    work, _ = watch._queue.get()
    assert np.array_equal(work.args[1].outputs, samples)


def test_what_waits_is_bounded_in_bytes(reference, monkeypatch):
    monkeypatch.setattr(room, "MOST_BYTES", 1000)
    watch = DriftWatch(reference, NUMBERS)
    assert watch.feed(np.zeros((10, 100)), None)  # one batch always
    assert not watch.feed(np.zeros((10, 100)), None)
    assert not watch.feed([b"x" * 900, b"y" * 200], None)


@pytest.mark.parametrize("samples", [[[1.5] * 100], [{"text": "x" * 900, "n": 1}], {"n": [1] * 100}])
def test_records_and_rows_have_a_size_too(reference, monkeypatch, samples):
    monkeypatch.setattr(room, "MOST_BYTES", 1000)
    watch = DriftWatch(reference, NUMBERS)
    assert watch.feed(samples, None)
    assert not watch.feed(samples, None)


def test_samples_that_come_one_by_one_are_the_windows_that_they_are_together(reference, batch):
    one, other = Windows(reference, 600, 0.01), Windows(reference, 600, 0.01)
    samples, prediction = batch(1500)
    inputs, outputs = features_of_inputs(samples, reference.form), features_of_outputs(prediction)
    whole = list(one.add(inputs, outputs))
    single, held = [], []
    for place in range(1500):
        parts = ({name: values[place : place + 1] for name, values in part.items()} for part in (inputs, outputs))
        single += other.add(*parts)
        held.append(len(other._batches))
    assert [verdict.to_json() for verdict in single] == [verdict.to_json() for verdict in whole]
    assert len(whole) == 2
    assert other.waiting == 300
    assert max(held) < 300  # few arrays, however many samples a window has


def test_a_broken_batch_is_counted_and_told_once_and_the_next_is_looked_at(reference, batch, caplog):
    caplog.set_level(logging.WARNING, "ai4sdk.drift")
    with DriftWatch(reference, NUMBERS) as watch:
        for _ in range(3):
            watch.feed([{"age": 1}], None)
        watch.feed(object(), None)
        fed(watch, [batch(100)])
        told = watch.snapshot()
    assert told["counters"]["errors"] == 4
    assert told["counters"]["windows"] == 1
    assert "object" in told["last_error"]
    assert len([text for text in caplog.messages if "not looked at" in text]) == 2


def test_large_batches_are_several_windows_and_small_ones_wait(reference, batch):
    with DriftWatch(reference, NUMBERS) as watch:
        fed(watch, [batch(250), batch(30, 1)])
        told = watch.snapshot()
        assert told["counters"]["windows"] == 2
        assert told["gauges"]["window_samples"] == 80
        fed(watch, [batch(20, 2)])
        assert watch.snapshot()["counters"]["windows"] == 3


def test_answers_or_samples_alone_are_watched(reference, batch):
    samples, prediction = batch(100)
    with DriftWatch(reference, NUMBERS) as watch:
        fed(watch, [(None, prediction)])
        assert {one["part"] for one in watch.snapshot()["last_window"]["findings"]} == {"output"}
        fed(watch, [(samples, None)])
        assert {one["part"] for one in watch.snapshot()["last_window"]["findings"]} == {"input"}


def test_many_threads_may_feed(reference, batch):
    with DriftWatch(reference, DriftWatching(window=100, queue=1000, load=1.0)) as watch:
        ready = batch(10)
        threads = [threading.Thread(target=lambda: [watch.feed(*ready) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert watch.drain()
        assert watch.snapshot()["counters"]["samples"] == 2000


def test_events_wait_while_their_file_cannot_be_written(reference, batch, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "ai4sdk.drift")
    events = tmp_path / "later" / "drift.jsonl"
    with DriftWatch(reference, NUMBERS, events=events) as watch:
        fed(watch, [batch(100, 0, 40), batch(10)])
        told = watch.snapshot()
        assert told["state"] == "warning"
        assert told["counters"]["errors"] == 2  # one an event, not one a batch
        assert "No such file" in told["last_error"]
        events.parent.mkdir()
        fed(watch, [batch(10)])
        assert [json.loads(line)["event"] for line in events.read_text().splitlines()] == ["began", "changed"]
        events.rename(tmp_path / "drift.jsonl.1")  # rotated
        fed(watch, [batch(80, 1, 40)])
        assert [json.loads(line)["state"] for line in events.read_text().splitlines()] == ["drift"]
    assert len([text for text in caplog.messages if "is kept" in text]) == 1


def test_a_full_disk_tears_no_line_and_loses_none(reference, batch, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with DriftWatch(reference, NUMBERS, events=Path("/dev/full")) as watch:
        fed(watch, [batch(100, 0, 40)])
        assert "No space left" in watch.snapshot()["last_error"]
        watch.events = tmp_path / "drift.jsonl"  # as if there were room again
        fed(watch, [batch(10)])
    assert [json.loads(line)["event"] for line in watch.events.read_text().splitlines()] == ["began", "changed"]


@pytest.mark.parametrize(
    ("streams", "told"),
    [
        (["agee"], ["'agee', which is no feature here; 'age' is", "no number for adwin"]),
        (["colour"], ["'colour', which is no number", "no number for adwin"]),
        (["age", "confidence"], []),
    ],
)
def test_streams_that_are_none_are_told(reference, streams, told, caplog):
    pytest.importorskip("river")
    caplog.set_level(logging.WARNING, "ai4sdk.drift")
    with DriftWatch(reference, DriftWatching(detectors=["adwin"], streams=streams)) as watch:
        assert len(watch.notes) == len(told)
        assert all(part in note for part, note in zip(told, watch.notes, strict=True))
        assert watch.snapshot()["notes"][1:] == watch.notes
    assert all(any(note in text for text in caplog.messages) for note in watch.notes)


def test_a_classifier_of_labels_alone_has_nothing_for_rivers_detectors():
    pytest.importorskip("river")
    known = make_reference(None, {}, {"class": ["a", "b"] * 20}, ())
    assert "no number for adwin, kswin" in DriftWatch(known, DriftWatching(detectors=["adwin", "kswin"])).notes[0]
    assert DriftWatch(known, DriftWatching()).notes == []


def test_river_sees_a_stream_of_confidences_fall(reference):
    pytest.importorskip("river")
    names = ["adwin", "kswin", "page_hinkley"]
    generator = np.random.default_rng(5)
    with DriftWatch(reference, DriftWatching(detectors=names, window=500, load=1.0)) as watch:
        fed(watch, [(None, confidences(generator.uniform(0.5, 1, 50))) for _ in range(20)])
        before = watch.snapshot()
        fed(watch, [(None, confidences(generator.uniform(0.5, 0.6, 50))) for _ in range(8)])
        after = watch.snapshot()
    assert before["state"] == "ok"
    assert set(before["streams"]) == {f"{name}/output:confidence" for name in names}
    assert {name: each["state"] for name, each in after["streams"].items()} == dict.fromkeys(after["streams"], "drift")
    assert after["counters"]["alarms"] >= 3


def test_rivers_alarms_are_over_after_a_window_without(reference):
    pytest.importorskip("river")
    generator = np.random.default_rng(5)
    with DriftWatch(reference, DriftWatching(detectors=["adwin"], window=200, load=1.0)) as watch:
        fed(watch, [(None, confidences(generator.uniform(0.5, 1, 400)))])
        fed(watch, [(None, confidences(generator.uniform(0.5, 0.6, 200)))])
        assert watch.state == "drift"
        fed(watch, [(None, confidences(generator.uniform(0.5, 0.6, 900)))])
        assert watch.state == "ok"


def test_streams_of_samples_are_watched_by_name(reference, batch):
    pytest.importorskip("river")
    settings = DriftWatching(detectors=["page_hinkley"], streams=["age", "colour"], load=1.0)
    with DriftWatch(reference, settings) as watch:
        fed(watch, [batch(50)])
        assert set(watch.snapshot()["streams"]) == {"page_hinkley/input:age"}  # colours are no numbers


def test_without_river_its_detectors_name_what_to_install(reference, monkeypatch):
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(EnvironmentFault, match="river") as caught:
        DriftWatch(reference, DriftWatching(detectors=["adwin"]))
    assert "ai4sdk[drift]" in str(caught.value)
    assert DriftWatch(reference, DriftWatching(detectors=["windows"]))


def confidences(values):
    chances = np.stack([values, 1 - values], axis=1)
    return Prediction("classification", chances, np.array(["a"] * len(values)), chances, ("a", "b"))


def test_ranks_are_even_where_nothing_drifted():
    generator = np.random.default_rng(0)
    for draw in (lambda n: generator.normal(size=n), lambda n: generator.integers(0, 5, n).astype(float)):
        found = ranks(sketch(draw(5000)), draw(5000))
        assert 0.48 < found.mean() < 0.52
        assert 0 <= found.min() < found.max() <= 1
    assert ranks(sketch(np.array([1.0, 2.0] * 10)), np.array([0.0, 1.0, 1.5, 2.0, 9.0, np.nan])).tolist() == [
        0,
        0.25,
        0.5,
        0.75,
        1,
    ]


def test_states_step_up_and_down():
    hits = Hits()
    assert [hits.see(hit) for hit in (0, 1, 0, 1, 1, 1, 0, 1, 0, 0, 0)] == [
        *("ok", "warning", "ok", "warning", "drift", "drift", "warning", "warning", "ok", "ok", "ok")
    ]
    latch = Latch(2)
    assert [latch.see(hit) for hit in (False, True, False, False, False)] == ["ok", "drift", "drift", "ok", "ok"]
    assert worst(["ok", "drift", "warning"]) == "drift"
    assert worst([]) == "ok"


def test_a_reference_of_answers_only_is_enough(batch):
    prediction = batch(100)[1]
    known = make_reference(None, {}, {"confidence": np.random.default_rng(0).uniform(0.5, 1, 500)}, ())
    with DriftWatch(known, NUMBERS) as watch:
        fed(watch, [(["whatever"] * 100, prediction)])
        assert watch.snapshot()["counters"]["windows"] == 1
        assert watch.snapshot()["counters"]["errors"] == 0
