"""A summary counts every sample once, is small, and lets nobody read a record from it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.drift.sketch import BINS, BUCKETS, MOST_TEXTS, MOST_VALUES, Sketch, sketch
from ai4sdk.errors import DataError

NUMBERS = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300)
FEW_NUMBERS = st.lists(st.sampled_from([0.0, 1.0, -2.5, 1e300, 5e-324, float("nan")]), max_size=200)
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=300)


def as_values(drawn):
    return np.array(drawn, np.float64)


@given(st.one_of(NUMBERS, FEW_NUMBERS))
def test_every_number_is_in_one_cell_or_missing(drawn):
    values = as_values(drawn)
    made = sketch(values)
    assert made.samples + made.missing == len(values)
    assert made.missing == np.sum(~np.isfinite(values))
    before, after, names = made.cells(values)
    assert before.tolist() == after.tolist()
    assert len(names) == len(before)


@given(TEXTS)
def test_every_text_is_in_one_cell_or_missing(drawn):
    made = sketch(drawn)
    assert made.samples + made.missing == len(drawn)
    before, after, _ = made.cells(drawn)
    assert before.tolist() == after.tolist()


@given(st.one_of(NUMBERS.map(as_values), FEW_NUMBERS.map(as_values), TEXTS))
def test_json_gives_it_back(values):
    made = sketch(values)
    read = Sketch.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False)))
    assert read.to_json() == made.to_json()
    assert read.cells(values)[0].tolist() == made.cells(values)[0].tolist()


@given(st.one_of(NUMBERS, FEW_NUMBERS), st.randoms())
def test_the_order_of_samples_does_not_matter(drawn, random):
    shuffled = list(drawn)
    random.shuffle(shuffled)
    assert sketch(as_values(drawn)).to_json() == sketch(as_values(shuffled)).to_json()


def test_a_summary_is_small_however_many_samples_there_are():
    made = sketch(np.random.default_rng(0).normal(size=100_000))
    assert made.kind == "bins"
    assert len(made.counts) == BINS
    assert len(json.dumps(made.to_json())) < 3_000


def test_no_edge_is_anybodys_value_and_a_bin_holds_several():
    numbers = np.random.default_rng(0).normal(size=100)
    made = sketch(numbers)
    assert not set(made.edges) & set(numbers)
    assert made.counts.min() >= 4
    assert made.edges[0] > np.sort(numbers)[3]
    assert made.edges[-1] < np.sort(numbers)[-4]


def test_few_values_are_counted_one_by_one_and_a_constant_is_one_cell():
    made = sketch(np.array([1.0, 0.0, 1.0] * 10))
    assert (made.kind, made.values.tolist(), made.counts.tolist()) == ("values", [0.0, 1.0], [10, 20])
    assert sketch(np.full(3, 7.5)).values.tolist() == [7.5]
    assert sketch(np.array([])).counts.tolist() == []
    assert sketch(np.arange(MOST_VALUES, dtype=float)).kind == "bins"  # each only once: these are no few values


def test_values_that_differ_by_the_rounding_of_a_float32_are_the_same():
    numbers = np.round(np.random.default_rng(0).uniform(size=500), 1)
    made = sketch(numbers)
    before, after, _ = made.cells(numbers.astype(np.float32).astype(np.float64))
    assert made.kind == "values"
    assert before.tolist() == after.tolist()
    many = np.round(np.random.default_rng(0).uniform(size=500), 2)
    before, after, _ = sketch(many).cells(many.astype(np.float32).astype(np.float64))
    assert before.tolist() == after.tolist()


def test_what_the_reference_has_not_is_a_cell_of_its_own():
    before, after, names = sketch(np.array([0.0, 1.0] * 10)).cells(np.array([1.0, 2.0, 2.0, np.nan]))
    assert (before.tolist(), after.tolist(), names) == ([10, 10, 0], [0, 1, 2], ["0", "1", "2"])
    before, after, names = sketch(["red", "blue", None]).cells(["green", "red", None])
    assert (before.tolist(), after.tolist(), names) == ([1, 1, 0], [0, 1, 1], ["blue", "red", "green"])


def test_many_texts_leave_no_text_behind():
    texts = [f"patient {number}" for number in range(MOST_TEXTS + 1)]
    made = sketch(texts)
    assert made.kind == "buckets"
    assert len(made.counts) == BUCKETS
    assert "patient" not in json.dumps(made.to_json())


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"kind": "bins"},
        {"kind": "other", "counts": []},
        {"kind": "bins", "counts": [1, 2], "edges": [0.0, 1.0]},
        {"kind": "bins", "counts": [1, 2, 3], "edges": [1.0, 0.0]},
        {"kind": "bins", "counts": [1, -2], "edges": [1.0]},
        {"kind": "values", "counts": [1], "values": ["x"]},
        {"kind": "values", "counts": [1], "values": [float("nan")]},
        {"kind": "texts", "counts": [1], "texts": 3},
        {"kind": "buckets", "counts": [1]},
        {"kind": "bins", "counts": "many", "edges": []},
    ],
)
def test_a_damaged_summary_is_told(broken):
    with pytest.raises(DataError, match="damaged"):
        Sketch.from_json(broken)
