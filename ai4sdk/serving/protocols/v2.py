"""The Open Inference Protocol, version 2, over REST, with the extension for binary tensors.

Sources: the protocol's REST specification (kserve/open-inference-protocol) and Triton's "binary tensor data
extension": a body is JSON, whose length the header ``Inference-Header-Content-Length`` gives, and then the bytes of the
tensors whose parameter ``binary_data_size`` says how many are theirs, in their order.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ai4sdk.serving.contract import LABEL, MEDIA, PROBABILITIES, Contract, TensorSpec
from ai4sdk.serving.messages import HEADER_LENGTH, JSON, Request, Response
from ai4sdk.serving.question import Question, Refused, Served, loads
from ai4sdk.worker.prediction import Prediction

__all__ = ["HEADER_LENGTH", "decode", "encode"]

OCTETS = "application/octet-stream"

_TYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
        "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    }.items()
}  # fmt: skip
"""Datatype → how its bytes lie, little-endian; ``BYTES`` is told apart."""

_LENGTH = struct.Struct("<I")


def decode(request: Request, contract: Contract) -> Question:
    """Read an inference request."""
    head, rest = _parts(request)
    if not isinstance(head, dict) or not isinstance(head.get("inputs"), list) or not head["inputs"]:
        raise Refused(400, 'a request has "inputs", a list of tensors')
    arrays: dict[str, NDArray[Any]] = {}
    for given in head["inputs"]:
        name, array, rest = _tensor(given, rest)
        if name in arrays:
            raise Refused(400, f"there are two inputs {name!r}")
        arrays[name] = array
    if len(rest):
        raise Refused(400, f"{len(rest)} bytes of the body belong to no tensor")
    identity = head.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Refused(400, "the id of a request is text")
    wanted = {"id": identity, "outputs": _wanted_outputs(head, contract)}
    return Question(_samples(arrays, contract), wanted)


def encode(question: Question, prediction: Prediction, contract: Contract, served: Served) -> Response:
    """Write an inference response."""
    outputs: list[dict[str, Any]] = []
    bodies: list[bytes] = []
    for spec, binary in question.wanted["outputs"]:
        array = _output(spec, prediction)
        head: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        if binary:
            data = _bytes_of(array, spec.datatype)
            head["parameters"] = {"binary_data_size": len(data)}
            bodies.append(data)
        else:
            head["data"] = _flat(array)
        outputs.append(head)
    head = {"model_name": served.name, "model_version": served.version, "outputs": outputs}
    if question.wanted["id"] is not None:
        head["id"] = question.wanted["id"]
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not bodies:
        return Response(200, JSON, text)
    return Response(200, OCTETS, b"".join([text, *bodies]), {HEADER_LENGTH: str(len(text))})


def _parts(request: Request) -> tuple[Any, memoryview]:
    """Divide a body into its JSON and the tensors' bytes."""
    body = memoryview(request.body)
    length = request.parameters.get(HEADER_LENGTH)
    if length is None:
        return loads(body), body[:0]
    if not (length.isascii() and length.isdigit()) or len(length) > 12 or int(length) > len(body):
        raise Refused(400, f"the header {HEADER_LENGTH} is {length[:20]!r}; the body has {len(body)} bytes")
    return loads(body[: int(length)]), body[int(length) :]


def _tensor(given: Any, rest: memoryview) -> tuple[str, NDArray[Any], memoryview]:
    """Read one tensor; return what is left of the bytes, too."""
    if not isinstance(given, dict):
        raise Refused(400, "an input is a mapping with name, datatype, shape and data")
    name, datatype, shape = given.get("name"), given.get("datatype"), given.get("shape")
    if not isinstance(name, str):
        raise Refused(400, "an input has no name")
    if not isinstance(datatype, str) or (datatype not in _TYPES and datatype != "BYTES"):
        raise Refused(400, f"input {name!r} has the datatype {datatype!r}; there are {', '.join(_TYPES)}, BYTES")
    if not isinstance(shape, list) or not shape or not all(type(length) is int and length >= 0 for length in shape):
        raise Refused(400, f"input {name!r} has no shape: a list of whole numbers, the first that of samples")
    count = math.prod(shape)
    size = (given.get("parameters") or {}).get("binary_data_size") if _is_mapping(given, "parameters", name) else None
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(rest):
            raise Refused(400, f"input {name!r} has binary_data_size {size!r}; {len(rest)} bytes are left")
        if "data" in given:
            raise Refused(400, f"input {name!r} has data and binary_data_size; give one of them")
        array = _from_bytes(rest[:size], datatype, count, name)
        return name, _shaped(array, shape, name), rest[size:]
    if not isinstance(given.get("data"), list):
        raise Refused(400, f"input {name!r} has no data: a list, flat or nested")
    parameters = given.get("parameters") or {}
    array = _from_list(given["data"], datatype, count, name, parameters.get("content_type"))
    return name, _shaped(array, shape, name), rest


