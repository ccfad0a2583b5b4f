"""Files of every supported form give the same samples; what is wrong is named by file and line."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from ai4sdk.errors import DataError, NotFound
from ai4sdk.worker.inputs import read_inputs, samples_of_json

ROWS = [{"a": "1", "b": "x"}, {"a": "2.5", "b": "y, z"}, {"a": "", "b": "ü"}]


def read(*names, stdin=b"", batch_size=2):
    return list(read_inputs([str(name) for name in names], stdin=io.BytesIO(stdin), batch_size=batch_size))


def samples(batches):
    return [sample for batch in batches for sample in batch.samples]


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        {"inputs": [[1, 2], [3, 4]]},
        {"instances": [[1, 2], [3, 4]]},
        {"dataframe_split": {"data": [[1, 2], [3, 4]]}},
    ],
)
def test_rows_in_json(tmp_path, value):
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert samples(read(tmp_path / "x.json", batch_size=1)) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "value",
    [
        [{"a": 1}, {"a": 2}],
        {"inputs": [{"a": 1}, {"a": 2}]},
        {"instances": {"a": [1, 2]}},
        {"dataframe_records": [{"a": 1}, {"a": 2}]},
        {"dataframe_split": {"columns": ["a"], "index": [7, 8], "data": [[1], [2]]}},
    ],
)
def test_records_in_json(value):
    assert samples_of_json(value, "it") == [{"a": 1}, {"a": 2}]


def test_one_record_and_one_row_are_one_sample():
    assert samples_of_json({"a": 1, "b": "x"}, "it") == [{"a": 1, "b": "x"}]
    assert samples_of_json({"inputs": {"a": 1}}, "it") == [{"a": 1}]
    assert samples_of_json([1, 2.5, 3], "it") == [[1, 2.5, 3]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "holds a text"),
        (None, "holds a null"),
        (3, "holds a number"),
        ({"inputs": "x"}, "holds a text"),
        ({"inputs": [], "instances": []}, "both inputs and instances"),
        ({"dataframe_split": [1]}, "dataframe_split has no data"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}, "record 2 has 2 cells for 1 columns"),
        ({"dataframe_records": [[1]]}, "no list of records"),
        ({"inputs": {"a": [1, 2], "b": [1]}}, "different lengths"),
        ({"inputs": {"a": [1, 2], "b": 1}}, "different lengths"),
    ],
)
def test_other_json_is_refused(value, words):
    with pytest.raises(DataError, match=words):
        samples_of_json(value, "it")


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json", "x.txt"])
def test_json_lines(tmp_path, name):
    (tmp_path / name).write_text('{"a": 1}\n\n{"a": 2}\n{"a": 3}\n')
    found = read(tmp_path / name)
    assert samples(found) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [batch.start for batch in found] == [0, 2]


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(DataError, match=r"x\.jsonl, line 2 is no JSON"):
        read(tmp_path / "x.jsonl")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_csv_with_any_separator(tmp_path, mark):
    lines = [["a", "b"], ["1", "x"], ["2.5", '"y, z"'], ["", "ü"]]
    (tmp_path / "x.csv").write_text("\ufeff" + "\r\n".join(mark.join(line) for line in lines) + "\r\n", "utf-8")
    assert samples(read(tmp_path / "x.csv")) == ROWS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\n \na, b\n1, 2\n \n\n", [{"a": "1", "b": "2"}]),  # blank lines are no rows
        ('a\n1,5\n""\n', [{"a": "1,5"}, {"a": ""}]),  # one column: a comma is in a cell, an empty cell is a row
    ],
)
def test_csv_with_blanks_and_of_one_column(tmp_path, text, found):
    (tmp_path / "x.csv").write_text(text)
    assert samples(read(tmp_path / "x.csv")) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, the header 2"),
        ("a,a\n1,2\n", "two columns 'a'"),
        ("", "no header"),
        ("\n\n", "no header"),
        ("\na,b\n1\n", "line 3 has 1 cells, the header 2"),
        ('a,b\n"1,2\n', "line 2 is no CSV"),
        ('"a,b\n1,2\n', "is no CSV"),
    ],
)
def test_a_broken_csv_is_told(tmp_path, text, words):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read(tmp_path / "x.csv")


def test_text_that_is_no_utf8_is_told(tmp_path):
    (tmp_path / "x.csv").write_bytes("a\nü\n".encode("latin-1"))
    with pytest.raises(DataError, match="no UTF-8"):
        read(tmp_path / "x.csv")


def test_csv_is_read_as_it_is_needed():
    class Endless(io.RawIOBase):
        lines = 0

        def readable(self):
            return True

        def readinto(self, target):
            self.lines += 1
            assert self.lines < 10_000, "the whole stream was read"
            line = b"a\n" if self.lines == 1 else b"1\n"
            target[: len(line)] = line
            return len(line)

    from ai4sdk.worker.inputs import _read_text

    batches = _read_text(io.BufferedReader(Endless(), 64), "csv", "it", 3, None)
    assert next(batches).samples == [{"a": "1"}] * 3


@pytest.mark.parametrize("content", [b'[{"a": 1}]', b'  {"a": 1}\n', b'{"inputs": [{"a": 1}]}', b'{"a": 1}\n'])
def test_standard_input_may_be_json(content):
    assert samples(read("-", stdin=content)) == [{"a": 1}]


def test_standard_input_may_be_lines_or_csv():
    assert samples(read("-", stdin=b'{"a": 1}\n{"a": 2}')) == [{"a": 1}, {"a": 2}]
    assert samples(read("-", stdin=b"a;b\n1;2\n")) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("content", "words"), [(b"  \n", "is empty"), (b"\x93NUMPY\x01", "no text"), (b"[1,", "no JSON")]
)
def test_other_standard_input_is_refused(content, words):
    with pytest.raises(DataError, match=words):
        read("-", stdin=content)


def test_deeply_nested_json_is_refused():
    with pytest.raises(DataError, match=r"nested|no JSON"):
        read("-", stdin=b"[" * 200_000)


def test_arrays(tmp_path):
    array = np.arange(10.0).reshape(5, 2)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "one.npz", data=array)
    np.savez(tmp_path / "two.npz", y=np.zeros(5), x=array)
    for name in ("x.npy", "one.npz", "two.npz"):
        found = read(tmp_path / name)
        assert [len(batch.samples) for batch in found] == [2, 2, 1]
        assert np.array_equal(np.concatenate([batch.samples for batch in found]), array)


def test_arrays_that_cannot_be_read_are_told(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", x=np.array([{}, {}]))
    np.savez(tmp_path / "many.npz", p=np.zeros(2), q=np.zeros(2))
    np.save(tmp_path / "number.npy", np.float64(3))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "text.npy").write_text("hello")
    for name in ("objects.npy", "objects.npz", "many.npz", "number.npy", "broken.npy", "broken.npz", "text.npy"):
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)


def test_pictures_alone_and_in_folders(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a/3.webp", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = read(tmp_path)
    assert [name.removeprefix(f"{tmp_path}/") for batch in found for name in batch.names] == [
        "a/3.webp",
        "b/1.png",
        "b/2.JPG",
    ]
    assert read(tmp_path / "b" / "1.png")[0].names == [str(tmp_path / "b" / "1.png")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture or recording in"):
        read(tmp_path / "empty")
    (tmp_path / "b" / "1.wav").touch()
    with pytest.raises(DataError, match="b holds pictures and recordings"):
        read(tmp_path / "b")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(NotFound, match=r"no file .*nowhere\.csv"):
        read(tmp_path / "nowhere.csv")


def test_several_files_follow_each_other(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.json").write_text('[{"a": 2}]')
    assert samples(read(tmp_path / "a.csv", tmp_path / "b.json")) == [{"a": "1"}, {"a": 2}]


def test_a_file_without_a_suffix_is_told_by_its_content(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "array.npy", array)
    Image.new("RGB", (2, 2)).save(tmp_path / "picture.png")
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_suffix(""))
    assert np.array_equal(read(tmp_path / "array")[0].samples, array)
    assert read(tmp_path / "picture")[0].names == [str(tmp_path / "picture")]
    (tmp_path / "rows").write_text("BMI,RIFFLES\n1,2\n")
    assert samples(read(tmp_path / "rows")) == [{"BMI": "1", "RIFFLES": "2"}]
    (tmp_path / "rows").write_text('  [{"a": 1}]')
    assert samples(read(tmp_path / "rows")) == [{"a": 1}]
