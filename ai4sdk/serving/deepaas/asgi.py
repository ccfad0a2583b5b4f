"""The API as an ASGI application of its own, for tests and for a server that serves nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from ai4sdk.serving.deepaas.api import Api
from ai4sdk.serving.deepaas.messages import HttpRequest
from ai4sdk.serving.messages import Response

__all__ = ["Application", "ClientGone", "request_of"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ClientGone(Exception):
    """The client has closed the connection before its request was whole."""


class Application:
    """An ASGI application.

    Parameters
    ----------
    api
        What answers.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        with contextlib.suppress(ClientGone):
            await _send(await self._api.handle(request_of(scope, receive)), send)


def request_of(scope: Scope, receive: Receive) -> HttpRequest:
    """Return what ASGI says of a request."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return HttpRequest(
        scope["method"], scope["path"], scope.get("query_string", b"").decode("latin-1"), headers, _chunks(receive)
    )


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def _send(response: Response, send: Send) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers.items()]
    if response.content_type:
        headers.append((b"content-type", response.content_type.encode("latin-1")))
    headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
