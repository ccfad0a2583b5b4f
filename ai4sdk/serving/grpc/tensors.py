"""Between the tensors of gRPC's messages and those of the REST form with bytes, which the models' processes read."""

from __future__ import annotations

import json
import struct
import sys
from array import array
from typing import Any

from ai4sdk.serving.grpc.messages import message
from ai4sdk.serving.messages import HEADER_LENGTH, Request, Response

__all__ = ["Unreadable", "request_of", "response_of"]


_CONTENTS = {
    "BOOL": ("bool_contents", "B"), "INT8": ("int_contents", "b"), "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"), "INT64": ("int64_contents", "q"), "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"), "UINT32": ("uint_contents", "I"), "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"), "FP64": ("fp64_contents", "d"),
}  # fmt: skip
"""Datatype → the field that holds its numbers, and how `array` calls them. FP16 and BYTES have none here."""

_LENGTH = struct.Struct("<I")


class Unreadable(Exception):
    """A request that holds together in no way."""


def request_of(asked: Any) -> Request:
    """Return a ``ModelInferRequest`` in the REST form.

    Raises
    ------
    Unreadable
        If its tensors and their contents do not belong together.
    """
    raw = list(asked.raw_input_contents)
    if raw and len(raw) != len(asked.inputs):
        raise Unreadable(f"there are {len(asked.inputs)} inputs and {len(raw)} raw_input_contents")
    inputs, bodies = [], []
    for number, given in enumerate(asked.inputs):
        if raw and given.HasField("contents"):
            raise Unreadable(f"input {given.name!r} has contents and raw_input_contents; give one of them")
        body = raw[number] if raw else _bytes_of(given)
        bodies.append(body)
        tensor = {"name": given.name, "datatype": given.datatype, "shape": list(given.shape)}
        inputs.append({**tensor, "parameters": {"binary_data_size": len(body)}})
    head: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if asked.outputs:
        head["outputs"] = [{"name": output.name} for output in asked.outputs]
    if asked.id:
        head["id"] = asked.id
    text = json.dumps(head).encode()
    return Request(
        "v2", "infer", "application/octet-stream", b"".join([text, *bodies]), {HEADER_LENGTH: str(len(text))}
    )


def response_of(response: Response, *, raw: bool) -> Any:
    """Return an answer of the REST form as a ``ModelInferResponse``.

    Parameters
    ----------
    response
        The answer, all tensors of it as bytes.
    raw
        Whether the tensors shall be bytes here, too, as they were in the request.
    """
    length = int(response.headers[HEADER_LENGTH])
    head, rest = json.loads(response.body[:length]), response.body[length:]
    answer = message("ModelInferResponse")(
        model_name=head["model_name"], model_version=head["model_version"], id=head.get("id", "")
    )
    for output in head["outputs"]:
        size = output["parameters"]["binary_data_size"]
        body, rest = rest[:size], rest[size:]
        made = answer.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        if raw:
            answer.raw_output_contents.append(body)
        else:
            _fill(made.contents, output["datatype"], body)
    return answer


def _bytes_of(given: Any) -> bytes:
    if given.datatype == "BYTES":
        return b"".join(_LENGTH.pack(len(one)) + one for one in given.contents.bytes_contents)
    if given.datatype not in _CONTENTS:
        raise Unreadable(f"input {given.name!r} of {given.datatype[:20]!r} needs raw_input_contents")
    field, code = _CONTENTS[given.datatype]
    try:
        numbers = array(code, getattr(given.contents, field))
    except OverflowError:
        raise Unreadable(f"input {given.name!r} holds numbers beyond {given.datatype}") from None
    return _little_endian(numbers).tobytes()


def _fill(contents: Any, datatype: str, body: bytes) -> None:
    if datatype == "BYTES":
        at = 0
        while at < len(body):
            length = _LENGTH.unpack_from(body, at)[0]
            contents.bytes_contents.append(body[at + 4 : at + 4 + length])
            at += 4 + length
        return
    field, code = _CONTENTS[datatype]
    numbers = array(code)
    numbers.frombytes(body)
    getattr(contents, field).extend(_little_endian(numbers))


def _little_endian(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
