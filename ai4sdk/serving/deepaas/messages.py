"""An HTTP request, as far as the API looks at it, and answers to it. Any server can make the one and send the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ai4sdk.serving.messages import JSON, Response

__all__ = ["JSON_TEXT", "HttpRequest", "answer_json", "complaint", "no_body"]

JSON_TEXT = "application/json; charset=utf-8"
"""What DEEPaaS calls its JSON, other than that of errors."""


async def no_body() -> AsyncIterator[bytes]:
    """Yield nothing."""
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


@dataclass(frozen=True)
class HttpRequest:
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


def answer_json(value: Any, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(status, JSON_TEXT if status == 200 else JSON, json.dumps(value).encode())


def complaint(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that says why there is no better one."""
    return Response(status, JSON_TEXT, json.dumps({"message": message}).encode(), headers or {})
