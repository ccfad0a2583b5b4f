"""What the front asks of a model's process, and the frames in which questions and answers travel."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

__all__ = [
    "HEADER_LENGTH",
    "JSON",
    "Frames",
    "Request",
    "Response",
    "pack",
    "pack_requests",
    "pack_responses",
    "requests_of",
    "responses_of",
]

JSON = "application/json"
HEADER_LENGTH = "inference-header-content-length"
"""Header of the Open Inference Protocol: how many bytes of a body are its JSON, before the tensors' bytes."""

_HEAD = struct.Struct("<IQ")
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_DECODE = json.JSONDecoder().decode
_OFTEN = (b'["ask",', b'["answer",')
"""How heads begin that come with every request. Others are read as Python wrote them: they may hold NaN."""
_MOST_HEAD = 1 << 26


class Request(NamedTuple):
    """A question to a model. As tuples, questions and answers are made in a third of a frozen dataclass's time.

    Parameters
    ----------
    protocol
        Whose form the body has: a name in `ai4sdk.serving.protocols.PROTOCOLS`.
    operation
        What is wanted, in that protocol's words.
    content_type
        Type of the body, lower case, with its parameters.
    body
        The body as it came.
    parameters
        What else a protocol needs: values of headers, of the query, the name of a file.
    """

    protocol: str
    operation: str
    content_type: str
    body: bytes | memoryview
    parameters: dict[str, str] = {}


class Response(NamedTuple):
    """An answer.

    Parameters
    ----------
    status
        As in HTTP: 2xx; 4xx where the request is at fault; 5xx where the model or the server is.
    content_type, body
        What is answered.
    headers
        Headers of the protocol's own.
    by
        Whose answer it is: ``model``, ``version`` and ``run``, as far as they are known; empty for the server's own.
    """

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = {}
    by: Mapping[str, str] = {}


def pack(head: Any, bodies: Iterable[bytes | memoryview] = ()) -> list[bytes | memoryview]:
    """Return the pieces of a frame: lengths, a head in JSON, bodies one after the other."""
    return _framed(_ENCODE(head).encode(), list(bodies))


def _framed(head: bytes, bodies: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    return [_HEAD.pack(len(head), sum(map(len, bodies))) + head, *bodies]


def pack_requests(
    number: int, requests: Sequence[Request], places: Sequence[int | None] | None = None
) -> list[bytes | memoryview]:
    """Return the frame of several requests; the number is repeated in their answer.

    Parameters
    ----------
    number
        Of the batch.
    requests
        The batch.
    places
        Where in shared memory the body of each lies; none for those that go with the frame.
    """
    places = [None] * len(requests) if places is None else places
    heads = [
        (each.protocol, each.operation, each.content_type, len(each.body), each.parameters, place)
        for each, place in zip(requests, places, strict=True)
    ]
    bodies = [each.body for each, place in zip(requests, places, strict=True) if place is None]
    return _framed(orjson.dumps(("ask", number, heads)), bodies)


def requests_of(
    heads: Iterable[Sequence[Any]], body: memoryview, shared: memoryview | None = None
) -> Iterator[Request]:
    """Yield what `pack_requests` packed; bodies are views of the frame's or of shared memory."""
    start = 0
    for protocol, operation, content_type, length, parameters, place in heads:
        if place is None:
            part = body[start : start + length]
            start += length
        else:
            assert shared is not None
            part = shared[place : place + length]
        yield Request(protocol, operation, content_type, part, parameters)


def pack_responses(number: int, responses: Sequence[Response], facts: Mapping[str, Any]) -> list[bytes | memoryview]:
    """Return the frame of several responses, with what was measured of them."""
    heads = [(each.status, each.content_type, len(each.body), each.headers) for each in responses]
    return _framed(orjson.dumps(("answer", number, heads, facts)), [each.body for each in responses])


def responses_of(heads: Iterable[Sequence[Any]], body: memoryview) -> Iterator[Response]:
    """Yield what `pack_responses` packed."""
    start = 0
    for status, content_type, length, headers in heads:
        yield Response(status, content_type, bytes(body[start : start + length]), headers)
        start += length


class Frames:
    """Cuts a stream of bytes into frames.

    A frame of which the length is known is gathered in place, so that a large body is copied once.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._body: bytearray | None = None
        self._filled = 0
        self._length = 0

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[Any, memoryview]]:
        """Take some bytes; yield the frames that are whole now, each as head and body.

        Raises
        ------
        ValueError
            If the bytes are no frames.
        """
        view = memoryview(data)
        while len(view):
            view = self._into_body(view) if self._body is not None else self._into_head(view)
            if self._body is not None and self._filled == len(self._body):
                text, body = bytes(self._head[_HEAD.size :]), memoryview(self._body)
                head = orjson.loads(text) if text.startswith(_OFTEN) else _DECODE(text.decode())
                self._head, self._body, self._filled = bytearray(), None, 0
                yield head, body

    def _into_head(self, view: memoryview) -> memoryview:
        known = len(self._head)
        wanted = _HEAD.size if known < _HEAD.size else _HEAD.size + self._length
        taken = view[: wanted - known]
        self._head += taken
        if known < _HEAD.size <= len(self._head):
            self._length = _HEAD.unpack_from(self._head)[0]
            if self._length > _MOST_HEAD:
                raise ValueError("these bytes are no frame")
        if len(self._head) >= _HEAD.size and len(self._head) == _HEAD.size + self._length:
            self._body = bytearray(_HEAD.unpack_from(self._head)[1])
        return view[len(taken) :]

    def _into_body(self, view: memoryview) -> memoryview:
        assert self._body is not None
        taken = view[: len(self._body) - self._filled]
        self._body[self._filled : self._filled + len(taken)] = taken
        self._filled += len(taken)
        return view[len(taken) :]
