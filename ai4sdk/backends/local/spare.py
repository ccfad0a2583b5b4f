"""A zygote forked ahead of need: it has what this process has imported, and is told later what for.

Starting Python and importing what every worker needs takes half a second; done while a study is still planned, no point
waits for it.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from ai4sdk.processes import die_with_parent, signal_group

__all__ = ["FROM_THE_START", "Forked", "Spare", "drop_spare", "fork_spare", "take_spare"]

FROM_THE_START = {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
"""Variables that every worker has and that Python reads when it starts."""

_READ_AT_IMPORT = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
"""Variables that are read when a numerical library is imported, which a spare has not done."""


class Forked:
    """A child of this process; has what is used of `subprocess.Popen`.

    Parameters
    ----------
    pid
        The child.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return its status if it has ended; a negative one is the signal that ended it."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Return its status, once it has ended; raises `subprocess.TimeoutExpired`."""
        if (status := self.poll()) is not None:
            return status
        descriptor = os.pidfd_open(self.pid)
        try:
            if not select.select([descriptor], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("zygote", timeout or 0.0)
        finally:
            os.close(descriptor)
        while (status := self.poll()) is None:
            pass
        return status


class Spare:
    """A zygote that waits for its orders.

    Parameters
    ----------
    process
        The zygote.
    connection
        Socket to it.
    """

    def __init__(self, process: Forked, connection: socket.socket) -> None:
        self.process, self.connection = process, connection


_spare: Spare | None = None


def fork_spare() -> None:
    """Fork a zygote; standard input, output and error of it are nothing.

    Call this in the thread that uses it later, before this process has opened anything that a worker must not have. If
    no process can be had there is none, and whoever wants a zygote starts one.
    """
    global _spare
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    prepare = die_with_parent()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        return
    if pid == 0:
        _become_zygote(prepare, ours, theirs)
    theirs.close()
    _spare = Spare(Forked(pid), ours)


def _become_zygote(prepare: Callable[[], None], ours: socket.socket, theirs: socket.socket) -> NoReturn:
    status = 1
    try:
        prepare()
        os.setpgid(0, 0)
        ours.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        os.close(nothing)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        importlib.import_module("ai4sdk.worker.zygote").wait_for_orders(theirs)  # by name: backends know no worker
        status = 0
    except BaseException:  # noqa: BLE001 - nothing of it may reach what this process was forked from
        traceback.print_exc()
    finally:
        os._exit(status)


def take_spare(env: Mapping[str, str]) -> Spare | None:
    """Return the spare zygote if there is one that can still get an environment; it is no longer spare then.

    Parameters
    ----------
    env
        Variables that it is to have beyond those of this process.
    """
    global _spare
    if _spare is None or _spare.process.poll() is not None:
        return None
    changed = {name for name, value in env.items() if os.environ.get(name) != value}
    if not changed.issubset(_READ_AT_IMPORT):
        return None
    taken, _spare = _spare, None
    return taken


def drop_spare() -> None:
    """Let the spare zygote go, if there is one."""
    global _spare
    if _spare is not None:
        _spare.connection.close()  # upon which it ends
        signal_group(_spare.process.pid, signal.SIGKILL)
        _spare.process.wait()
        _spare = None