def _shaped(array: NDArray[Any], shape: list[int], name: str) -> NDArray[Any]:
    try:
        return array.reshape(shape)
    except ValueError:  # no elements, and axes that nothing could fill
        raise Refused(400, f"input {name!r} has a shape that is too large") from None


def _is_mapping(given: Mapping[str, Any], key: str, name: str) -> bool:
    if given.get(key) is not None and not isinstance(given[key], dict):
        raise Refused(400, f"the {key} of {name!r} are no mapping")
    return True


def _from_bytes(data: memoryview, datatype: str, count: int, name: str) -> NDArray[Any]:
    if datatype == "BYTES":
        return _elements(data, count, name)
    dtype = _TYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise Refused(
            400, f"input {name!r} has {len(data)} bytes; its shape and datatype need {count * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype, count)


def _elements(data: memoryview, count: int, name: str) -> NDArray[Any]:
    """Read elements of any length, each after its length in four bytes."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data) or at + 4 + (length := _LENGTH.unpack_from(data, at)[0]) > len(data):
            raise Refused(400, f"input {name!r}: element {len(found) + 1} goes beyond the tensor's bytes")
        found.append(bytes(data[at + 4 : at + 4 + length]))
        at += 4 + length
    if len(found) != count:
        raise Refused(400, f"input {name!r} holds {len(found)} elements; its shape is one of {count}")
    return _objects(found)


def _from_list(data: list[Any], datatype: str, count: int, name: str, content_type: Any) -> NDArray[Any]:
    if datatype == "BYTES":
        return _texts(data, count, name, content_type)
    try:
        array = np.asarray(data)
        if array.size == 0:
            array = array.astype(_TYPES[datatype])
    except ValueError:
        raise Refused(400, f"input {name!r}: its lists are of different lengths") from None
    if array.size != count:
        raise Refused(400, f"input {name!r} holds {array.size} numbers; its shape needs {count}")
    dtype = _TYPES[datatype]
    if dtype.kind == "u" and array.dtype.kind == "f":  # numpy reads numbers beyond INT64 beside smaller ones so
        array = _whole(data, array)
    if array.dtype.kind not in ("b" if dtype.kind == "b" else "iu" if dtype.kind in "iu" else "iuf"):
        raise Refused(400, f"input {name!r} holds values that are no {datatype}")
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise Refused(400, f"input {name!r} holds numbers beyond {datatype}")
    with np.errstate(over="ignore"):  # too large for FP16 or FP32 is infinite, which the model refuses by name
        return array.astype(dtype, copy=False).reshape(-1)


def _whole(data: list[Any], array: NDArray[Any]) -> NDArray[Any]:
    """Read whole numbers up to the largest of UINT64; what holds others is left as it is."""
    exact = np.asarray(data, object).reshape(-1)
    if not all(type(one) is int and 0 <= one < 2**64 for one in exact):
        return array
    return exact.astype(np.uint64)


def _texts(data: list[Any], count: int, name: str, content_type: Any) -> NDArray[Any]:
    flat: list[Any] = []
    pending = [iter(data)]
    while pending:
        for one in pending[-1]:
            if isinstance(one, list):
                pending.append(iter(one))
                break
            flat.append(one)
        else:
            pending.pop()
    if len(flat) != count:
        raise Refused(400, f"input {name!r} holds {len(flat)} elements; its shape is one of {count}")
    if not all(isinstance(one, str) for one in flat):
        raise Refused(400, f"input {name!r} holds elements that are no text")
    if content_type != "base64":
        return _objects([one.encode() for one in flat])
    try:
        return _objects([base64.b64decode(one, validate=True) for one in flat])
    except (binascii.Error, ValueError):
        raise Refused(400, f"input {name!r} holds text that is no base64") from None


def _objects(elements: Sequence[bytes]) -> NDArray[Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def _samples(arrays: Mapping[str, NDArray[Any]], contract: Contract) -> Any:
    """Bring named tensors into samples as the model takes them."""
    if contract.form == "table":
        return _records(arrays, contract)
    if len(arrays) != 1:
        raise Refused(400, f"the model takes one input, {contract.inputs[0].name!r}; there are {len(arrays)}")
    (name, array) = next(iter(arrays.items()))
    if name != contract.inputs[0].name:
        raise Refused(400, f"there is no input {name!r}; the model takes {contract.inputs[0].name!r}")
    if contract.form in MEDIA:
        if array.dtype == object:
            return list(array.reshape(-1))
        return _pictures(array, name) if contract.form == "images" else _recordings(array, name)
    if array.dtype == object:
        raise Refused(400, f"input {name!r} is of BYTES; the model takes {contract.inputs[0].datatype}")
    return array


def _pictures(array: NDArray[Any], name: str) -> list[NDArray[Any]]:
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise Refused(
            400,
            f"input {name!r} is of {array.dtype} and {array.ndim} axes; give BYTES (encoded pictures), or UINT8 of the "
            "shape (samples, height, width) or (samples, height, width, 3)",
        )
    return list(array)


def _recordings(array: NDArray[Any], name: str) -> list[NDArray[Any]]:
    if array.dtype not in (np.int16, np.float32) or not (array.ndim == 2 or (array.ndim == 3 and array.shape[1] == 1)):
        raise Refused(
            400,
            f"input {name!r} is of {array.dtype} and {array.ndim} axes; give BYTES (encoded recordings), or INT16 or "
            "FP32 (from -1 to 1) of the shape (recordings, samples) or (recordings, 1, samples)",
        )
    return list(array)


def _records(arrays: Mapping[str, NDArray[Any]], contract: Contract) -> Any:
    known = contract.columns
    if len(arrays) == 1 and next(iter(arrays)) not in known:
        rows = next(iter(arrays.values()))
        if rows.ndim == 2 and rows.shape[1] == len(known) and rows.dtype != object:
            return rows.tolist()  # all columns in their order
    if unknown := next((name for name in arrays if name not in known), None):
        raise Refused(400, f"there is no input {unknown!r}; the columns are {', '.join(known[:20])}")
    if missing := [name for name in known if name not in arrays]:
        raise Refused(400, f"the input {missing[0]!r} is missing; all columns are needed: {', '.join(known[:20])}")
    columns: list[list[Any]] = []
    for name in known:
        array = arrays[name]
        if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1):
            raise Refused(
                400, f"input {name!r} has the shape {list(array.shape)}; give one value a sample: [N] or [N, 1]"
            )
        columns.append([_cell(value, name) for value in array.reshape(-1).tolist()])
    if len({len(column) for column in columns}) > 1:
        raise Refused(400, "the inputs are not of one length; give one value a sample in each")
    return [list(row) for row in zip(*columns, strict=True)]


def _cell(value: Any, name: str) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused(400, f"input {name!r} holds bytes that are no UTF-8 text") from None


def _wanted_outputs(head: Mapping[str, Any], contract: Contract) -> list[tuple[TensorSpec, bool]]:
    """Return the outputs that are asked for, each with whether it shall be binary."""
    parameters = head.get("parameters") or {}
    every = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    asked = head.get("outputs")
    if asked is None:
        return [(spec, every) for spec in contract.outputs]
    if not isinstance(asked, list) or not asked or not all(isinstance(one, dict) for one in asked):
        raise Refused(400, '"outputs" is a list of mappings with a name')
    specs = {spec.name: spec for spec in contract.outputs}
    wanted = []
    for one in asked:
        if not isinstance(one.get("name"), str) or one["name"] not in specs:
            raise Refused(400, f"there is no output {one.get('name')!r}; there are {', '.join(specs)}")
        own = one.get("parameters") or {}
        binary = own.get("binary_data", every) if isinstance(own, dict) else every
        wanted.append((specs[one["name"]], binary is True))
    return wanted


def _output(spec: TensorSpec, prediction: Prediction) -> NDArray[Any]:
    if spec.name == LABEL:
        assert prediction.labels is not None
        return prediction.labels
    if spec.name == PROBABILITIES:
        assert prediction.probabilities is not None
        return prediction.probabilities
    return np.asarray(prediction.values, _TYPES[spec.datatype])


def _flat(array: NDArray[Any]) -> Any:
    """Return the values in row-major order, for JSON; what is not finite becomes null."""
    return array.tolist() if array.dtype.kind == "U" else np.ascontiguousarray(array).reshape(-1)


def _bytes_of(array: NDArray[Any], datatype: str) -> bytes:
    if datatype != "BYTES":
        return np.ascontiguousarray(array, _TYPES[datatype]).tobytes()
    texts = [str(text).encode() for text in array.reshape(-1)]
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
