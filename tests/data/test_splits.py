from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.data.splits import divide
from ai4sdk.errors import DataError
from ai4sdk.spec import Splits

counts = st.integers(3, 300)
seeds = st.integers(0, 10**6)


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float | None]:
    train, val, test = (draw(st.integers(1, 10)) for _ in range(3))
    total = train + val + test
    return {"train": train / total, "val": val / total, "test": test / total}


def whole_and_disjoint(found: dict[str, list[int]], count: int) -> bool:
    return sorted(index for part in found.values() for index in part) == list(range(count))


@given(counts, seeds, shares())
def test_fraction_divides_everything_once_in_the_right_shares(count: int, seed: int, parts: dict[str, float]) -> None:
    found = divide(Splits(method="fraction", seed=seed, **parts), count)
    assert whole_and_disjoint(found, count)
    assert all(found.values())
    for name, share in parts.items():
        assert abs(len(found[name]) - count * share) < 2  # rounding, and no split is left empty


@given(counts, seeds)
def test_the_same_seed_gives_the_same_split_and_another_another(count: int, seed: int) -> None:
    first = divide(Splits(seed=seed), count)
    assert divide(Splits(seed=seed), count) == first
    if count > 30:
        assert divide(Splits(seed=seed + 1), count) != first


def test_a_split_never_changes_between_versions() -> None:
    found = divide(Splits(train=0.6, val=0.2, test=0.2, seed=7), 10)
    assert found == {"train": [0, 1, 3, 5, 6, 8], "val": [7, 9], "test": [2, 4]}


@given(st.lists(st.sampled_from("aaaabbc"), min_size=30, max_size=200), seeds, shares())
def test_stratified_keeps_class_shares_within_one_sample(values: list[str], seed: int, parts: dict[str, float]) -> None:
    refused = ""
    try:
        found = divide(Splits(method="stratified", seed=seed, **parts), len(values), values)
    except DataError as error:
        refused = error.message
    if refused:
        assert "leaves no sample" in refused or "no class has enough" in refused
        return
    assert whole_and_disjoint(found, len(values))
    for letter, count in Counter(values).items():
        for name, share in parts.items():
            there = sum(values[index] == letter for index in found[name])
            # The one sample of a class that training would miss is taken from another split.
            assert abs(there - count * share) < 1 or (name == "train" and there == 1) or count < 3


@given(st.lists(st.integers(0, 9), min_size=40, max_size=200), seeds)
def test_stratified_shares_hold_over_all_samples_too(values: list[int], seed: int) -> None:
    found = divide(Splits(method="stratified", seed=seed), len(values), values)
    for name, share in {"train": 0.7, "val": 0.15, "test": 0.15}.items():
        assert abs(len(found[name]) - len(values) * share) <= len(set(values)) / 2 + 1


def test_a_class_of_one_sample_goes_to_training() -> None:
    values = ["a"] * 20 + ["only"] + ["b"] * 20
    for seed in range(30):
        found = divide(Splits(method="stratified", seed=seed), len(values), values)
        assert 20 in found["train"]
        assert whole_and_disjoint(found, len(values))


@pytest.mark.parametrize("values", [list(range(30)), ["a", "b"] * 1 + ["c"] * 1])
def test_stratified_refuses_labels_that_are_no_classes(values: list[Any]) -> None:
    with pytest.raises(DataError, match="no class has enough samples"):
        divide(Splits(method="stratified"), len(values), values)


@given(st.lists(st.integers(0, 25), min_size=40, max_size=200), seeds, shares())
def test_groups_are_never_divided(values: list[int], seed: int, parts: dict[str, float]) -> None:
    splits = Splits(method="group", column="site", seed=seed, **parts)
    if len(set(values)) < 3:
        with pytest.raises(DataError, match="too few"):
            divide(splits, len(values), values)
        return
    found = divide(splits, len(values), values)
    assert whole_and_disjoint(found, len(values))
    assert all(found.values())
    homes = [{values[index] for index in part} for part in found.values()]
    assert sum(map(len, homes)) == len(set(values))
    largest = max(Counter(values).values())
    for name, share in parts.items():
        assert len(found[name]) < len(values) * share + largest + 1


@given(st.lists(st.floats(-1e9, 1e9), min_size=5, max_size=200), shares())
def test_time_trains_on_the_past_and_tests_on_the_future(values: list[float], parts: dict[str, float]) -> None:
    found = divide(Splits(method="time", column="when", **parts), len(values), values)
    assert whole_and_disjoint(found, len(values))
    times = {name: [values[index] for index in part] for name, part in found.items()}
    assert max(times["train"]) <= min(times["val"])
    assert max(times["val"]) <= min(times["test"])
    assert times["train"] == sorted(times["train"])


def test_given_takes_the_names() -> None:
    splits = Splits(method="given", column="part", train="fit", test="hold")
    values = ["fit", "hold", "fit", "unused"]
    assert divide(splits, 4, values) == {"train": [0, 2], "test": [1]}


def test_given_names_what_there_is() -> None:
    with pytest.raises(DataError, match="'Train'") as caught:
        divide(Splits(method="given", column="part", train="Train"), 2, ["train", "test"])
    assert "train" in (caught.value.hint or "")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_samples_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} samples cannot be divided"):
        divide(Splits(), count)


def test_a_split_not_asked_for_does_not_exist() -> None:
    assert divide(Splits(train=1.0, val=None, test=None), 3) == {"train": [0, 1, 2]}
    assert set(divide(Splits(train=0.5, val=0.5, test=0.0), 4)) == {"train", "val"}


def test_given_needs_no_null_for_splits_that_are_not_there() -> None:
    splits = Splits.model_validate({"method": "given", "train": "a", "column": "c"})
    assert (splits.val, splits.test) == (None, None)
