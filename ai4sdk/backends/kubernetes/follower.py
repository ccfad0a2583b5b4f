"""What the pods of a run do beside pod 0: they call it, start ranks when it says so, and end as the run does."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ai4sdk.backends.agent import End, Node, Ranks
from ai4sdk.backends.kubernetes.line import Line
from ai4sdk.runs.files import read_json
from ai4sdk.runs.state import RunState

__all__ = ["Place", "follow"]

_AGAIN = (None, 5, 130)
"""How a task ends that is to begin again, with all of its pods: pod 0 is gone, or it was stopped."""
_POLL = 0.1
"""Seconds between two looks at the ranks of this pod."""
_CALL = 1.0
"""Seconds between two calls of a pod that is not there yet, and longest time until it answers one."""
_LAST_WORD = 120.0
"""Longest time, in seconds, until what pod 0 wrote at the end of the run is seen here."""


@dataclass(frozen=True)
class Place:
    """Which pod this is.

    Parameters
    ----------
    number, count
        Its number, and how many there are.
    leader
        ``HOST:PORT`` of pod 0.
    job
        Name of the Job.
    """

    number: int
    count: int
    leader: str
    job: str


def follow(
    place: Place, ranks: Ranks, *, ended: Callable[[], RunState | None], echo: Callable[[], None]
) -> RunState | None:
    """Do the part of this pod in a task; return how the run ended, ``None`` if this pod is to be made anew for it.

    Parameters
    ----------
    place
        Which pod this is.
    ranks
        The workers in this pod.
    ended
        Returns how the run ended, ``None`` before.
    echo
        Prints what the ranks have printed since the last time.
    """
    follower = _Follower(place, ranks, echo)
    line = follower.call(ended)
    if not isinstance(line, Line):
        return line
    status = follower.work(line)
    if status in _AGAIN:
        return ended()
    # Pod 0 says so a moment before the run has ended. Were it lost in between, another pod 0 would need this one.
    deadline = time.monotonic() + _LAST_WORD
    while (state := ended()) is None and time.monotonic() < deadline:
        time.sleep(_POLL)
    return state


class _Follower:
    def __init__(self, place: Place, ranks: Ranks, echo: Callable[[], None]) -> None:
        self._place, self._ranks, self._echo = place, ranks, echo
        self._terminated = self._started = self._told = False
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _terminate(self, *_: object) -> None:
        self._terminated = True

    def call(self, ended: Callable[[], RunState | None]) -> Line | RunState | None:
        """Call pod 0 until it answers; return the line, or how the run has ended by then."""
        host, _, port = self._place.leader.rpartition(":")
        while True:
            if self._terminated:
                return None
            if (state := ended()) is not None:
                return state
            try:
                line = Line(socket.create_connection((host, int(port)), timeout=_CALL))
            except OSError:  # its name is not known before it has begun
                time.sleep(_CALL)
                continue
            line.send(hello={"job": self._place.job, "node": self._place.number})
            return line

    def work(self, line: Line) -> int | None:
        """Do what pod 0 says until the task is over; return its status, or ``None`` if pod 0 is gone."""
        try:
            while True:
                select.select([line], [], [], _POLL)
                for end in self._ranks.poll():
                    line.send(ended=[end.rank, end.status], failure=self._failure(end))
                self._echo()
                if self._terminated and not self._started:
                    return None
                if self._terminated and not self._told:
                    line.send(stopping=True)
                    self._tell()
                messages = line.receive()
                if messages is None:
                    return None
                for message in messages:
                    if "over" in message:
                        return int(message["over"])
                    self._obey(message)
        finally:
            self._ranks.kill()
            self._echo()
            line.close()

    def _obey(self, message: dict[str, Any]) -> None:
        if start := message.get("start"):
            self._started = True
            self._ranks.start(Node(self._place.number, self._place.count, start["address"], int(start["port"])), None)
        if message.get("stop"):
            self._tell()
        if message.get("kill"):
            self._ranks.kill()

    def _tell(self) -> None:
        """Tell the ranks to stop, once: they take a second time for haste."""
        if not self._told:
            self._told = True
            self._ranks.tell()

    def _failure(self, end: End) -> dict[str, Any] | None:
        """Return what a rank wrote of its failure; the folder is shared, and seen late by others."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            failure = read_json(self._ranks.run.failure)
            if end.status and failure["rank"] == end.rank:
                return dict(failure)
        return None
