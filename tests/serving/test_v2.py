"""The Open Inference Protocol: every datatype, as JSON and as bytes, and every mistake told."""

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ai4sdk.serving.contract import Contract, TensorSpec
from ai4sdk.serving.messages import Request
from ai4sdk.serving.protocols.v2 import HEADER_LENGTH, decode, encode
from ai4sdk.serving.question import Refused, Served
from ai4sdk.worker.prediction import predict_classes, predict_values

TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2", "INT32": "i4",
    "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip
OUTPUTS = (TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP64", (-1, 3)))


def taking(datatype="FP32", shape=(4,)):
    return Contract(
        "t", "classification", "array", (TensorSpec("input", datatype, (-1, *shape)),), OUTPUTS, shape, ("a", "b", "c")
    )


TABLE = Contract(
    "t", "regression", "table",
    (TensorSpec("length", "FP64", (-1,)), TensorSpec("kind", "BYTES", (-1,)), TensorSpec("wild", "BOOL", (-1,))),
    (TensorSpec("output", "FP32", (-1,)),),
)  # fmt: skip
PICTURES = Contract("t", "classification", "images", (TensorSpec("image", "BYTES", (-1,)),), OUTPUTS)
RECORDINGS = Contract("t", "classification", "audio", (TensorSpec("audio", "BYTES", (-1,)),), OUTPUTS)


def asking(inputs, binary=None, **rest):
    text = json.dumps({"inputs": inputs, **rest}).encode()
    if binary is None:
        return Request("v2", "infer", "application/json", text)
    return Request("v2", "infer", "application/octet-stream", text + binary, {HEADER_LENGTH: str(len(text))})


def tensor(data, datatype="FP32", name="input", shape=None):
    array = np.asarray(data) if shape is None else None
    return {"name": name, "datatype": datatype, "shape": list(array.shape) if shape is None else shape, "data": data}


@pytest.mark.parametrize("datatype", TYPES)
@given(data=st.data())
def test_numbers_of_every_type_arrive_as_sent(datatype, data):
    dtype = np.dtype(TYPES[datatype])
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=4))
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    array = data.draw(arrays.arrays(dtype, shape, elements=elements))
    head = {"name": "input", "datatype": datatype, "shape": list(shape)}
    plain = decode(asking([{**head, "data": array.tolist()}]), taking(datatype)).samples
    flat = decode(asking([{**head, "data": array.reshape(-1).tolist()}]), taking(datatype)).samples
    raw = array.astype(dtype.newbyteorder("<")).tobytes()
    binary = decode(asking([{**head, "parameters": {"binary_data_size": len(raw)}}], raw), taking(datatype)).samples
    for found in (plain, flat, binary):
        assert found.dtype == dtype
        assert np.array_equal(found, array)


def test_bytes_of_a_tensor_are_used_in_place():
    raw = np.arange(8, dtype="<f4").tobytes()
    request = asking(
        [{"name": "input", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}], raw
    )
    found = decode(request, taking()).samples
    assert np.shares_memory(found, np.frombuffer(request.body, np.uint8))


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_elements_of_any_length_arrive_as_sent(elements):
    raw = b"".join(struct.pack("<I", len(each)) + each for each in elements)
    head = {"name": "image", "datatype": "BYTES", "shape": [len(elements)]}
    assert decode(asking([{**head, "parameters": {"binary_data_size": len(raw)}}], raw), PICTURES).samples == elements
    coded = [base64.b64encode(each).decode() for each in elements]
    plain = {**head, "parameters": {"content_type": "base64"}, "data": coded}
    assert decode(asking([plain]), PICTURES).samples == elements


def test_columns_become_rows_in_the_models_order():
    inputs = [
        tensor([True, False], "BOOL", "wild"),
        tensor([[1.5], [2.0]], "FP64", "length"),
        tensor(["cod", "båt"], "BYTES", "kind"),
    ]
    assert decode(asking(inputs), TABLE).samples == [[1.5, "cod", True], [2.0, "båt", False]]


