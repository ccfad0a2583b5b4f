"""Where stores say what arrived, and what a monitor may ask: a small ASGI application."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from ai4sdk.serving.events.counters import Counters
from ai4sdk.serving.events.notices import arrivals

__all__ = ["SLOW", "Endpoint"]

log = logging.getLogger("ai4sdk.serving.events")

_LARGEST = 2**20
SLOW = 15.0
"""Seconds in which a request has to be here."""
Message = MutableMapping[str, Any]


class Endpoint:
    """``POST /events`` takes notifications; ``GET /metrics`` and ``GET /health`` tell how it goes.

    Parameters
    ----------
    watched
        Bucket and prefix, where the input is of a kind that sends notifications.
    offer
        Takes keys that may have arrived; returns how many of them are wanted.
    counters
        Numbers to keep and to show.
    token
        What stores must show as ``Authorization: Bearer TOKEN``; nothing lets everybody send hints.
    """

    def __init__(
        self,
        watched: tuple[str, str] | None,
        offer: Callable[[list[str]], int],
        counters: Counters,
        token: str | None = None,
    ) -> None:
        self._watched, self._offer, self._counters, self._token = watched, offer, counters, token

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        route = (scope["method"], scope["path"])
        if route == ("GET", "/health"):
            await _answer(send, 200, {"status": "live"})
        elif route == ("GET", "/metrics"):
            text = "\n".join([*self._counters.lines(), ""])
            await _answer(send, 200, text, "text/plain; version=0.0.4")
        elif route == ("POST", "/events") and self._watched is not None:
            await self._take(*self._watched, scope, receive, send)
        elif scope["path"] in ("/metrics", "/health") or (scope["path"] == "/events" and self._watched is not None):
            await _answer(send, 405, {"error": f"{scope['path']} is not for {scope['method']}"})
        else:
            known = "/health and /metrics" if self._watched is None else "/events, /health and /metrics"
            await _answer(send, 404, {"error": f"there are {known}"})

    async def _take(self, bucket: str, prefix: str, scope: Message, receive: Any, send: Any) -> None:
        if self._token is not None and not _shows(scope["headers"], self._token):
            await self._refuse(send, 401, "a bearer token is needed", [(b"www-authenticate", b"Bearer")])
            return
        body = bytearray()
        try:
            async with asyncio.timeout(SLOW):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    if len(body) > _LARGEST or not message.get("more_body"):
                        break
        except TimeoutError:
            await self._refuse(send, 408, f"an event is here within {SLOW:g} s")
            return
        if len(body) > _LARGEST:
            await self._refuse(send, 413, f"an event has at most {_LARGEST} bytes")
            return
        try:
            keys = arrivals(bytes(body), bucket, prefix)
        except ValueError as error:
            log.warning("a notification is refused: %s", error)
            await self._refuse(send, 400, str(error))
            return
        self._counters.notifications += 1
        await _answer(send, 200, {"wanted": self._offer(keys)})

    async def _refuse(self, send: Any, status: int, why: str, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._counters.notifications_refused += 1
        await _answer(send, status, {"error": why}, more=more)


def _shows(headers: Iterable[tuple[bytes, bytes]], token: str) -> bool:
    for name, value in headers:
        if name.lower() == b"authorization":
            kind, _, shown = value.partition(b" ")
            return kind.lower() == b"bearer" and hmac.compare_digest(shown.strip(), token.encode())
    return False


async def _answer(
    send: Callable[[Message], Awaitable[None]],
    status: int,
    body: Any,
    kind: str = "application/json",
    more: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(data)).encode()),
        (b"connection", b"close"),  # or what a client still sends would keep its place, and others out
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
