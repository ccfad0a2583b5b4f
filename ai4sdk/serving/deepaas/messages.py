"""An HTTP request and its answer, as far as the API looks at them. A server of any kind makes the one of the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Request", "Response", "answer_json", "complaint", "no_body"]

JSON = "application/json; charset=utf-8"


async def no_body() -> AsyncIterator[bytes]:
    """Yield nothing."""
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


@dataclass(frozen=True)
class Request:
    """A request.

    Parameters
    ----------
    method
        Its method.
    path
        Its path, decoded.
    query
        What follows the question mark, not decoded.
    headers
        Its header fields by lower-case name.
    body
        Its body, as it comes.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: AsyncIterator[bytes] = field(default_factory=no_body)

    @property
    def content_type(self) -> str:
        """What its body is."""
        return self.headers.get("content-type", "")


@dataclass(frozen=True)
class Response:
    """An answer.

    Parameters
    ----------
    status
        The HTTP status.
    content_type
        What the body is; empty if there is none.
    body
        The body.
    headers
        Further header fields.
    """

    status: int
    content_type: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer_json(value: Any, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(status, JSON if status == 200 else "application/json", json.dumps(value).encode())


def complaint(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that says why there is no better one."""
    return Response(status, JSON, json.dumps({"message": message}).encode(), headers or {})
