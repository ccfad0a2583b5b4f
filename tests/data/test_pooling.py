"""What is measured at several places and put together is what would be measured in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sounds import folders_of_tones

from ai4sdk.data.module import Data, load_data
from ai4sdk.data.notation import Notation
from ai4sdk.data.pooling import pooled
from ai4sdk.data.preprocessing import Preprocessing
from ai4sdk.errors import DataError
from ai4sdk.spec import FileDataset, Storage

WHOLE = {"splits": {"train": 1.0, "val": None, "test": None}, "label": "y"}
"""All samples train, so that parts hold what the whole does."""


def load(dataset: FileDataset, root: Path, preprocessing: Preprocessing | None = None) -> Data:
    return load_data(
        dataset,
        storage=Storage(),
        project=root,
        task="auto",
        seed=0,
        instantiate=lambda config: None,
        preprocessing=preprocessing,
    )


def measured(dataset: FileDataset, root: Path) -> tuple[Preprocessing, Any]:
    data = load(dataset, root)
    assert data.preprocessing is not None
    return data.preprocessing, data.datamodule.parts["train"].inputs.numpy()  # type: ignore[attr-defined]


Rows = list[tuple[float, int, str]]
NUMBERS = st.floats(-1e4, 1e4, width=32)
ROWS = st.lists(st.tuples(NUMBERS, st.integers(0, 3), st.just("")), min_size=3, max_size=12)


def text(rows: Rows) -> str:
    """Write a table in which each class and each colour occurs."""
    lines = [f"{x!r},{n},{'red' if i % 2 else 'blue'},{'yes' if i % 3 else 'no'}" for i, (x, n, _) in enumerate(rows)]
    return "\n".join(["x,n,colour,y", *lines]) + "\n"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=2, max_size=4))
def test_parts_together_are_prepared_as_the_whole(
    tmp_path: Path, table: Callable[..., FileDataset], parts: list[Rows]
) -> None:
    texts = [text(rows) for rows in parts]
    whole = "".join([texts[0], *(part.partition("\n")[2] for part in texts[1:])])
    each = {
        f"site-{i}": measured(table(part, f"{i}.csv", missing="mean", **WHOLE), tmp_path)
        for i, part in enumerate(texts)
    }
    together = pooled(each)
    alone, _ = measured(table(whole, "whole.csv", missing="mean", **WHOLE), tmp_path)
    for found, expected in zip(together.columns, alone.columns, strict=True):
        assert (found.name, found.kind, found.categories) == (expected.name, expected.kind, expected.categories)
        assert found.mean == pytest.approx(expected.mean, rel=1e-4, abs=1e-2)
        if expected.std != 1.0:
            assert found.std == pytest.approx(expected.std, rel=1e-3, abs=1e-2)


def test_a_column_that_never_changes_is_not_blown_up(tmp_path: Path, table: Callable[..., FileDataset]) -> None:
    one = table("a,b,y\n5,1,no\n5,2,yes\n", "one.csv", **WHOLE)
    other = table("a,b,y\n5,30,no\n5,40,yes\n", "other.csv", **WHOLE)
    rules = pooled({"one": measured(one, tmp_path), "other": measured(other, tmp_path)}).columns
    assert (rules[0].mean, rules[0].std) == (5.0, 1.0)
    assert rules[1].std == pytest.approx(np.std([1, 2, 30, 40]))


def test_a_column_that_changes_between_places_only_has_that_deviation(
    tmp_path: Path, table: Callable[..., FileDataset]
) -> None:
    one, other = table("a,y\n5,no\n5,yes\n", "one.csv", **WHOLE), table("a,y\n7,no\n7,yes\n", "other.csv", **WHOLE)
    (rule,) = pooled({"one": measured(one, tmp_path), "other": measured(other, tmp_path)}).columns
    assert (rule.mean, rule.std) == (6.0, 1.0)


def test_arrays_are_put_together_too(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    parts = {name: draw.normal(size, size, (20, 3)) for name, size in (("one", 1.0), ("other", 9.0))}
    each = {}
    for name, x in parts.items():
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(20) % 2)
        dataset = FileDataset.model_validate({"uri": f"{name}.npz", "splits": WHOLE["splits"]})
        each[name] = measured(dataset, tmp_path)
    together, every = pooled(each), np.concatenate(list(parts.values()))
    np.testing.assert_allclose(together.mean, every.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(together.std, every.std(axis=0), rtol=1e-5)
    dataset = FileDataset.model_validate({"uri": "one.npz", "splits": WHOLE["splits"]})
    again = load(dataset, tmp_path, together).datamodule.parts["train"].inputs.numpy()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(again, together.transform(parts["one"][again_order(dataset, tmp_path)]))


def again_order(dataset: FileDataset, root: Path) -> Any:
    """Return in which order the training split has the rows of a file."""
    rules, prepared = measured(dataset, root)
    plain = rules.transform(np.load(root / dataset.uri)["x"])
    return [int(np.flatnonzero((plain == row).all(axis=1))[0]) for row in prepared]


def test_what_is_alike_stays_as_it_is(tmp_path: Path, table: Callable[..., FileDataset]) -> None:
    settings = {**WHOLE, "standardize": False}
    one = measured(table("a,y\n5,no\n6,yes\n", "one.csv", **settings), tmp_path)
    other = measured(table("a,y\n50,no\n60,yes\n", "other.csv", **settings), tmp_path)
    assert pooled({"one": one, "other": other}) is one[0]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("a,c,y\n1,2,no\n2,3,yes\n", "other and one differ in the columns: a, c and a, b"),
        ("a,b,y\n1,red,no\n2,blue,yes\n", "the kind of column b: text and number"),
        ("a,b,y\n1,2,no\n2,3,never\n", "the classes: never, no and no, yes"),
        ("a,b,y\n1,2,1.5\n2,3,2.5\n", "the kind of task: regression and classification"),
    ],
)
def test_what_cannot_be_put_together_is_named(
    tmp_path: Path, table: Callable[..., FileDataset], other: str, expected: str
) -> None:
    one = measured(table("a,b,y\n1,2,no\n2,3,yes\n", "one.csv", **WHOLE), tmp_path)
    with pytest.raises(DataError, match=expected):
        pooled({"one": one, "other": measured(table(other, "other.csv", **WHOLE), tmp_path)})


def test_recordings_that_are_read_otherwise_are_named(tmp_path: Path) -> None:
    folders_of_tones(tmp_path / "tones", each=3)
    datasets = [FileDataset.model_validate({"uri": "tones", "audio": {"rate": rate}}) for rate in (8000, 4000)]
    one, other = ((load(dataset, tmp_path).preprocessing, np.empty(0)) for dataset in datasets)
    assert pooled({"one": one, "other": one}) is one[0]
    with pytest.raises(DataError, match=r"differ in how files are read: rate=4000 .* and rate=8000 "):
        pooled({"one": one, "other": other})


def test_texts_are_read_as_the_files_of_all_are_written(tmp_path: Path, table: Callable[..., FileDataset]) -> None:
    text = "x;y\n1;no\n2;yes\n"
    written = [
        {"sep": ";", "na_values": ["-9"], "decimal": ","},
        {"sep": ";", "na_values": ["?", "-9"], "decimal": ","},
    ]
    each = {
        str(place): measured(table(text, f"{place}.csv", options=options, **WHOLE), tmp_path)
        for place, options in enumerate([*written, {"sep": ";"}])
    }
    assert pooled({name: each[name] for name in "01"}).notation == Notation(",", ("-9", "?"))
    assert pooled(each).notation == Notation(".", ("-9", "?"))


def test_other_texts_of_a_column_are_named(tmp_path: Path, table: Callable[..., FileDataset]) -> None:
    one = measured(table("c,y\nred,no\nblue,yes\n", "one.csv", **WHOLE), tmp_path)
    other = measured(table("c,y\nred,no\ngreen,yes\n", "other.csv", **WHOLE), tmp_path)
    with pytest.raises(DataError, match="the texts of column c: green, red and blue, red"):
        pooled({"one": one, "other": other})
