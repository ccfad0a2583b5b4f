"""A line of JSON for each request."""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime
from typing import IO, Any

import orjson

__all__ = ["AccessLog"]

_EVERY = 0.2
_MOST = 50
"""Lines that are written at once: while more are, no request is answered."""


class AccessLog:
    """Writes lines a few times a second, so that no request waits for a disk or a terminal.

    Parameters
    ----------
    stream
        Where to write.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: list[tuple[float, dict[str, Any]]] = []
        self._due: asyncio.TimerHandle | None = None

    def add(self, time: float, line: dict[str, Any]) -> None:
        """Note a request.

        Parameters
        ----------
        time
            When it came, in seconds since 1970.
        line
            What is said of it.
        """
        self._lines.append((time, line))
        if len(self._lines) >= _MOST:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(_EVERY, self.flush)

    def flush(self) -> None:
        """Write what is there. A stream that takes no more (a full disk, a closed pipe) loses lines, nothing else."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        lines, self._lines = self._lines, []
        text = b"".join(
            orjson.dumps({"time": _text(time), **line}, option=orjson.OPT_APPEND_NEWLINE) for time, line in lines
        ).decode()
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return


def _text(time: float) -> str:
    second, rest = divmod(time, 1)
    return f"{_second(second)}.{int(rest * 1000):03d}+00:00"


@functools.lru_cache(maxsize=2)
def _second(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S")
