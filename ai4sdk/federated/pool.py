"""A rehearsal in several processes, each of which answers for whichever site is next."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from ai4sdk.federated.inline import InlineGrid, answered, failed
from ai4sdk.processes import die_with_parent
from ai4sdk.worker.failures import one_line
from ai4sdk.worker.signals import StopRequest

__all__ = ["PoolGrid"]

_LOOK = 0.2
"""Seconds between two looks at whether to stop."""


@dataclass
class _Process:
    """One that is forked from this process, and what it was asked last."""

    pid: int
    connection: Connection
    asked: Message | None = None


class PoolGrid(InlineGrid):
    """Hands messages to processes that are forked from this one, so that data and imports are shared with it.

    This process must have computed with one thread only: a library's pool of threads does not survive a fork.

    Parameters
    ----------
    app, sites
        See `InlineGrid`.
    processes
        How many.
    stop
        Asked while answers are waited for.
    """

    def __init__(self, app: ClientApp, sites: Iterable[str], processes: int, stop: StopRequest) -> None:
        super().__init__(app, sites)
        self._stop = stop
        self._processes: list[_Process] = []
        self._count = min(processes, len(self._contexts))

    def __enter__(self) -> PoolGrid:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            self._end(process)
        self._processes.clear()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have messages answered, as many at once as there are processes; return their ids."""
        waiting = deque(self._named(messages))
        pushed = [message.metadata.message_id for message in waiting]
        while len(self._processes) < min(self._count, len(waiting)):
            self._processes.append(self._fork())
        idle = list(self._processes)
        while waiting or any(process.asked for process in self._processes):
            while waiting and idle:
                self._ask(idle.pop(), waiting.popleft())
            self._stop.check()
            for process in self._answering():
                message, process_now = process.asked, process
                assert message is not None
                try:
                    answer, error = process.connection.recv()
                except (EOFError, OSError):
                    process_now = self._replaced(process)
                    answer, error = None, ChildProcessError(f"its process {_end_of(process)}")
                if error is not None:
                    self.failures[message.metadata.dst_node_id] = error
                self._answers[message.metadata.message_id] = answer or failed(error, message)
                process_now.asked = None
                idle.append(process_now)
        return pushed

    def _answering(self) -> Iterator[_Process]:
        """Yield the processes that have answered or ended, after waiting a moment for one."""
        asked = {process.connection: process for process in self._processes if process.asked}
        for connection in wait(list(asked), timeout=_LOOK):
            yield asked[connection]  # type: ignore[index] # one of these connections

    def _ask(self, process: _Process, message: Message) -> None:
        process.asked = message
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is found to have ended
            process.connection.send(message)

    def _replaced(self, process: _Process) -> _Process:
        """Put a new process in the place of one that ended."""
        process.connection.close()
        new = self._fork()
        self._processes[self._processes.index(process)] = new
        return new

    def _fork(self) -> _Process:
        ours, theirs = Pipe()
        become = die_with_parent()
        gc.freeze()  # what is there now is never looked at again by a child's collector, and so stays shared
        pid = os.fork()
        if not pid:
            for other in [*(process.connection for process in self._processes), ours]:
                other.close()
            _serve(theirs, become, self._app, self._contexts)
        theirs.close()
        return _Process(pid, ours)

    def _end(self, process: _Process) -> None:
        process.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0)


def _portable(error: Exception | None) -> Exception | None:
    """Return an error that another process can be handed; one that cannot be pickled by what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - pickling calls code of whoever wrote the error
        return RuntimeError(one_line(error)) if error is not None else None
    return error


def _end_of(process: _Process) -> str:
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
    except ChildProcessError:
        return "is gone"
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _serve(
    connection: Connection, become: Callable[[], None], app: ClientApp, contexts: Mapping[int, Context]
) -> NoReturn:
    """Answer messages until there are no more; never return to the code that was forked."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked to stop, and ends this process
        become()
        while True:
            message = connection.recv()
            answer, error = answered(app, message, contexts[message.metadata.dst_node_id])
            connection.send((answer, _portable(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0
    finally:
        os._exit(status)
