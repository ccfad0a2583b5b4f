from __future__ import annotations

import random
from collections import Counter
from hashlib import sha256
from statistics import mean, variance
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ai4sdk.data.dirichlet import cut, dirichlet, power_law
from ai4sdk.data.partition import class_counts, partition
from ai4sdk.data.partition_chart import partition_chart
from ai4sdk.data.splits import divide
from ai4sdk.errors import DataError
from ai4sdk.spec import Splits
from ai4sdk.spec.partition import Partition

SVG = "{http://www.w3.org/2000/svg}"
seeds = st.integers(0, 2**32)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Partition, list[str], list[str]]:
    """Return any partition, with labels and a column to go with it."""
    count = draw(st.integers(1, 200))
    labels = draw(st.lists(st.sampled_from("aaaabbcde"), min_size=count, max_size=count))
    column = draw(st.lists(st.sampled_from(["x", "x", "y", "z", "w"]), min_size=count, max_size=count))
    method = draw(st.sampled_from(["iid", "dirichlet", "label", "quantity", "column"]))
    values: dict[str, Any] = {"method": method, "min_samples": draw(st.integers(1, 5)), "seed": draw(seeds)}
    if method == "column":
        values |= {"column": "hospital", "sites": draw(st.none() | st.integers(1, 4))}
    else:
        values["sites"] = draw(st.integers(1, 12))
    if method in ("dirichlet", "quantity"):
        values["alpha"] = draw(st.floats(1e-3, 100))
    if method == "quantity":
        values["sizes"] = draw(st.sampled_from(["dirichlet", "power"]))
    if method == "label":
        values["classes"] = draw(st.integers(1, 5))
    return Partition(**values), labels, column


@settings(deadline=None)
@given(asked())
def test_every_sample_is_at_one_site_and_no_site_has_too_few(case: tuple[Partition, list[str], list[str]]) -> None:
    how, labels, column = case
    try:
        found = partition(how, len(labels), labels, column)
    except DataError as error:
        assume(not error.hint)
        raise
    assert sorted(index for chosen in found.values() for index in chosen) == list(range(len(labels)))
    assert all(len(chosen) >= how.min_samples and chosen == sorted(chosen) for chosen in found.values())
    assert how.sites is None or len(found) == how.sites
    assert list(found) == sorted(found)
    assert partition(how, len(labels), np.array(labels), np.array(column)) == found


@given(st.integers(1, 300), st.integers(1, 20), seeds)
def test_iid_gives_equal_parts_of_any_count_that_suffices(count: int, sites: int, seed: int) -> None:
    if count < sites:
        with pytest.raises(DataError, match="too few"):
            partition(Partition(sites=sites, seed=seed), count)
        return
    sizes = [len(chosen) for chosen in partition(Partition(sites=sites, seed=seed), count).values()]
    assert max(sizes) - min(sizes) <= 1


def test_a_partition_never_changes_between_versions_and_machines() -> None:
    labels = list("abcabcabcabcabcabc")
    assert partition(Partition(sites=3, seed=7), 9) == {"site-1": [3, 4, 8], "site-2": [5, 6, 7], "site-3": [0, 1, 2]}
    assert partition(Partition(method="dirichlet", sites=3, seed=7), 18, labels) == {
        "site-1": [3, 8, 11, 17],
        "site-2": [1, 4, 7, 10, 13, 16],
        "site-3": [0, 2, 5, 6, 9, 12, 14, 15],
    }
    assert partition(Partition(method="label", sites=3, seed=7), 18, labels) == {
        "site-1": [3, 8, 9, 11, 12, 17],
        "site-2": [2, 4, 5, 7, 13, 14],
        "site-3": [0, 1, 6, 10, 15, 16],
    }
    assert partition(Partition(method="quantity", sites=3, seed=7), 18) == {
        "site-1": [3, 12, 13],
        "site-2": [17],
        "site-3": [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16],
    }


def test_sites_are_not_the_splits_of_the_same_seed() -> None:
    sites = partition(Partition(sites=4, seed=0), 4000)
    test = set(divide(Splits(train=0.5, val=0.25, test=0.25, seed=0), 4000)["test"])
    assert all(150 < len(test & set(chosen)) < 350 for chosen in sites.values())


def test_draws_are_the_same_to_the_last_digit_everywhere() -> None:
    draw = random.Random(3).random
    digits = str([dirichlet(0.3, 7, draw) for _ in range(200)])
    assert sha256(digits.encode()).hexdigest() == "1b71c60baab602d124f2509a3e8e015e8fb46c1e5681fd18a96dca3023a2f380"


