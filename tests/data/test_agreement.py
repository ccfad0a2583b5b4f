"""What a plan says of data is what training finds."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ai4sdk.data.module import load_data
from ai4sdk.data.summary import summarize
from ai4sdk.errors import DataError
from ai4sdk.spec import FileDataset, Storage

pytestmark = pytest.mark.slow

WORDS = ["red", "Zürich", "a,b", 'say "hi"', "None of it", "1_0", "7 kg", "true story"]


@st.composite
def columns(draw: st.DrawFn, rows: int) -> list[Any]:
    kinds: list[st.SearchStrategy[Any]] = [
        st.integers(-5, 5),
        st.integers(0, 2),
        st.floats(-1e6, 1e6, allow_nan=False),
        st.booleans(),
        st.sampled_from(WORDS),
        st.sampled_from(["true", "FALSE"]),
        st.just(3.25),
        st.one_of(st.integers(0, 3), st.sampled_from(WORDS)),
    ]
    kind = draw(st.sampled_from(kinds))
    if draw(st.booleans()):
        kind = st.one_of(kind, kind, kind, st.none())
    return draw(st.lists(kind, min_size=rows, max_size=rows))


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, list[Any]], dict[str, Any], str]:
    rows = draw(st.integers(3, 40))
    table = {f"c{index}": draw(columns(rows)) for index in range(draw(st.integers(1, 5)))}
    names = [*table, None]
    dataset: dict[str, Any] = {
        "label": draw(st.sampled_from(names)),
        "drop": draw(st.lists(st.sampled_from(list(table)), max_size=1)),
        "missing": draw(st.sampled_from(["refuse", "mean", "mean", "drop"])),
        "standardize": draw(st.booleans()),
    }
    method = draw(st.sampled_from(["fraction"] * 4 + ["stratified", "group", "time"]))
    dataset["splits"] = {"method": method, "seed": draw(st.integers(0, 99))}
    if method in ("group", "time"):
        dataset["splits"]["column"] = draw(st.sampled_from(list(table)))
    return table, dataset, draw(st.sampled_from(["auto"] * 4 + ["classification", "regression", "other"]))


def write_csv(path: Path, table: dict[str, list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows([["" if cell is None else cell for cell in row] for row in zip(*table.values(), strict=True)])


def write_parquet(path: Path, table: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = {}
    for name, cells in table.items():
        kinds = {type(cell) for cell in cells if cell is not None}
        made[name] = cells if len(kinds) <= 1 else [None if cell is None else str(cell) for cell in cells]
    pq.write_table(pa.table(made), path)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tables(), st.sampled_from([write_csv, write_parquet]))
def test_summary_and_training_agree_on_any_table(
    made: tuple[dict[str, list[Any]], dict[str, Any], str], write: Any
) -> None:
    table, settings_, task = made
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        name = "data.csv" if write is write_csv else "data.parquet"
        write(project / name, table)
        dataset = FileDataset.model_validate({"uri": name, **settings_})
        event("both read it" if compare(dataset, project, task) else "both refuse it")


def attempt(do: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return do(), ""
    except DataError as error:
        return None, error.message


def compare(dataset: FileDataset, project: Path, task: str) -> bool:
    """Compare the summary with the batches; both may refuse the data."""

    def load() -> Any:
        return load_data(dataset, storage=Storage(), project=project, task=task, seed=0, instantiate=dict)

    summary, refused = attempt(lambda: summarize(dataset, Storage(), project, task))
    data, refused_later = attempt(load)
    if refused:
        assert refused_later == refused
        return False
    if refused_later:
        # Only what is measured on the training split can be at fault now.
        measured = ("is empty in the whole training split", "has no value in the training", "too large for float32")
        assert any(words in refused_later for words in measured)
        return False
    assert summary is not None
    assert data is not None
    sizes, counts = {}, np.zeros(summary.classes or 1, int)
    for split in ("train", "val", "test"):
        loader = data.datamodule.dataloader(split)
        for batch in loader:
            x, y = batch if summary.label_kind else (batch, None)
            assert tuple(x.shape[1:]) == summary.shape
            assert str(x.dtype) == "torch.float32"
            assert np.isfinite(x.numpy()).all()
            sizes[split] = sizes.get(split, 0) + len(x)
            if y is not None:
                assert str(y.dtype) == ("torch.int64" if summary.label_kind == "class" else "torch.float32")
                if summary.label_kind == "class":
                    counts += np.bincount(y.numpy(), minlength=summary.classes)
    assert summary.complete
    assert sizes == summary.splits
    assert sum(sizes.values()) == summary.rows
    assert data.class_names == (list(summary.class_names) if summary.class_names else None)
    if summary.class_counts:
        assert list(summary.class_counts.values()) == counts.tolist()
    names = data.preprocessing.input_names if data.preprocessing else None
    assert names == (list(summary.feature_names) if summary.feature_names is not None else None)
    return True


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 30),
    st.lists(st.integers(1, 4), max_size=3),
    st.sampled_from(["float32", "float64", "int16", "uint8"]),
    st.sampled_from(["C", "F"]),
    st.sampled_from(["bool", "int64", "uint8", "float32", "U4", None]),
    st.booleans(),
    st.sampled_from(["refuse", "mean", "drop"]),
)
def test_summary_and_training_agree_on_any_arrays(
    rows: int, shape: list[int], dtype: str, order: Any, label: str | None, blank: bool, missing: str
) -> None:
    draw = np.random.default_rng(rows)
    x = (draw.random((rows, *shape)) * 100).astype(dtype)
    if blank and x.dtype.kind == "f":
        x.reshape(-1)[draw.integers(0, x.size)] = np.nan
    arrays = {"x": np.asarray(x, order=order)}
    if label:
        arrays["y"] = (draw.integers(0, 3, rows)).astype(label)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "a.npz", **arrays)
        compare(FileDataset.model_validate({"uri": "a.npz", "missing": missing}), Path(folder), "auto")


def test_the_comparison_does_compare(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", {"x": list(range(20)), "c": WORDS[:4] * 5, "y": [0, 1] * 10})
    assert compare(FileDataset(uri="a.csv", label="y"), tmp_path, "auto")
