from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.federated.participation import changes, jain_index, participation

amounts = st.lists(st.floats(0, 1e300), min_size=1, max_size=50)


def test_rounds_are_counted_for_every_site() -> None:
    found = participation([["a", "b"], ["a"], [], ["a", "a"]], ["a", "b", "c"])
    assert found.counts == {"a": 3, "b": 1, "c": 0}
    assert found.shares == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert found.fairness == pytest.approx((3 + 1) ** 2 / (3 * (9 + 1)))


@given(amounts)
def test_fairness_lies_between_one_for_all_and_all_for_one(values: list[float]) -> None:
    assert 1 / len(values) - 1e-9 <= jain_index(values) <= 1 + 1e-9


@given(st.floats(1e-300, 1e300), st.integers(1, 60))
def test_all_alike_is_fair_and_one_alone_is_not(amount: float, count: int) -> None:
    assert jain_index([amount] * count) == pytest.approx(1)
    assert jain_index([amount] + [0] * (count - 1)) == pytest.approx(1 / count)


def test_where_nobody_took_part_nobody_was_preferred() -> None:
    assert participation([], ["a", "b"]).fairness == 1
    assert jain_index([]) == 1


def test_what_a_metric_does_in_rounds_with_and_without_a_site() -> None:
    rounds = [
        (["a", "b"], 4.0),
        (["a", "b"], 3.0),
        (["a"], 2.5),
        (["a", "b"], 1.5),
        (["a"], float("nan")),
        (["b"], None),
    ]
    assert changes(rounds, ["a", "b", "c"]) == {"b": (-1.0, -0.5)}
    assert changes([], ["a"]) == {}
