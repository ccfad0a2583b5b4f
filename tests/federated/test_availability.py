from __future__ import annotations

from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.federated.availability import _chance, available, expected_shares, realised_shares
from ai4sdk.spec.availability import (
    AlwaysAvailable,
    Availability,
    DiurnalAvailability,
    DropoutAvailability,
    MarkovAvailability,
    TraceAvailability,
)

SITES = [f"site-{number}" for number in range(40)]
chances = st.floats(0, 1)
models: st.SearchStrategy[Availability] = st.one_of(
    st.just(AlwaysAvailable()),
    st.builds(DropoutAvailability, kind=st.just("dropout"), probability=chances),
    st.builds(
        MarkovAvailability,
        kind=st.just("markov"),
        up_to_down=st.floats(0.01, 1),
        down_to_up=chances,
        start=st.sampled_from(["up", "down", "stationary"]),
    ),
    st.builds(DiurnalAvailability, kind=st.just("diurnal"), period=st.floats(0.5, 50), share=chances),
)


@given(models, st.integers(1, 300), st.integers(0, 2**40), st.data())
def test_each_site_and_round_is_decided_alone(how: Availability, round: int, seed: int, data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.sampled_from(SITES), unique=True))
    up = available(how, SITES, round, seed)
    assert available(how, SITES, round, seed) == up
    assert available(how, asked, round, seed) == [site for site in asked if site in up]


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["up", "down"]),
    st.integers(0, 1000),
)
def test_markov_is_what_following_each_round_gives(up_to_down: float, down_to_up: float, start: str, seed: int) -> None:
    """Looking back finds the same as going through all rounds with the same random numbers."""
    how = MarkovAvailability(kind="markov", up_to_down=up_to_down, down_to_up=down_to_up, start=start)
    up = start == "up"
    for round in range(1, 60):
        if round > 1:
            up = _chance(seed, "a", round) < (1 - up_to_down if up else down_to_up)
        assert (available(how, ["a"], round, seed) == ["a"]) == up


def test_nothing_changes_between_versions() -> None:
    sites = ["a", "b", "c", "d"]
    markov = MarkovAvailability(kind="markov", up_to_down=0.3, down_to_up=0.3)
    diurnal = DiurnalAvailability(kind="diurnal", period=10)
    assert [available(DropoutAvailability(kind="dropout", probability=0.5), sites, n, 7) for n in (1, 2)] == [
        ["b", "c"],
        ["b", "d"],
    ]
    assert [available(markov, sites, number, 7) for number in (1, 50)] == [["a", "d"], ["a", "c", "d"]]
    assert [available(diurnal, sites, number, 7) for number in (1, 5)] == [["c"], ["a", "b", "d"]]


def test_outages_last_as_long_as_is_asked() -> None:
    how = MarkovAvailability(kind="markov", up_to_down=0.05, down_to_up=0.25)
    lengths, ups = [], []
    for site in SITES:
        length = 0
        for round in range(1, 300):
            if available(how, [site], round, 3):
                ups.append(1)
                if length:
                    lengths.append(length)
                length = 0
            else:
                ups.append(0)
                length += 1
    assert mean(lengths) == pytest.approx(4, rel=0.15)
    assert mean(ups) == pytest.approx(0.25 / 0.3, abs=0.03)


@settings(deadline=None, max_examples=30)
@given(models, st.integers(1, 40))
def test_sites_are_up_as_often_as_expected(how: Availability, rounds: int) -> None:
    sites = [f"site-{number}" for number in range(300)]
    expected = expected_shares(how, sites, rounds)
    realised = realised_shares(how, sites, rounds, 11)
    assert mean(realised.values()) == pytest.approx(mean(expected.values()), abs=0.15)


@given(st.sampled_from(["up", "down"]))
def test_sites_begin_as_is_asked(start: str) -> None:
    how = MarkovAvailability(kind="markov", up_to_down=0.4, down_to_up=0.4, start=start)
    assert available(how, SITES, 1, 5) == (SITES if start == "up" else [])
    assert expected_shares(how, ["a"], 1) == {"a": float(start == "up")}
    two = expected_shares(how, ["a"], 2)["a"]
    assert two == pytest.approx((1 + 0.6) / 2 if start == "up" else 0.4 / 2)


def test_a_day_is_counted_exactly_however_many_have_passed() -> None:
    how = DiurnalAvailability(kind="diurnal", period=10, share=0.3, phases={"a": 0.0, "b": 0.5})
    for round in range(1, 2000):
        up = available(how, ["a", "b"], round, 0)
        assert ("a" in up) == ((round - 1) % 10 < 3)
        assert ("b" in up) == ((round + 4) % 10 < 3)


def test_sites_without_a_phase_have_hours_of_their_own() -> None:
    how = DiurnalAvailability(kind="diurnal", period=24, share=0.5)
    numbers = [len(available(how, SITES, round, 1)) for round in range(1, 25)]
    assert all(8 < number < 32 for number in numbers)


def test_a_day_can_be_a_time() -> None:
    how = DiurnalAvailability(kind="diurnal", period="24h", round_time="6h", share=0.25, phases={"a": 0.0})
    assert [bool(available(how, ["a"], round, 0)) for round in range(1, 9)] == [True, False, False, False] * 2


def test_a_trace_is_followed() -> None:
    how = TraceAvailability(kind="trace", up={"a": [1, [3, 4]], "b": []})
    assert [available(how, ["b", "a"], round, 0) for round in range(1, 6)] == [["a"], [], ["a"], ["a"], []]
    assert expected_shares(how, ["a", "b"], 4) == {"a": 0.75, "b": 0.0}
    timed = TraceAvailability(kind="trace", up={"a": [[0, 60], [119.5, 180]]}, round_time="1m")
    assert [bool(available(timed, ["a"], round, 0)) for round in range(1, 5)] == [True, False, True, False]
