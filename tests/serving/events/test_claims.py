"""Claims say whose a version is, whatever becomes of the file."""

from __future__ import annotations

import json

import pytest

from ai4sdk.serving.events.claims import Claim, Claims, Finished, Held
from ai4sdk.serving.events.names import claim_name
from ai4sdk.serving.events.stores.base import Item
from tests.serving.events.memory import MemoryStore

ITEM = Item("a", "1")


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store():
    return MemoryStore({})


@pytest.fixture
def time():
    return Time()


def test_what_was_given_back_too_often_is_left_alone_and_keeps_nobody_waiting(store, time, monkeypatch):
    monkeypatch.setattr("ai4sdk.serving.events.claims._MOST", 3)
    claims = Claims(store, "one", 10, time)
    for _ in range(4):
        claims.take(ITEM).write(state="released")
    assert claims.take(ITEM) == Held()


def test_who_comes_first_has_it(store, time):
    one, two = (Claims(store, name, 10, time) for name in ("one", "two"))
    assert isinstance(one.take(ITEM), Claim)
    assert two.take(ITEM) == Held()
    assert isinstance(two.take(Item("a", "2")), Claim)


@pytest.mark.parametrize("state", ["done", "dead"])
def test_what_is_finished_is_finished_for_all(store, time, state):
    one, two = (Claims(store, name, 10, time) for name in ("one", "two"))
    one.take(ITEM).write(state=state)
    assert one.take(ITEM) == two.take(ITEM) == Finished(state)


def test_what_an_earlier_holder_finished_late_is_finished_too(store, time):
    one, two = (Claims(store, name, 10, time) for name in ("one", "two"))
    first = one.take(ITEM)
    two.take(ITEM)
    time.now = 10
    second = two.take(ITEM)
    assert second.number == 2
    assert first.is_lost()
    assert not second.is_lost()
    first.write(state="done")
    assert Claims(store, "three", 10, time).take(ITEM) == Finished("done")


def test_a_beat_starts_the_lease_anew(store, time):
    one, two = (Claims(store, name, 10, time) for name in ("one", "two"))
    claim = one.take(ITEM)
    for time.now in (0, 9, 18, 27):
        assert two.take(ITEM) == Held()
        claim.write()
    assert two.take(ITEM) == Held()
    time.now = 37
    assert isinstance(two.take(ITEM), Claim)


def test_what_was_given_back_is_free_at_once_and_keeps_its_count(store, time):
    one, two = (Claims(store, name, 10, time) for name in ("one", "two"))
    one.take(ITEM).write(state="released", attempts=2)
    taken = two.take(ITEM)
    assert (taken.note.attempts, taken.note.deaths) == (2, 0)


def test_a_death_is_counted(store, time):
    for life in range(4):
        assert Claims(store, "one", 10, time).take(ITEM).note.deaths == life


def test_what_is_staged_stays_so_in_other_hands(store, time):
    Claims(store, "one", 10, time).take(ITEM).write(state="staged", kind="error", staged=1)
    for _ in range(2):
        taken = Claims(store, "one", 10, time).take(ITEM)
        assert (taken.note.state, taken.note.kind, taken.note.staged) == ("staged", "error", 1)
        assert taken.note.deaths == 0


def test_an_answer_of_the_store_that_was_lost_is_no_death(store, time):
    """The claim was created, and the server that created it does not know."""
    claims = Claims(store, "one", 10, time)
    for _ in range(5):
        taken = claims.take(ITEM)
    assert (taken.number, taken.note.deaths) == (5, 0)
    assert Claims(store, "one", 10, time).take(ITEM).note.deaths == 1


@pytest.mark.parametrize("late", [{"state": "staged", "kind": "result", "staged": 1}, {"state": "done"}])
def test_who_takes_over_sees_what_was_said_until_then(store, time, late):
    one, two = (Claims(store, name, 10, time) for name in ("one", "two"))
    claim, create = one.take(ITEM), store.create
    assert two.take(ITEM) == Held()
    time.now = 10

    def create_late(name, data):
        if name == claim_name("a", "1", 2):
            claim.write(**late)
        return create(name, data)

    store.create = create_late
    taken = two.take(ITEM)
    if late["state"] == "done":
        assert taken == Finished("done")
    else:
        assert (taken.number, taken.note.state, taken.note.kind, taken.note.staged) == (2, "staged", "result", 1)


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0", b"[]", b"{}", b'{"server": "x"}', b'{"server": 1, "attempts": "9"}', json.dumps({"server": "one", "key": "a", "version": "1", "state": "odd"}).encode()]
)  # fmt: skip
def test_a_damaged_claim_is_somebodys_until_its_lease_is_over(store, time, data):
    store.objects[claim_name("a", "1", 1)] = data
    two = Claims(store, "two", 10, time)
    assert two.take(ITEM) == Held()
    time.now = 10
    assert isinstance(two.take(ITEM), Claim)
