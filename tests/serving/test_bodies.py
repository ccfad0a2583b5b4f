"""MLflow's and natural bodies: JSON, CSV, arrays and pictures become samples, and mistakes are told."""

import io
import json

import numpy as np
import pytest

from ai4sdk.serving.contract import Contract, TensorSpec
from ai4sdk.serving.messages import Request
from ai4sdk.serving.protocols import mlflow, natural
from ai4sdk.serving.question import Refused

LABEL = (TensorSpec("label", "BYTES", (-1,)),)
ARRAY = Contract("t", "classification", "array", (TensorSpec("input", "FP32", (-1, 4)),), LABEL, (4,))
TABLE = Contract(
    "t", "classification", "table", (TensorSpec("p", "FP64", (-1,)), TensorSpec("q", "FP64", (-1,))), LABEL
)
PICTURES = Contract("t", "classification", "images", (TensorSpec("image", "BYTES", (-1,)),), LABEL)
RECORDINGS = Contract("t", "classification", "audio", (TensorSpec("audio", "BYTES", (-1,)),), LABEL)
ROWS = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]


def asked(body, kind="application/json", **parameters):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("mlflow", "infer", kind, data, parameters)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_arrays_come_as_mlflow_sends_them(key):
    assert np.array_equal(mlflow.decode(asked({key: ROWS, "params": {"x": 1}}), ARRAY).samples, ROWS)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["p", "q"], "index": [0, 1], "data": [[1, 2], [3, 4]]}},
        {"dataframe_records": [{"p": 1, "q": 2}, {"p": 3, "q": 4}]},
        {"instances": [{"p": 1, "q": 2}, {"p": 3, "q": 4}]},
        {"inputs": {"p": [1, 3], "q": [2, 4]}},
    ],
)
def test_tables_come_as_mlflow_sends_them(body):
    assert mlflow.decode(asked(body), TABLE).samples == [{"p": 1, "q": 2}, {"p": 3, "q": 4}]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": [0, 1, 2, 3], "index": [0, 1], "data": ROWS}},
        {"dataframe_records": [{"a": 1, "b": 2, "c": 3, "d": 4}, {"d": 8, "c": 7, "b": 6, "a": 5}]},
        {"inputs": {"a": [1, 5], "b": [2, 6], "c": [3, 7], "d": [4, 8]}},
    ],
)
def test_a_dataframe_is_taken_for_arrays_by_the_order_of_its_columns(body):
    assert np.array_equal(mlflow.decode(asked(body), ARRAY).samples, ROWS)


