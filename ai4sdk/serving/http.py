"""uvicorn's HTTP, with an end to clients that never finish the head of a request, and less to do for each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["WHOLE", "BehindProxies", "HttpProtocol"]

WHOLE = "ai4sdk.whole"
"""Key of the scope of a request that is there with all of its body, so that nothing of it is waited for."""

_CONTINUE = b"HTTP/1.1 100 "


class _Whole:
    """Sends the head of an answer with the beginning of its body: in one call of the system and one packet, not two."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None  # empty once it is sent

    def write(self, data: bytes) -> None:
        """Keep the head, which uvicorn writes first, until what follows it."""
        if self._head:
            self._transport.writelines((self._head, data))
            self._head = b""
        elif self._head is None and not data.startswith(_CONTINUE):
            self._head = data
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        if self._head:
            self.write(b"")
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpProtocol(HttpToolsProtocol):
    """Closes a connection whose first request, or the rest of a head that began, does not come in time."""

    slow: float = 15.0
    """Seconds."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._watch: asyncio.TimerHandle | None = None
        self._begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._watch = self.loop.call_later(self.slow, transport.close)

    def data_received(self, data: bytes) -> None:
        """Begin to wait for the rest of a head, if that is not there, too."""
        super().data_received(data)
        if self._begun and self._watch is None:
            self._watch = self.loop.call_later(self.slow, self.transport.close)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._begun = True

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._begun = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope["method"] != "HEAD":  # which is answered with a head alone
            self.cycle.transport = _Whole(self.cycle.transport)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        """A body is whole."""
        self.scope[WHOLE] = True  # type: ignore[literal-required]
        super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that has said all it had to, until it is answered."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)


class BehindProxies:
    """Has uvicorn read what proxies say of the client of a request, where they say something.

    uvicorn alone looks at every request's address, whether it is a proxy's that is trusted: a sixth of all that is done
    for a small one. Trusted are the addresses in ``FORWARDED_ALLOW_IPS``, as with uvicorn; by default this machine's.

    Parameters
    ----------
    app
        Answers requests, by ASGI 3.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._behind = ProxyHeadersMiddleware(app, os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"))

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Answer a request."""
        for name, _ in scope["headers"]:
            if name.startswith(b"x-forwarded-"):
                return self._behind(scope, receive, send)
        answered: Awaitable[None] = self._app(scope, receive, send)
        return answered
