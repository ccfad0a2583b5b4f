"""One model process, and the line to it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai4sdk.errors import EnvironmentFault
from ai4sdk.processes import die_with_parent
from ai4sdk.serving.messages import Frames, Request, Response, pack, pack_requests, responses_of
from ai4sdk.serving.shared import Slab

__all__ = ["Link", "Spawned", "spawn"]


@dataclass(frozen=True)
class Spawned:
    """A process that has been started, this end of the line to it, and the memory it shares with us."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    slab: Slab


def spawn() -> Spawned:
    """Start a model process. It imports what it needs while it waits to be told what to load.

    Raises
    ------
    EnvironmentFault
        If the system has no process, memory or descriptor left.
    """
    with contextlib.ExitStack() as unless_started:
        try:
            ours, theirs = socket.socketpair()
            unless_started.callback(ours.close)
            with theirs:
                slab = Slab()
                unless_started.callback(slab.close)
                passed = (theirs.fileno(), slab.descriptor)
                process = subprocess.Popen(
                    [sys.executable, "-m", "ai4sdk.serving.process", *map(str, passed)],
                    pass_fds=passed,
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),  # what a module prints is no answer
                    preexec_fn=die_with_parent(signal.SIGKILL),
                )
        except OSError as error:
            raise EnvironmentFault(
                f"a model process cannot be started: {error.strerror or error}",
                hint="look at `ulimit -a` and free memory",
            ) from error
        unless_started.pop_all()
    return Spawned(process, ours, slab)


class Link(asyncio.Protocol):
    """Asks a model process, and hears its answers.

    Parameters
    ----------
    spawned
        The process.
    answered
        Called with the number of a batch, its responses and what was measured.
    gone
        Called once, when the process has ended or closed the line.
    """

    def __init__(
        self,
        spawned: Spawned,
        answered: Callable[[Link, int, list[Response], Mapping[str, Any]], None],
        gone: Callable[[Link], None],
    ) -> None:
        self.process = spawned.process
        self._line = spawned.line
        self._slab = spawned.slab
        self._answered = answered
        self._gone = gone
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._told: asyncio.Future[Any] | None = None
        self._ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def load(self, settings: Mapping[str, Any], shared: socket.socket | None = None) -> dict[str, Any]:
        """Have a model loaded; return what its process says of it.

        Parameters
        ----------
        settings
            What, and how.
        shared
            A socket that the process is to have, too.

        Raises
        ------
        ConnectionError
            If the process ended instead.
        """
        self._line.setblocking(False)
        frame = b"".join(pack(["load", dict(settings)]))
        if shared is not None:
            frame = frame[socket.send_fds(self._line, [frame], [shared.fileno()]) :]
        await asyncio.get_running_loop().create_connection(lambda: self, sock=self._line)
        assert self._transport is not None
        self._transport.write(frame)
        return await self._ready

    def ask(self, number: int, requests: Sequence[Request]) -> None:
        """Ask several things at once; of what was asked before at most one batch is unanswered."""
        assert self._transport is not None
        self._transport.writelines(pack_requests(number, requests, self._slab.put(requests)))

    async def tell(self) -> Any:
        """Return what the process says of drift, when it has answered what it was asked before; nothing if it ends."""
        assert self._transport is not None
        self._told = asyncio.get_running_loop().create_future() if self._told is None else self._told
        self._transport.writelines(pack(["tell", 0]))
        return await asyncio.shield(self._told)

    def kill(self) -> None:
        """End the process at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Let the process end: it answers what it has, and sees the line closed."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._line.close()
            self._slab.close()

    async def ended(self) -> int:
        """Wait for the process's end; return its status as `subprocess` tells it."""
        return await asyncio.get_running_loop().run_in_executor(None, self.process.wait)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        for head, body in self._frames.feed(data):
            if head[0] == "ready":
                self._ready.set_result(head[1])
            elif head[0] == "told":
                if self._told is not None:
                    self._told.set_result(head[2])
                    self._told = None
            else:
                self._answered(self, head[1], list(responses_of(head[2], body)), head[3])

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._slab.close()
        if self._told is not None:
            self._told.set_result(None)
            self._told = None
        if not self._ready.done():
            self._ready.set_exception(ConnectionError("the model's process ended while it loaded"))
        self._gone(self)
