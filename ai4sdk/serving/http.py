"""uvicorn's HTTP, with an end to clients that never finish the head of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HttpProtocol"]


class HttpProtocol(HttpToolsProtocol):
    """Closes a connection whose first request, or the rest of a head that began, does not come in time."""

    slow: float = 15.0
    """Seconds."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._watch = self.loop.call_later(self.slow, transport.close)

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        super().on_message_begin()
        if self._watch is None:
            self._watch = self.loop.call_later(self.slow, self.transport.close)

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().on_headers_complete()

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