def test_recordings_come_as_files_or_as_numbers():
    elements = [b"fLaC", b"OggS..."]
    raw = b"".join(struct.pack("<I", len(one)) + one for one in elements)
    head = {"name": "audio", "datatype": "BYTES", "shape": [2]}
    assert decode(asking([{**head, "parameters": {"binary_data_size": len(raw)}}], raw), RECORDINGS).samples == elements
    for shape in ([2, 3], [2, 1, 3]):
        given = {"name": "audio", "datatype": "INT16", "shape": shape, "data": [1, 2, 3, 4, 5, 6]}
        one, other = decode(asking([given]), RECORDINGS).samples
        assert (one.reshape(-1).tolist(), other.reshape(-1).tolist()) == ([1, 2, 3], [4, 5, 6])
    assert decode(asking([{**given, "datatype": "FP32"}]), RECORDINGS).samples[0].dtype == np.float32


def test_pixels_become_pictures():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    (one, other) = decode(asking([tensor(pixels.tolist(), "UINT8", "image")]), PICTURES).samples
    assert np.array_equal(one, pixels[0])
    assert np.array_equal(other, pixels[1])


@pytest.mark.parametrize(
    ("request_", "contract", "words"),
    [
        (Request("v2", "infer", "", b"{"), taking(), "no JSON"),
        (Request("v2", "infer", "", b"[]"), taking(), '"inputs"'),
        (Request("v2", "infer", "", b'{"inputs": []}'), taking(), '"inputs"'),
        (Request("v2", "infer", "", b"{}", {HEADER_LENGTH: "-1"}), taking(), "the header"),
        (Request("v2", "infer", "", b"{}", {HEADER_LENGTH: "9"}), taking(), "the header"),
        (Request("v2", "infer", "", b"{}", {HEADER_LENGTH: "²"}), taking(), "the header"),
        (asking([3]), taking(), "an input is a mapping"),
        (asking([{"datatype": "FP32", "shape": [1], "data": [1]}]), taking(), "no name"),
        (asking([tensor([[1, 2]], "FP31")]), taking(), "datatype 'FP31'"),
        (asking([tensor([[1, 2]], ["FP32"])]), taking(), "datatype"),
        (asking([{"name": "input", "datatype": "FP32", "shape": [-1, 2], "data": [1, 2]}]), taking(), "no shape"),
        (asking([{"name": "input", "datatype": "FP32", "shape": [True], "data": [1]}]), taking(), "no shape"),
        (asking([{"name": "input", "datatype": "FP32", "shape": [2**62, 2**62], "data": [1]}]), taking(), "its shape needs"),
        (asking([{"name": "input", "datatype": "FP32", "shape": [0, 2**31, 2**31, 2**31], "data": []}]), taking(), "too large"),
        (asking([{"name": "input", "datatype": "FP32", "shape": [1, 4]}]), taking(), "no data"),
        (asking([tensor([[1, 2, 3, 4]], shape=[1, 5])]), taking(), "holds 4 numbers; its shape needs 5"),
        (asking([tensor([1, [2, 3]], shape=[3])]), taking(), "different lengths"),
        (asking([tensor([["1", "2"]])]), taking(), "no FP32"),
        (asking([tensor([[None, 1]])]), taking(), "no FP32"),
        (asking([tensor([[1.5, 1]], "INT8")]), taking("INT8"), "no INT8"),
        (asking([tensor([[300, 1]], "UINT8")]), taking("UINT8"), "beyond UINT8"),
        (asking([tensor([[2**70, 1]], "UINT64")]), taking("UINT64"), "UINT64"),
        (asking([tensor([[1, 0]], "BOOL")]), taking("BOOL"), "no BOOL"),
        (asking([tensor([[1] * 4]), tensor([[1] * 4])]), taking(), "two inputs 'input'"),
        (asking([tensor([[1] * 4], name="x")]), taking(), "no input 'x'; the model takes 'input'"),
        (asking([tensor([[1] * 4], name="x"), tensor([[1] * 4])]), taking(), "takes one input"),
        (asking([tensor(["a"], "BYTES")]), taking(), "is of BYTES"),
        (asking([tensor([1, 2], "BYTES", "kind")]), TABLE, "no text"),
        (asking([tensor(["a"], "BYTES", "kind")]), TABLE, "'length' is missing"),
        (asking([tensor(["a"], "BYTES", "kin")]), TABLE, "no input 'kin'"),
        (asking([tensor([[1.0, 2.0]], "FP64", "length")]), TABLE, "missing"),
        (asking([tensor([1], name="image")]), PICTURES, "give BYTES"),
        (asking([tensor([1], name="audio")]), RECORDINGS, "give BYTES"),
        (asking([tensor([[[1, 2]] * 2], "FP32", "audio")]), RECORDINGS, "give BYTES"),
        (asking([{**tensor(["?"], "BYTES", "image"), "parameters": {"content_type": "base64"}}]), PICTURES, "no base64"),
        (asking([{**tensor([[1] * 4]), "parameters": 3}]), taking(), "no mapping"),
        (asking([tensor([[1] * 4])], outputs=[{"name": "labels"}]), taking(), "no output 'labels'; there are label"),
        (asking([tensor([[1] * 4])], outputs=[{"name": {}}]), taking(), "no output"),
        (asking([tensor([[1] * 4])], outputs=[]), taking(), '"outputs" is a list'),
        (asking([tensor([[1] * 4])], id=3), taking(), "id of a request is text"),
        (asking([{"name": "input", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 15}}], b"x" * 15), taking(), "need 16"),
        (asking([{"name": "input", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 17}}], b"x" * 16), taking(), "16 bytes are left"),
        (asking([{"name": "input", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}], b"x" * 20), taking(), "4 bytes of the body"),
        (asking([{**tensor([[1] * 4]), "parameters": {"binary_data_size": 16}}], b"x" * 16), taking(), "give one of them"),
        (asking([{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}], b"\xff" * 8), PICTURES, "goes beyond"),
        (asking([{"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 5}}], b"\1\0\0\0x"), PICTURES, "holds 1 elements"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(request_, contract, words):
    with pytest.raises(Refused, match=words.replace("(", r"\(")) as refused:
        decode(request_, contract)
    assert refused.value.status == 400


def answered(prediction, contract, **rest):
    inputs = [tensor([[1.0] * 4])] if contract.form == "array" else [tensor([1.0], "FP64", "length")]
    question = decode(asking(inputs, **rest), contract)
    return encode(question, prediction, contract, Served("fish", "7"))


LOGITS = np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]], np.float32)


def test_an_answer_has_its_tensors_flat():
    response = answered(predict_classes(LOGITS, "logits", ["a", "b", "c"]), taking(), id="x")
    body = json.loads(response.body)
    assert (body["model_name"], body["model_version"], body["id"]) == ("fish", "7", "x")
    label, chances = body["outputs"]
    assert (label["shape"], label["data"]) == ([2], ["b", "a"])
    assert chances["shape"] == [2, 3]
    assert np.allclose(np.reshape(chances["data"], (2, 3)).sum(axis=1), 1)


def test_an_answer_can_be_bytes():
    prediction = predict_classes(LOGITS, "logits", ["a", "b", "c"])
    response = answered(
        prediction,
        taking(),
        outputs=[{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}],
    )
    length = int(response.headers[HEADER_LENGTH])
    head, raw = json.loads(response.body[:length]), response.body[length:]
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 48}
    assert head["outputs"][1]["data"] == ["b", "a"]
    assert np.array_equal(np.frombuffer(raw, "<f8").reshape(2, 3), prediction.probabilities)


def test_all_of_an_answer_can_be_bytes():
    response = answered(
        predict_classes(LOGITS, "logits", ["a", "b", "c"]), taking(), parameters={"binary_data_output": True}
    )
    length = int(response.headers[HEADER_LENGTH])
    assert response.body[length:].startswith(b"\1\0\0\0b\1\0\0\0a")


def test_what_is_not_finite_is_null():
    contract = Contract(
        "t", "other", "array", (TensorSpec("input", "FP32", (-1, 4)),), (TensorSpec("output", "FP32", (-1, 2)),), (4,)
    )
    response = answered(predict_values("other", np.array([[1.0, np.nan]], np.float32), None), contract)
    assert json.loads(response.body)["outputs"][0]["data"] == [1.0, None]
