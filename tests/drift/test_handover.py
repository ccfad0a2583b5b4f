"""Several processes, one watch: what is handed over arrives as it was, whatever finds no room is counted."""

import socket
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.drift import handover as room
from ai4sdk.drift.features import joined
from ai4sdk.drift.handover import Handover, pack, receive, unpack
from ai4sdk.drift.watch import DriftWatch
from ai4sdk.spec.drift import DriftWatching

SETTINGS = DriftWatching(window=100, load=1.0)


@pytest.fixture
def pair():
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiving, sending:
        yield receiving, sending


@given(
    st.integers(1, 40),
    st.lists(st.text(max_size=4), max_size=3, unique=True),
    st.lists(st.one_of(st.none(), st.text(max_size=30)), min_size=40, max_size=40),
    st.sampled_from([64, 500, 2**16]),
)
def test_what_is_packed_is_unpacked(count, names, texts, most):
    generator = np.random.default_rng(count)
    inputs = {name: generator.normal(size=count) for name in names} | {"a text": texts[:count]}
    outputs = {"odd": generator.normal(size=(count, 2))[:, 0], "none": np.full(count, np.nan), "x": np.arange(count)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "MOST_BYTES", most)
        parts = [unpack(datagram) for datagram, _ in pack(inputs, outputs, count, {"errors": 2})]
    assert sum(number for _, _, number, _ in parts) == count
    assert [lost for *_, lost in parts] == [{"errors": 2}, *({} for _ in parts[1:])]  # told once
    found = joined([part[0] for part in parts]), joined([part[1] for part in parts])
    assert found[0]["a text"] == inputs["a text"]
    for whole, part in zip((inputs, outputs), found, strict=True):
        assert set(part) == set(whole)
        for name in set(whole) - {"a text"}:
            np.testing.assert_array_equal(part[name], whole[name])


def wait_for(watch, samples):
    until = time.monotonic() + 60
    while watch.snapshot()["counters"]["samples"] < samples:
        assert time.monotonic() < until, watch.snapshot()
        time.sleep(0.01)
    return watch.snapshot()


def test_one_watch_sees_what_several_processes_answer(reference, batch, pair):
    receiving, sending = pair
    with DriftWatch(reference, SETTINGS) as watch, Handover(reference, SETTINGS, sending) as other:
        receive(receiving, watch)
        for seed in range(4):
            assert other.feed(*batch(30, seed))
            assert watch.feed(*batch(20, 10 + seed))
        told = wait_for(watch, 200)
        assert told["counters"]["windows"] == 2  # which neither of the two would have filled alone
        assert told["state"] == "ok"
        other.feed([{"age": 1}], None)  # an error there is one of the watch
        other.feed(*batch(10))
        assert wait_for(watch, 210)["counters"]["errors"] == 1


def test_what_finds_no_room_is_dropped_counted_and_told_later(reference, batch, pair, monkeypatch):
    monkeypatch.setattr(room, "_PATIENCE", 0.0)
    receiving, sending = pair
    with Handover(reference, SETTINGS, sending) as other:
        large = batch(1000)
        for _ in range(600):  # nobody reads
            other.feed(*large)
            assert other.drain()
            if other._counters["dropped_batches"]:
                break
        while True:
            try:
                receiving.recv(2**20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
        with DriftWatch(reference, SETTINGS) as watch:
            receive(receiving, watch)
            other.feed(*batch(10))
            told = wait_for(watch, 10)["counters"]
    assert told["dropped_batches"] > 0
    assert told["dropped_samples"] > 0


def test_bytes_of_another_kind_are_told_and_the_next_are_looked_at(reference, batch, pair, caplog):
    receiving, sending = pair
    with DriftWatch(reference, SETTINGS) as watch, Handover(reference, SETTINGS, sending) as other:
        receive(receiving, watch)
        for strange in (b"", b"x", b"{}\n", b'{"count": 3, "numbers": [["input", "a"]], "texts": [], "lost": {}}\nxx'):
            sending.send(strange)
        other.feed(*batch(10))
        wait_for(watch, 10)
    assert "was not looked at" in caplog.text


def test_who_hands_over_ends_although_nobody_reads(reference, batch, pair):
    other = Handover(reference, SETTINGS, pair[1]).start()
    for _ in range(50):
        other.feed(*batch(200))
    other.close()
    assert not other._thread.is_alive()