@pytest.mark.parametrize("protocol", [mlflow, natural])
def test_csv_has_a_header(protocol):
    records = protocol.decode(asked(b'\xef\xbb\xbfp, q\r\n1,2\r\n3,"4"\r\n', "text/csv; charset=utf-8"), TABLE).samples
    assert records == [{"p": "1", "q": "2"}, {"p": "3", "q": "4"}]
    assert protocol.decode(asked(b"p,q,a|b|c\n1,2,3\n", "text/csv"), TABLE).samples[0]["q"] == "2"
    assert protocol.decode(asked(b"p;q\n1,5;\n", "text/csv"), TABLE).samples == [{"p": "1,5", "q": ""}]
    rows = protocol.decode(asked(b"a,b,c,d\n1,2,3,4\n", "text/csv"), ARRAY).samples
    assert np.array_equal(rows, [[1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("request_", "contract", "status", "words"),
    [
        (asked(b"{", "application/json"), ARRAY, 400, "no JSON"),
        (asked({"inputs": ROWS, "instances": ROWS}), ARRAY, 400, "both inputs and instances"),
        (asked({"inputs": [[True, False, True, False]]}), ARRAY, 400, "true and false"),
        (asked("text"), ARRAY, 400, "holds a text"),
        (asked(b"\xff\xfe", "text/csv"), TABLE, 400, "no CSV"),
        (asked(b"p,q", "text/csv"), TABLE, 400, "no rows"),
        (asked(b"p,p\n1,2", "text/csv"), TABLE, 400, "two columns 'p'"),
        (asked(b"p,q\n1", "text/csv"), TABLE, 400, "line 2 has 1 cells"),
        (asked(b'p,q\n"1,2', "text/csv"), TABLE, 400, "no CSV"),
        (asked(b'p,"q\n1,2', "text/csv"), TABLE, 400, "no CSV"),
        (asked(b"a,b,c,d\n1,2,3,x", "text/csv"), ARRAY, 400, r"record 1, 'd': 'x' is no number"),
        (asked(b"a,b\n1,2", "text/csv"), ARRAY, 400, r"has 2 cells; the model takes arrays of the shape \(4,\)"),
        (asked({"input": ROWS}), ARRAY, 400, r"has 1 cells; .* one of inputs, instances"),
        (asked([{"a": 1, "b": True, "c": 3, "d": 4}]), ARRAY, 400, "'b': True is no number"),
        (asked([{"a": 1, "b": None, "c": 3, "d": 4}]), ARRAY, 400, "'b': None is no number"),
        (asked([{"a": 1, "b": [2], "c": 3, "d": 4}]), ARRAY, 400, r"'b': \[2\] is no number"),
        (asked([dict.fromkeys("abcd", 1), dict.fromkeys("abce", 1)]), ARRAY, 400, "record 2 lacks 'd'"),
        (asked([dict.fromkeys("abcd", 1), [1, 2, 3, 4]]), ARRAY, 400, "record 2 is a list, the first one a record"),
        (asked({"dataframe_split": {"columns": ["p", "p"], "data": [[1, 2]]}}), TABLE, 400, "different names"),
        (asked({"dataframe_split": {"columns": "pq", "data": [[1, 2]]}}), TABLE, 400, "different names"),
        (asked(b"a\n1", "text/csv"), PICTURES, 415, "takes pictures"),
        (asked({"inputs": [[[0.5]]]}), PICTURES, 400, "takes pictures"),
        (asked({"inputs": [[[256]]]}), PICTURES, 400, "from 0 to 255"),
        (asked(b"a\n1", "text/csv"), RECORDINGS, 415, "takes recordings"),
        (asked({"inputs": [[1, 2], ["a"]]}), RECORDINGS, 400, "sample 2 is no recording"),
        (asked({"inputs": [[]]}), RECORDINGS, 400, "sample 1 is no recording"),
        (asked({"inputs": [[[1], [2, 3]]]}), RECORDINGS, 400, "sample 1 is no recording"),
        (asked({"inputs": [[True, False]]}), RECORDINGS, 400, "sample 1 is no recording"),
        (asked({"rate": 8000}), RECORDINGS, 400, "sample 1 is no recording"),
    ],
)
def test_a_mistake_is_named(request_, contract, status, words):
    for protocol in (mlflow, natural):
        with pytest.raises(Refused, match=words) as refused:
            protocol.decode(request_, contract)
        assert refused.value.status == status


def test_other_types_are_not_understood():
    with pytest.raises(Refused, match="application/xml") as refused:
        mlflow.decode(asked(b"<a/>", "application/xml"), ARRAY)
    assert refused.value.status == 415


@pytest.mark.parametrize(
    ("kind", "name", "start", "expected"),
    [
        ("image/png", "", b"", "images"),
        ("application/octet-stream", "fish.JPG", b"", "images"),
        ("", "", b"\x89PNG\r\n", "images"),
        ("", "", b"BM\xf6\0\0\0\0\0\0\0\x36\0", "images"),
        ("", "", b"RIFF\x10\0\0\0WEBPVP8 ", "images"),
        ("audio/x-wav", "", b"", "audio"),
        ("application/ogg", "", b"", "audio"),
        ("", "deep/call.FLAC", b"", "audio"),
        ("", "", b"RIFF\x10\0\0\0WAVEfmt ", "audio"),
        ("application/x-www-form-urlencoded", "", b"OggS\0\2", "audio"),
        ("", "", b"ID3\4", "audio"),
        ("", "", b"\xff\xfb\x90\xc4", "audio"),
        ("", "a/b.npy", b"", "npy"),
        ("application/octet-stream", "", b"\x93NUMPY", "npy"),
        ("", "rows.csv", b"p,q", "csv"),
        ("text/csv", "x.png", b"p,q", "csv"),
        ("", "", b"  [1]", "json"),
    ],
)
def test_what_a_body_is_is_told_by_type_name_or_start(kind, name, start, expected):
    assert natural.kind_of(asked(start, kind, name=name)) == expected


def test_what_cannot_be_told_is_refused():
    with pytest.raises(Refused, match="cannot be told"):
        natural.kind_of(asked(b"\0\1", "application/octet-stream"))


def test_array_files():
    assert np.array_equal(natural.decode(asked(npy(np.array(ROWS)), "application/x-npy"), ARRAY).samples, ROWS)
    assert natural.decode(asked(npy(np.array([[1.0, 2.0]])), "", name="a.npy"), TABLE).samples == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }"
            + b" " * 40
            + b"\n",
            400,
            "no array",
        ),
        (npy(np.array([{"a": 1}], dtype=object)), 400, "no array"),
        (npy(np.zeros(4))[:-3], 400, "no array"),
        (b"\x93NUMPY", 400, "no array"),
        (b"PK\x03\x04", 415, "as .npy"),
    ],
)
def test_arrays_that_are_bombs_pickles_or_broken_are_refused(body, status, words):
    with pytest.raises(Refused, match=words) as refused:
        natural.decode(asked(body, "application/x-npy"), ARRAY)
    assert refused.value.status == status


