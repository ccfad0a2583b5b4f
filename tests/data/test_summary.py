from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sounds import folders_of_tones

from ai4sdk.data.summary import Summary, summarize
from ai4sdk.errors import DataError
from ai4sdk.spec import FileDataset, Storage

Write = Callable[..., FileDataset]
HERE = Storage()

FLOWERS = "length,colour,wild,kind\n" + "".join(
    f"{index}.5,{'red' if index % 3 else 'blue'},{'true' if index % 2 else 'False'},{'rose' if index % 2 else 'lily'}\n"
    for index in range(20)
)


def look(dataset: FileDataset, project: Path, task: str = "auto") -> Summary:
    return summarize(dataset, HERE, project, task)


def refused(dataset: FileDataset, project: Path, task: str = "auto") -> DataError:
    with pytest.raises(DataError) as caught:
        look(dataset, project, task)
    return caught.value


def png(width: int = 4, height: int = 4) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + bytes([200]) * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def pictures(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    return root


# Tables ----------------------------------------------------------------------------------------------------------


def test_a_csv_with_text_and_truth_columns(table: Write, tmp_path: Path) -> None:
    found = look(table(FLOWERS, label="kind"), tmp_path)
    assert found.rows == 20
    assert found.feature_names == ("length", "colour=blue", "colour=red", "wild")
    assert (found.features, found.shape) == (4, (4,))
    assert (found.label_kind, found.classes, found.class_names) == ("class", 2, ("lily", "rose"))
    assert found.class_counts == {"lily": 10, "rose": 10}
    assert found.splits == {"train": 14, "val": 3, "test": 3}
    assert found.complete
    assert json.loads(json.dumps(found.to_json()))["shape"] == [4]


def test_nothing_heavy_is_imported(table: Write, tmp_path: Path) -> None:
    table(FLOWERS)
    code = """
import sys
from pathlib import Path
from ai4sdk.data.summary import summarize
from ai4sdk.data.fingerprint import fingerprint
from ai4sdk.spec import FileDataset, Storage
dataset = FileDataset(uri="data.csv", label="kind")
fingerprint(dataset, Storage(), Path()), summarize(dataset, Storage(), Path(), "auto")
print([name for name in ("torch", "pandas", "numpy", "fsspec", "pyarrow", "PIL", "aiohttp") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("cells", "task", "kind", "names"),
    [
        ("0 1 2 0 1 2", "auto", "class", ("0", "1", "2")),
        ("1 2 1 2 2 1", "auto", "class", ("1", "2")),
        ("1.0 2.0 1.0 2.0 2 1", "auto", "class", ("1", "2")),
        ("3 7 42 3 7 42", "auto", "number", None),
        ("3 7 42 3 7 42", "classification", "class", ("3", "7", "42")),
        ("0 1 2 0 1 2", "regression", "number", None),
        ("0.5 1 2 0 1 2", "auto", "number", None),
        ("0 2 0 2 0 2", "auto", "number", None),
        ("yes no yes no yes no", "auto", "class", ("no", "yes")),
        ("TRUE false True false true false", "auto", "class", ("False", "True")),
        ("TRUE false True false true false", "regression", "number", None),
    ],
)
def test_what_a_label_predicts(
    table: Write, tmp_path: Path, cells: str, task: str, kind: str, names: tuple[str, ...] | None
) -> None:
    text = "x,y\n" + "".join(f"{row},{cell}\n" for row, cell in enumerate(cells.split()))
    found = look(table(text, label="y"), tmp_path, task)
    assert (found.label_kind, found.class_names) == (kind, names)
    assert found.targets == (1 if kind == "number" else None)


def test_twenty_one_whole_numbers_are_no_classes(table: Write, tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{row},{row % 21}\n" for row in range(63))
    assert look(table(text, label="y"), tmp_path).label_kind == "number"
    assert look(table(text.replace(",20\n", ",19\n"), label="y"), tmp_path).classes == 20


@pytest.mark.parametrize(
    ("settings", "features"),
    [
        ({}, ("a", "b", "c")),
        ({"drop": ["b"]}, ("a", "c")),
        ({"features": ["c", "a"]}, ("c", "a")),
        ({"splits": {"method": "group", "column": "b"}}, ("a", "c")),
        ({"splits": {"method": "time", "column": "c"}}, ("a", "b")),
    ],
)
def test_which_columns_are_features(
    table: Write, tmp_path: Path, settings: dict[str, Any], features: tuple[str, ...]
) -> None:
    text = "a,b,c,y\n" + "".join(f"{row},{row},{row},{row % 2}\n" for row in range(10))
    assert look(table(text, label="y", **settings), tmp_path).feature_names == features


def test_categories_are_those_of_the_training_split(table: Write, tmp_path: Path) -> None:
    text = "x,when,y\n" + "".join(f"{'late' if row > 8 else 'early'},{row},{row % 2}\n" for row in range(10))
    dataset = table(text, label="y", splits={"method": "time", "column": "when"})
    assert look(dataset, tmp_path).feature_names == ("x=early",)


@pytest.mark.parametrize(("missing", "rows"), [("mean", 10), ("drop", 8)])
def test_empty_cells(table: Write, tmp_path: Path, missing: str, rows: int) -> None:
    text = "a,b,y\n" + "".join(
        f"{row if row != 3 else 'NA'},{row if row != 7 else ''},{row % 2}\n" for row in range(10)
    )
    error = refused(table(text, label="y"), tmp_path)
    assert "data.csv line 5, column 'a': an empty cell" in error.message
    assert "dataset.missing" in (error.hint or "")
    assert look(table(text, label="y", missing=missing), tmp_path).rows == rows


def test_an_empty_label_is_never_made_up(table: Write, tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{row},{'' if row == 2 else row % 2}\n" for row in range(10))
    assert "column 'y': an empty cell" in refused(table(text, label="y", missing="mean"), tmp_path).message
    assert look(table(text, label="y", missing="drop"), tmp_path).rows == 9


def test_empty_cells_of_dropped_columns_do_not_matter(table: Write, tmp_path: Path) -> None:
    text = "a,note,y\n" + "".join(f"{row},,{row % 2}\n" for row in range(10))
    assert look(table(text, label="y", drop=["note"]), tmp_path).rows == 10


def test_how_other_people_write_csv(table: Write, tmp_path: Path) -> None:
    rows = "".join(f"{row},5; Zürich ;{'ja' if row % 2 else 'nein'}\n" for row in range(10))
    (tmp_path / "data.csv").write_bytes(("# made by a logger\nhöhe;ort;y\n" + rows).encode("latin-1"))
    options = {"sep": ";", "decimal": ",", "encoding": "latin-1", "comment": "#"}
    found = look(FileDataset.model_validate({"uri": "data.csv", "label": "y", "options": options}), tmp_path)
    assert found.feature_names == ("höhe", "ort=Zürich")


def test_without_header_and_with_skipped_lines(table: Write, tmp_path: Path) -> None:
    text = "junk\n" + "".join(f"{row},{row % 2}\n" for row in range(10))
    found = look(table(text, label="1", options={"header": False, "skiprows": 1}), tmp_path)
    assert (found.rows, found.feature_names) == (10, ("0",))
    named = look(table(text, label="y", options={"header": False, "skiprows": 1, "names": ["x", "y"]}), tmp_path)
    assert named.feature_names == ("x",)


def test_a_byte_order_mark_quotes_blank_lines_and_line_ends(table: Write, tmp_path: Path) -> None:
    rows = "".join(f'{row}, "a ""quoted"", text\nof two lines",{row % 2}\r\n\r\n' for row in range(6))
    found = look(table("\ufeffx,t,y\r\n" + rows, label="y"), tmp_path)
    assert (found.rows, found.feature_names) == (6, ("x", 't=a "quoted", text\nof two lines'))


def test_tsv_and_gzip(tmp_path: Path) -> None:
    text = FLOWERS.replace(",", "\t").encode()
    (tmp_path / "a.tsv").write_bytes(text)
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(text))
    plain = look(FileDataset(uri="a.tsv", label="kind"), tmp_path)
    assert plain.features == 4
    assert look(FileDataset(uri="b.tsv.gz", label="kind"), tmp_path) == plain


def test_a_folder_of_csv_files_is_one_table(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "x" / f"{name}.csv").parent.mkdir(exist_ok=True)
        (tmp_path / "x" / f"{name}.csv").write_text(FLOWERS)
    assert look(FileDataset(uri="x", label="kind"), tmp_path).rows == 40
    (tmp_path / "x" / "c.csv").write_text(FLOWERS.replace("length", "width"))
    error = refused(FileDataset(uri="x", label="kind"), tmp_path)
    assert "c.csv has other columns than" in error.message
    assert "'length', 'width'" in error.message


def test_given_files(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("train", "test", "unused"):
        (tmp_path / "x" / f"{name}.csv").write_text(FLOWERS if name != "unused" else "other\n1\n")
    splits = {"method": "given", "train": "train.csv", "test": "test.csv"}
    found = look(FileDataset.model_validate({"uri": "x", "label": "kind", "splits": splits}), tmp_path)
    assert (found.rows, found.splits) == (40, {"train": 20, "test": 20})
    splits["test"] = "tests.csv"
    error = refused(FileDataset.model_validate({"uri": "x", "label": "kind", "splits": splits}), tmp_path)
    assert "splits.test names 'tests.csv'" in error.message
    assert error.hint == "did you mean 'test.csv'?"


def test_given_column_of_whole_numbers(table: Write, tmp_path: Path) -> None:
    text = "x,fold,y\n" + "".join(f"{row},{row % 3},{row % 2}\n" for row in range(12))
    splits = {"method": "given", "column": "fold", "train": "0", "val": "1"}
    assert look(table(text, label="y", splits=splits), tmp_path).splits == {"train": 4, "val": 4}


def test_a_number_column_with_text_far_down_is_text(table: Write, tmp_path: Path) -> None:
    rows = [f"{row % 7},{row % 2}\n" for row in range(9000)]
    rows[8000] = "007,1\n"
    assert look(table("x,y\n" + "".join(rows), label="y"), tmp_path).feature_names == ("x",)
    rows[8500] = "n7,1\n"
    found = look(table("x,y\n" + "".join(rows), label="y", splits={"train": 1.0, "val": None, "test": None}), tmp_path)
    assert found.feature_names == ("x=0", "x=007", "x=1", "x=2", "x=3", "x=4", "x=5", "x=6", "x=n7")


def test_empty_cells_first_do_not_decide_a_column(table: Write, tmp_path: Path) -> None:
    rows = [
        f"{'' if row < 5000 else ('true', 'false')[row % 2]},{'' if row < 5000 else 'ab'[row % 2]},{row % 2}\n"
        for row in range(9000)
    ]
    found = look(table("flag,letter,y\n" + "".join(rows), label="y", missing="mean"), tmp_path)
    assert found.feature_names == ("flag", "letter=a", "letter=b")


@pytest.mark.parametrize("cell", ["1_000", "0x10", "12 kg", "1,5"])
def test_what_only_python_takes_for_a_number_is_text(table: Write, tmp_path: Path, cell: str) -> None:
    text = "x;y\n" + "".join(f"{cell};{row % 2}\n" for row in range(10))
    assert look(table(text, label="y", options={"sep": ";"}), tmp_path).feature_names == (f"x={cell}",)


def test_a_large_table_is_read_in_part(table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai4sdk.data.summary._WHOLE", 1000)
    monkeypatch.setattr("ai4sdk.data.summary._PART", 200_000)
    text = "x,y\n" + "".join(f"{row:08d},{row % 2}\n" for row in range(100_000))
    found = look(table(text, label="y"), tmp_path)
    assert not found.complete
    assert found.rows == pytest.approx(100_000, rel=0.05)
    assert (found.features, found.classes, found.splits) == (1, 2, None)


@pytest.mark.parametrize(
    ("text", "settings", "message", "hint"),
    [
        ("x,y\n1,2\n1,2,3\n", {}, "data.csv line 3: 3 cells, but there are 2 columns", "quotes"),
        ('x,y\n"a\nb",2\n1\n', {}, "data.csv line 4: 1 cells, but there are 2 columns", "quotes"),
        ("x,y\n1,2\n", {"label": "z"}, "no column 'z', which dataset.label names", "x, y"),
        ("age,Target\n1,2\n", {"label": "target"}, "no column 'target'", "did you mean 'Target'?"),
        ("age,y\n1,2\n", {"label": "y", "drop": ["agee"]}, "dataset.drop names", "did you mean 'age'?"),
        ("age,y\n1,2\n", {"label": "y", "features": ["agee"]}, "dataset.features names", "did you mean 'age'?"),
        ("age,y\n1,2\n", {"label": "y", "features": ["age", "y"]}, "holds the label", "leave it out"),
        ("y\n1\n", {"label": "y"}, "no column of", "dataset.features"),
        ("", {}, "data.csv is empty", "dataset.uri"),
        ("\n\n", {}, "data.csv is empty", "dataset.uri"),
        ("x,y\n", {"label": "y"}, "no row is left", "check the file"),
        ("x,x\n1,2\n", {}, "two columns named 'x'", "options.names"),
        ('x,y\n1,"2\n', {}, "data.csv line 2: unexpected end of data", "quotes"),
        (
            "x,y\n" + "1,0\n" * 9 + "inf,1\n",
            {"label": "y"},
            "data.csv line 11, column 'x': an infinite number",
            "correct",
        ),
        ("x,y\n" + "1,a\n" * 2, {"label": "y"}, "2 samples cannot be divided", "add data"),
        (
            "x,y\n" + "".join(f"1,{row}.5\n" for row in range(20)),
            {"label": "y", "splits": {"method": "stratified"}},
            "the label is a number",
            "fraction",
        ),
        (
            "x,y\n" + "".join(f"1,a{row}\n" for row in range(20)),
            {"label": "y", "splits": {"method": "stratified"}},
            "no class has enough samples for a stratified split",
            "fraction",
        ),
        (
            "x,when,y\n" + "".join(f"1,lately {row},0\n" for row in range(20)),
            {"label": "y", "splits": {"method": "time", "column": "when"}},
            "'lately 0' is no time",
            "2026-01-31",
        ),
        (
            "id,y\n" + "".join(f"patient {row},{row % 2}\n" for row in range(1001)),
            {"label": "y"},
            "column 'id' holds 1001 different texts",
            "dataset.drop: [id]",
        ),
        ("x,y\n1,2\n", {"options": {"encoding": "utf-9"}}, "no character encoding is called 'utf-9'", "latin-1"),
        ("x,y\n1,2\n", {"options": {"names": ["x"]}}, "has 2 columns, but dataset.options.names names 1", "every"),
    ],
)
def test_what_is_wrong_with_a_table(
    table: Write, tmp_path: Path, text: str, settings: dict[str, Any], message: str, hint: str
) -> None:
    error = refused(table(text, **settings), tmp_path)
    assert message in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    ("cells", "task", "message"),
    [
        ("1 2 3.5", "classification", "data.csv line 4, column 'y': 3.5 has a fraction, but task is classification"),
        ("1 2 high", "regression", "is no number, but task is regression"),
    ],
)
def test_a_label_that_does_not_fit_the_task(table: Write, tmp_path: Path, cells: str, task: str, message: str) -> None:
    text = "x,y\n" + "".join(f"1,{cell}\n" for cell in cells.split())
    assert message in refused(table(text, label="y"), tmp_path, task).message


def test_a_task_needs_something_to_predict(table: Write, tmp_path: Path) -> None:
    error = refused(table("x,y\n" + "1,2\n" * 5), tmp_path, "classification")
    assert "has nothing to predict" in error.message
    assert "dataset.label" in (error.hint or "")


def test_the_line_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"x,y\n" + b"1,a\n" * 5000 + b"1,caf\xe9\n" + b"1,a\n")
    error = refused(FileDataset(uri="data.csv", label="y"), tmp_path)
    assert "data.csv line 5002: this is not utf-8 text" in error.message
    assert "latin-1" in (error.hint or "")


def test_a_gzip_cut_short(tmp_path: Path) -> None:
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(FLOWERS.encode())[:-20])
    assert "is cut short or damaged" in refused(FileDataset(uri="data.csv.gz", label="kind"), tmp_path).message


# Parquet -----------------------------------------------------------------------------------------------------------


def parquet(path: Path, columns: dict[str, Any], **settings: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, **settings)


def test_parquet_agrees_with_csv(table: Write, tmp_path: Path) -> None:
    plain = look(table(FLOWERS, label="kind"), tmp_path)
    parquet(
        tmp_path / "data.parquet",
        {
            "length": [row + 0.5 for row in range(20)],
            "colour": ["red" if row % 3 else "blue" for row in range(20)],
            "wild": [bool(row % 2) for row in range(20)],
            "kind": ["rose" if row % 2 else "lily" for row in range(20)],
        },
        row_group_size=6,
    )
    found = look(FileDataset(uri="data.parquet", label="kind"), tmp_path)
    assert {**found.to_json(), "format": "csv"} == plain.to_json()


def test_parquet_types(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow as pa

    columns = {
        "i": pa.array([1, None, 3, 4, 5], pa.int32()),
        "d": pa.array([decimal.Decimal("1.5")] * 5),
        "c": pa.array(["a", "b", "a", None, "b"]).dictionary_encode(),
        "when": [datetime.datetime(2026, 1, day) for day in range(1, 6)],
        "y": [0, 1, 0, 1, 0],
    }
    parquet(tmp_path / "t.parquet", columns)
    error = refused(FileDataset(uri="t.parquet", label="y", missing="mean"), tmp_path)
    assert "column 'when' holds dates or times" in error.message
    dataset = FileDataset.model_validate(
        {"uri": "t.parquet", "label": "y", "missing": "mean", "splits": {"method": "time", "column": "when"}}
    )
    assert look(dataset, tmp_path).feature_names == ("i", "d", "c=a", "c=b")
    error = refused(FileDataset(uri="t.parquet", label="y", drop=["when"]), tmp_path)
    assert "t.parquet row 2, column 'i': an empty cell" in error.message


def test_parquet_nested_values_are_no_cells(tmp_path: Path) -> None:
    parquet(tmp_path / "t.parquet", {"x": [[1, 2]] * 5, "y": [0, 1, 0, 1, 0]})
    assert "are no cells of a table" in refused(FileDataset(uri="t.parquet", label="y"), tmp_path).message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 1000, None])
def test_damaged_parquet(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "t.parquet"
    parquet(file, {"x": list(range(100)), "y": [0, 1] * 50})
    file.write_bytes(file.read_bytes()[:-30] if content is None else content)
    assert "is no whole Parquet file" in refused(FileDataset(uri="t.parquet", label="y"), tmp_path).message


# Arrays ------------------------------------------------------------------------------------------------------------


def npz(path: Path, **arrays: Any) -> None:
    import numpy as np

    np.savez_compressed(path, **arrays)


@pytest.mark.parametrize("dtype", ["int64", "uint8", ">i4", "float16", "float64", "bool", "U3", "S3"])
def test_npz_labels_of_every_type(tmp_path: Path, dtype: str) -> None:
    import numpy as np

    npz(tmp_path / "a.npz", x=np.zeros((20, 2, 3)), y=(np.arange(20) % 2).astype(dtype))
    found = look(FileDataset(uri="a.npz"), tmp_path)
    assert (found.rows, found.shape, found.features) == (20, (2, 3), 6)
    names = {"bool": ("False", "True")}.get(dtype, ("0", "1"))
    assert (found.label, found.classes, found.class_names) == ("y", 2, names)
    assert found.class_counts == dict.fromkeys(names, 10)


def test_npy_has_nothing_to_predict(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "a.npy", np.zeros((20, 5), order="F"))
    found = look(FileDataset(uri="a.npy"), tmp_path)
    assert (found.rows, found.features, found.label_kind, found.classes) == (20, 5, None, None)


def test_several_numbers_to_predict(tmp_path: Path) -> None:
    import numpy as np

    npz(tmp_path / "a.npz", data=np.zeros((20, 5)), goal=np.zeros((20, 3)))
    dataset = FileDataset(uri="a.npz", features=["data"], label="goal")
    found = look(dataset, tmp_path)
    assert (found.label_kind, found.targets) == ("number", 3)
    assert "one class a sample" in (refused(dataset, tmp_path, "classification").hint or "")


@pytest.mark.parametrize("order", ["C", "F"])
def test_values_that_are_no_numbers(tmp_path: Path, order: Any) -> None:
    import numpy as np

    x = np.arange(40.0).reshape(20, 2)
    x[7, 1] = np.nan
    npz(tmp_path / "a.npz", x=np.asarray(x, order=order), y=np.arange(20) % 2)
    assert "sample 8 holds a value that is no number" in refused(FileDataset(uri="a.npz"), tmp_path).message
    assert look(FileDataset(uri="a.npz", missing="drop"), tmp_path).rows == 19
    assert look(FileDataset(uri="a.npz", missing="mean"), tmp_path).rows == 20
    x[7, 1] = np.inf
    npz(tmp_path / "a.npz", x=np.asarray(x, order=order), y=np.arange(20) % 2)
    assert "row 8 of x: an infinite number" in refused(FileDataset(uri="a.npz", missing="mean"), tmp_path).message


def test_splits_by_an_array_of_an_npz(tmp_path: Path) -> None:
    import numpy as np

    npz(tmp_path / "a.npz", x=np.zeros((12, 2)), y=np.arange(12) % 2, site=np.repeat([10, 20, 30], 4))
    dataset = FileDataset.model_validate({"uri": "a.npz", "splits": {"method": "group", "column": "site"}})
    assert look(dataset, tmp_path).splits == {"train": 4, "val": 4, "test": 4}


def test_objects_are_never_loaded(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "a.npy", np.array([{"a": 1}, None], dtype=object))
    error = refused(FileDataset(uri="a.npy"), tmp_path)
    assert "Python objects" in error.message
    assert "astype" in (error.hint or "")


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({"a": (5, 2), "b": (5,)}, {}, "has no array 'x'"),
        ({"x": (5, 2), "y": (4,)}, {}, "array 'y' has shape (4,), but 'x' has 5 samples"),
        ({"x": (0, 2), "y": (0,)}, {}, "is empty"),
        ({"x": (5, 2)}, {"label": "z"}, "has no array 'z', which dataset.label names"),
        ({"x": (5, 2), "y": (5,)}, {"drop": ["x"]}, "dataset.drop means nothing for format npz"),
        ({"x": (5, 2), "y": (5,)}, {"splits": {"method": "time", "column": "t"}}, "has no array 't'"),
    ],
)
def test_what_is_wrong_with_arrays(
    tmp_path: Path, arrays: dict[str, tuple[int, ...]], settings: dict[str, Any], message: str
) -> None:
    import numpy as np

    npz(tmp_path / "a.npz", **{name: np.zeros(shape) for name, shape in arrays.items()})
    assert message in refused(FileDataset.model_validate({"uri": "a.npz", **settings}), tmp_path).message


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("keep", [0, 5, 60, 0.5, -1])
def test_truncated_arrays(tmp_path: Path, name: str, keep: float) -> None:
    import numpy as np

    file = tmp_path / name
    if name == "a.npy":
        np.save(file, np.random.default_rng(0).random((50, 4)))
    else:
        np.savez(file, x=np.random.default_rng(0).random((50, 4)), y=np.arange(50) % 2)
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    error = refused(FileDataset(uri=name), tmp_path)
    assert "a.np" in error.message
    assert any(word in error.message for word in ("cut short", "no NPY array", "no whole NumPy file"))


# Pictures ----------------------------------------------------------------------------------------------------------


def test_folders_are_classes(tmp_path: Path) -> None:
    pictures(
        tmp_path / "x", [f"{kind}/{row}.png" for kind in ("dog", "cat") for row in range(10)] + ["cat/deep/er.png"]
    )
    dataset = FileDataset.model_validate({"uri": "x", "splits": {"method": "stratified"}, "images": {"size": [8, 6]}})
    found = look(dataset, tmp_path)
    assert (found.format, found.rows, found.shape, found.features) == ("images", 21, (3, 8, 6), 144)
    assert (found.class_names, found.class_counts) == (("cat", "dog"), {"cat": 11, "dog": 10})
    assert sum((found.splits or {}).values()) == 21


def test_given_folders(tmp_path: Path) -> None:
    names = ["train/cat/1.png", "train/dog/1.png", "test/dog/2.png", "other/cow/1.png"]
    pictures(tmp_path / "x", names)
    splits = {"method": "given", "train": "train", "test": "test"}
    found = look(FileDataset.model_validate({"uri": "x", "splits": splits, "images": {"mode": "L"}}), tmp_path)
    assert (found.rows, found.class_names, found.splits) == (3, ("cat", "dog"), {"train": 2, "test": 1})
    assert found.shape == (1, 64, 64)


def test_pictures_without_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "x", [f"{row}.png" for row in range(5)])
    assert look(FileDataset(uri="x"), tmp_path).label_kind is None
    assert "folder of its own" in (refused(FileDataset(uri="x"), tmp_path, "classification").hint or "")


def test_what_is_wrong_with_pictures(tmp_path: Path) -> None:
    root = pictures(tmp_path / "x", ["cat/1.png", "cat/2.png", "dog/1.png", "stray.png"])
    assert "stray.png lies beside the folders" in refused(FileDataset(uri="x"), tmp_path).message
    (root / "stray.png").unlink()
    assert "dataset.label means nothing" in refused(FileDataset(uri="x", label="y"), tmp_path).message
    assert "task is regression" in refused(FileDataset(uri="x"), tmp_path, "regression").message
    (root / "dog" / "1.png").write_bytes(png()[:-9])
    assert "dog/1.png is cut short" in refused(FileDataset(uri="x"), tmp_path).message
    (root / "dog" / "1.png").write_bytes(b"")
    assert "dog/1.png is empty" in refused(FileDataset(uri="x"), tmp_path).message


def test_a_jpeg_cut_short(tmp_path: Path) -> None:
    from PIL import Image

    root = pictures(tmp_path / "x", ["cat/1.png", "cat/2.png", "dog/1.png"])
    Image.new("RGB", (64, 64), "red").save(root / "dog" / "2.jpg")
    assert look(FileDataset(uri="x"), tmp_path).rows == 4
    content = (root / "dog" / "2.jpg").read_bytes()
    (root / "dog" / "2.jpg").write_bytes(content[:-10])
    assert "dog/2.jpg is cut short" in refused(FileDataset(uri="x"), tmp_path).message


# Recordings --------------------------------------------------------------------------------------------------------


def test_folders_of_recordings_are_classes_and_few_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai4sdk.data.storage import Location

    folders_of_tones(tmp_path / "x", each=100)
    opened: list[str] = []
    whole = Location.open
    monkeypatch.setattr(Location, "open", lambda self, entry: opened.append(entry.name) or whole(self, entry))
    dataset = FileDataset.model_validate({"uri": "x", "audio": {"rate": 8000, "seconds": 0.25}})
    found = look(dataset, tmp_path)
    assert (found.format, found.rows, found.shape, found.features) == ("audio", 200, (1, 2000), 2000)
    assert (found.class_names, found.class_counts) == (("high", "low"), {"high": 100, "low": 100})
    assert 0 < len(opened) <= 100


def test_what_is_wrong_with_recordings(tmp_path: Path) -> None:
    folders_of_tones(tmp_path / "x", each=2)
    (tmp_path / "x" / "stray.flac").write_bytes(b"fLaC")
    assert "stray.flac lies beside the folders" in refused(FileDataset(uri="x"), tmp_path).message
    (tmp_path / "x" / "stray.flac").unlink()
    error = refused(FileDataset(uri="x", label="y"), tmp_path)
    assert (error.message, error.hint) == (
        "dataset.label means nothing for format audio",
        "the folder of a recording is its class; remove it",
    )
    whole = (tmp_path / "x" / "low" / "1.wav").read_bytes()
    (tmp_path / "x" / "low" / "1.wav").write_bytes(whole[:-1])
    assert "low/1.wav is cut short" in refused(FileDataset(uri="x"), tmp_path).message
    (tmp_path / "x" / "low" / "1.wav").write_bytes(whole)
    (tmp_path / "x" / "cover.png").write_bytes(png())
    assert "several formats: audio, images" in refused(FileDataset(uri="x"), tmp_path).message


def test_recordings_without_classes(tmp_path: Path) -> None:
    folders_of_tones(tmp_path, each=3, pitches={"x": 440.0})
    assert look(FileDataset(uri="x"), tmp_path).label_kind is None
    assert "recordings of each class" in (refused(FileDataset(uri="x"), tmp_path, "classification").hint or "")


# Addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "uri", "message", "hint"),
    [
        ({"data.xlsx": b"x"}, "data.xlsx", "cannot be told from its name", "dataset.format"),
        ({"x/a.csv": b"x", "x/a.png": b"x"}, "x", "several formats: csv, images", "dataset.format"),
        ({"x/.hidden.csv": b"x"}, "x", "is empty", "dataset.uri"),
        ({"x/readme.md": b"x"}, "x", "cannot be told", "dataset.format"),
        ({}, "nowhere/at/all.csv", "there is no file or folder", "starts at the project"),
        ({}, "gopher://host/x.csv", "no file system is called 'gopher'", "https"),
        ({}, "http:///x.csv", "names no server", "https://host"),
    ],
)
def test_addresses_that_lead_nowhere(
    tmp_path: Path, files: dict[str, bytes], uri: str, message: str, hint: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    error = refused(FileDataset(uri=uri), tmp_path)
    assert message in error.message
    assert hint in (error.hint or "")


def test_a_name_without_suffix_is_what_the_user_says(tmp_path: Path) -> None:
    (tmp_path / "records").write_text(FLOWERS)
    assert look(FileDataset(uri="records", format="csv", label="kind"), tmp_path).rows == 20


def test_lines_are_counted_through_blank_ones_and_long_cells(table: Write, tmp_path: Path) -> None:
    rows = [f"{row},{row % 2}\n" for row in range(5000)]
    rows[10] = '"a\nb\r\nc",1\n'  # lines 12 to 14
    rows[20] = "\n  \n20,0\n"
    rows[4500] = "4500,0,\n"
    error = refused(table("x,y\n" + "".join(rows), label="y"), tmp_path)
    assert "data.csv line 4506: 3 cells" in error.message
    rows[4500] = ",0\n"
    error = refused(table("x,y\n" + "".join(rows), label="y"), tmp_path)
    assert "data.csv line 4506, column 'x': an empty cell" in error.message
