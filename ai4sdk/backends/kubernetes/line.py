"""The line between two pods of a run: objects of JSON, one a line."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

__all__ = ["Line"]

_LONGEST = 2**20
"""Bytes of a message; whoever sends a longer one is no pod of ours."""
_NOTICED = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""Seconds until a silent line is tried, seconds between tries, and how many: a lost machine does not hang up."""


class Line:
    """One end of a line.

    Parameters
    ----------
    connection
        A connected socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _NOTICED.items():
            if number := getattr(socket, name, None):  # not every system has them
                connection.setsockopt(socket.IPPROTO_TCP, number, value)

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait for it."""
        return self._socket.fileno()

    @property
    def here(self) -> str:
        """This end's address, as the other end reaches it."""
        return str(self._socket.getsockname()[0])

    def send(self, **message: Any) -> None:
        """Send a message; where nobody listens any more, `receive` says so."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Return what has come by now; ``None`` once the other end is gone."""
        try:
            data = self._socket.recv(2**16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > _LONGEST:
            return None
        try:
            messages = [json.loads(line) for line in whole]
        except ValueError:
            return None
        return messages if all(isinstance(message, dict) for message in messages) else None

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