def test_a_picture_is_a_body():
    assert natural.decode(asked(b"\x89PNG...", "image/png"), PICTURES).samples == [b"\x89PNG..."]
    with pytest.raises(Refused, match="takes no pictures"):
        natural.decode(asked(b"\x89PNG", "image/png"), ARRAY)


def test_a_recording_is_a_body():
    assert natural.decode(asked(b"fLaC...", "audio/flac"), RECORDINGS).samples == [b"fLaC..."]
    for contract in (ARRAY, PICTURES):
        with pytest.raises(Refused, match="takes no recordings"):
            natural.decode(asked(b"RIFF....WAVEfmt", ""), contract)
    with pytest.raises(Refused, match="takes no pictures"):
        natural.decode(asked(b"\x89PNG", "image/png"), RECORDINGS)


def test_recordings_are_lists_of_numbers_of_any_length_too():
    one, other = natural.decode(asked({"inputs": [[1, -2, 3], [0.5, 0.25]]}), RECORDINGS).samples
    assert (one.tolist(), one.dtype.kind, other.tolist(), other.dtype.kind) == ([1, -2, 3], "i", [0.5, 0.25], "f")
    (alone,) = natural.decode(asked({"inputs": [1, 2, 3]}), RECORDINGS).samples
    assert alone.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("contract", "axes"), [(PICTURES, 2), (RECORDINGS, 1)])
def test_an_array_is_one_sample_or_several(contract, axes):
    one = np.ones((2, 3, 4)[:axes], np.int16)
    (found,) = natural.decode(asked(npy(one), "application/x-npy"), contract).samples
    assert found.shape == one.shape
    assert len(natural.decode(asked(npy(np.stack([one, one])), "application/x-npy"), contract).samples) == 2


@pytest.mark.parametrize("contract", [ARRAY, PICTURES, RECORDINGS])
@pytest.mark.parametrize("texts", [["/etc/passwd"], [["/etc/passwd"]], [b"/etc/passwd"]])
def test_an_array_of_texts_names_no_files_of_the_server(contract, texts):
    with pytest.raises(Refused, match="takes numbers") as refused:
        natural.decode(asked(npy(np.array(texts)), "application/x-npy"), contract)
    assert refused.value.status == 400


@pytest.mark.parametrize("contract", [ARRAY, TABLE, PICTURES, RECORDINGS])
def test_a_single_number_is_no_array_of_samples(contract):
    with pytest.raises(Refused, match="single number") as refused:
        natural.decode(asked(npy(np.float32(1)), "application/x-npy"), contract)
    assert refused.value.status == 400


def test_pictures_that_are_bombs_are_refused_unread(make_package):
    """A few bytes that say they are 40,000 pixels wide and high are not unpacked."""
    import struct
    import zlib

    from PIL import Image

    from ai4sdk.data.preprocessing import Preprocessing
    from ai4sdk.errors import DataError
    from ai4sdk.spec import Images
    from ai4sdk.worker.model import load_model

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    rules = Preprocessing("images", (1, 8, 8), "classification", images=Images(size=[8, 8], mode="L"))
    example = np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)
    model = load_model(make_package(net="Pictures", preprocessing=rules, example_input=example), trust_code=True)
    before = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = 25_000_000
        with pytest.raises(DataError, match=r"cannot be read: .*exceeds limit"):
            model([bomb])
    finally:
        Image.MAX_IMAGE_PIXELS = before