@settings(deadline=None)
@given(seeds)
def test_another_seed_is_another_partition(seed: int) -> None:
    for values in ({}, {"method": "dirichlet", "alpha": 5.0}, {"method": "quantity", "alpha": 5.0}):
        first = partition(Partition(sites=3, seed=seed, **values), 60, ["a", "b"] * 30)
        assert partition(Partition(sites=3, seed=seed + 1, **values), 60, ["a", "b"] * 30) != first


@settings(deadline=None)
@given(st.lists(st.sampled_from("aaaabbcde"), min_size=60, max_size=200), st.integers(1, 5), st.integers(1, 9), seeds)
def test_label_deals_every_class_as_evenly_as_it_goes(labels: list[str], each: int, sites: int, seed: int) -> None:
    different = len(set(labels))
    how = Partition(method="label", classes=min(each, different), sites=sites, seed=seed)
    if how.classes * sites < different:
        with pytest.raises(DataError, match=f"hold at most {how.classes * sites} of the data's {different}"):
            partition(how, len(labels), labels)
        return
    try:
        found = partition(how, len(labels), labels)
    except DataError as error:
        assume("leaves site-" not in error.message)  # a site has only classes too rare for all that hold them
        raise
    held = [{labels[index] for index in chosen} for chosen in found.values()]
    assert all(len(classes) <= how.classes for classes in held)
    holders = Counter(name for classes in held for name in classes)
    for name, size in Counter(labels).items():
        slots = how.classes * sites
        assert min(size, slots // different) <= holders[name] <= -(-slots // different)
        parts = [sum(labels[index] == name for index in chosen) for chosen in found.values()]
        assert max(parts) - min(part for part in parts if part) <= 1


def test_a_small_alpha_makes_sites_unlike_and_a_large_one_alike() -> None:
    labels = list("abcdefghij") * 200

    def unlike(alpha: float) -> float:
        """Return the mean share of a site's most frequent class; 0.1 if all are alike."""
        shares = []
        for seed in range(10):
            how = Partition(method="dirichlet", sites=5, alpha=alpha, seed=seed)
            for row in class_counts(partition(how, len(labels), labels), labels).values():
                shares.append(max(row.values()) / sum(row.values()))
        return mean(shares)

    assert unlike(0.1) > 0.35 > unlike(1.0) > 0.13 > unlike(100.0)


def test_quantity_changes_sizes_but_not_the_mix_of_classes() -> None:
    labels = ["a", "a", "b"] * 2000
    found = partition(Partition(method="quantity", sites=5, alpha=1.0, min_samples=300, seed=1), len(labels), labels)
    sizes = [len(chosen) for chosen in found.values()]
    assert max(sizes) > 2 * min(sizes)
    for row in class_counts(found, labels).values():
        assert row["a"] / (row["a"] + row["b"]) == pytest.approx(2 / 3, abs=0.08)


def test_power_sizes_fall_with_the_number_of_the_site() -> None:
    found = partition(Partition(method="quantity", sizes="power", alpha=1.0, sites=4), 2500)
    assert [len(chosen) for chosen in found.values()] == [1200, 600, 400, 300]


def test_each_value_of_a_column_is_a_site() -> None:
    column = ["b", "a", "b", "c", "a"]
    found = partition(Partition(method="column", column="hospital"), 5, column=column)
    assert found == {"a": [1, 4], "b": [0, 2], "c": [3]}
    numbers = partition(Partition(method="column", column="hospital"), 5, column=[10.0, 2.0, 10.0, 1.0, 2.0])
    assert numbers == {"1": [3], "2": [1, 4], "10": [0, 2]}


def test_values_are_grouped_as_named_or_into_sites_of_about_one_size() -> None:
    column = ["b", "a", "b", "c", "a", "d"]
    grouped = Partition(method="column", column="hospital", groups={"north": ["b", "c"], "south": ["d", "a"]})
    assert partition(grouped, 6, column=column) == {"north": [0, 2, 3], "south": [1, 4, 5]}
    numbered = Partition(method="column", column="hospital", groups={"north": [1, 3], "south": ["2"]})
    assert partition(numbered, 3, column=[1, 2, 3]) == {"north": [0, 2], "south": [1]}
    found = partition(Partition(method="column", column="hospital", sites=2), 6, column=column)
    assert [len(chosen) for chosen in found.values()] == [3, 3]
    assert not {column[index] for index in found["site-1"]} & {column[index] for index in found["site-2"]}


@pytest.mark.parametrize(
    ("values", "said", "hint"),
    [
        ({"sites": 9}, "8 samples are too few for 9 sites", "ask for fewer partition.sites"),
        ({"sites": 2, "min_samples": 5}, "at least 5", "partition.min_samples"),
        ({"method": "dirichlet", "alpha": 1e-3, "sites": 8}, "in 100 draws", "raise partition.alpha"),
        ({"method": "quantity", "sizes": "power", "alpha": 3.0, "sites": 4}, "site-3 with 0", "lower partition.alpha"),
        ({"method": "label", "classes": 3, "sites": 4}, "has 2 classes", "classes=2"),
        ({"method": "column", "column": "h", "groups": {"n": ["x", "q"], "s": ["y"]}}, "not hold 'q'", "x, y, z"),
        ({"method": "column", "column": "h", "groups": {"n": ["x"]}}, "in no group: y, z", "partition.groups"),
        ({"method": "column", "column": "h", "sites": 4}, "too few for 4 sites", "partition.sites=3"),
        ({"method": "column", "column": "h", "min_samples": 2}, r"z \(1\)", "partition.groups"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_a_way_out(values: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        partition(Partition(**values), 8, ["a"] * 4 + ["b"] * 4, ["x"] * 4 + ["y"] * 3 + ["z"])
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_a_sample_without_a_value_is_named(missing: object) -> None:
    with pytest.raises(DataError, match="column 'h' is empty in sample 2 and 1 more"):
        partition(Partition(method="column", column="h"), 4, column=["x", missing, missing, "y"])
    with pytest.raises(DataError, match="the label is empty in sample 2"):
        partition(Partition(method="dirichlet", sites=1), 3, ["x", missing, "y"])


def test_numbers_to_predict_are_no_classes() -> None:
    with pytest.raises(DataError, match="look like numbers"):
        partition(Partition(method="dirichlet", sites=2), 50, [index / 7 for index in range(50)])


def test_draws_are_distributed_as_dirichlet() -> None:
    for alpha, parts in ((0.3, 4), (1.0, 5), (7.0, 3)):
        draw = random.Random(5).random
        drawn = [[float(share) for share in dirichlet(alpha, parts, draw)] for _ in range(1500)]
        expected = 1 / parts
        spread = expected * (1 - expected) / (alpha * parts + 1)
        for shares in zip(*drawn, strict=True):
            assert mean(shares) == pytest.approx(expected, abs=5 * (spread / 1500) ** 0.5)
            assert variance(shares) == pytest.approx(spread, rel=0.25)


@given(st.floats(1e-9, 1e6), st.integers(1, 30), seeds)
@settings(deadline=None)
def test_shares_add_up_for_any_alpha(alpha: float, parts: int, seed: int) -> None:
    shares = dirichlet(alpha, parts, random.Random(seed).random)
    assert len(shares) == parts
    assert all(0 <= share <= 1 for share in shares)
    assert float(sum(shares)) == pytest.approx(1)
    for count in (0, 1, 17, 10**6):
        sizes = cut(count, shares)
        assert sum(sizes) == count
        assert all(abs(size - count * share) < 1.001 for size, share in zip(sizes, shares, strict=True))
    assert cut(parts, power_law(0, parts)) == [1] * parts


names = st.text(max_size=30)


@given(st.dictionaries(names, st.dictionaries(names, st.integers(0, 10**9), max_size=30), max_size=70))
@settings(deadline=None)
def test_any_partition_can_be_drawn(counts: dict[str, dict[str, int]]) -> None:
    text = partition_chart(counts)
    assert bool(text) == bool(counts)
    if not counts:
        return
    drawing = ElementTree.fromstring(text)
    bars = list(drawing.iter(f"{SVG}rect"))
    assert len(bars) == len(counts)


def test_the_picture_tells_the_samples_of_each_class_and_site() -> None:
    drawing = ElementTree.fromstring(partition_chart({"north": {"a": 16, "b": 0}, "south <1>": {"a": 4, "b": 1}}))
    told = [circle.findtext(f"{SVG}title") for circle in drawing.iter(f"{SVG}circle")]
    assert told == ["north, a: 16 samples", "south <1>, a: 4 samples", "south <1>, b: 1 samples"]
    sixteen, four, one = (float(circle.get("r", "")) for circle in drawing.iter(f"{SVG}circle"))
    assert (sixteen / four, four / one) == pytest.approx((2, 2), rel=0.05)


def test_of_many_classes_the_rarest_share_a_row() -> None:
    counts = {"one": {f"c{number}": 100 - number for number in range(60)}}
    text = partition_chart(counts)
    assert "one, 41 others: " in text
    assert text.count("<circle") == 20


def test_without_classes_there_are_bars_only() -> None:
    text = partition_chart({"one": {"": 10}, "two": {"": 20}})
    assert "<circle" not in text
    assert text.count("<rect") == 2
