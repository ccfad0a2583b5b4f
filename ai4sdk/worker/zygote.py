"""``python -P -m ai4sdk.worker.zygote SOCKET GRACE MODULE…``: import once, then fork a worker for each run.

The pool of a study starts it and talks to it over a socket, one JSON object a message. It asks
``{"start": ticket, "run", "task", "log", "cwd", "env", "program"}``, with the descriptor that holds the run's lock; a
program is started in place of a fork that works itself, where a task is of several processes. It is told
``{"ready": true}`` once, then ``{"started": ticket, "pid"}`` or ``{"refused": ticket, "error"}``, and in the end
``{"ended": ticket, "status"}``, a status below zero being the signal that ended the worker.

Modules that are given are imported before the first fork; the user's own code is not among them, for it is in the
snapshot of each run. When the pool's end of the socket is closed, or the pool is killed, the workers are told to stop,
and killed ``GRACE`` seconds later.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ai4sdk.planning.plan import Plan, TaskPlan
from ai4sdk.processes import die_with_parent, signal_group, signal_leader
from ai4sdk.spec import Job
from ai4sdk.spec.base import complete
from ai4sdk.worker.__main__ import __file__ as worker_file
from ai4sdk.worker.__main__ import main as worker_main
from ai4sdk.worker.__main__ import start_logging
from ai4sdk.worker.instantiate import instantiate
from ai4sdk.worker.startup import quick_imports

__all__ = ["main"]

log = logging.getLogger("ai4sdk.zygote")

_LONGEST_MESSAGE = 2**17
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass(frozen=True)
class _Request:
    """A task to execute."""

    run: str
    task: str
    log: str
    cwd: str
    env: dict[str, str]
    program: list[str]


def main(arguments: Sequence[str]) -> None:
    """Serve a pool until it is gone.

    Parameters
    ----------
    arguments
        Descriptor of the socket, seconds from telling a worker to stop to killing it, and names of modules.
    """
    _make_ready()
    _serve(socket.socket(fileno=int(arguments[0])), float(arguments[1]), arguments[2:])


def wait_for_orders(connection: socket.socket) -> None:
    """Serve a pool until it is gone, once it says how, in a process that was forked before anybody knew.

    Parameters
    ----------
    connection
        The socket. The first message is ``{"env", "folder", "log", "grace", "modules"}``; there is none if nobody needs
        a zygote.
    """
    _make_ready()
    message = connection.recv(_LONGEST_MESSAGE)
    if not message:
        return
    orders = json.loads(message)
    output = os.open(orders["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(orders["folder"])
    os.environ.update(orders["env"])
    _serve(connection, orders["grace"], orders["modules"])


def _make_ready() -> None:
    """Do once what every worker would do."""
    for model in (TaskPlan, Plan, Job):
        complete(model)  # building a validator takes longer than a small task
    instantiate({"_target_": "builtins.dict"})  # what OmegaConf imports and remembers at its first use


def _serve(connection: socket.socket, grace: float, modules: Sequence[str]) -> None:
    start_logging()
    with quick_imports():
        _import(modules)
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if threads:  # of Python's; the threads of numerical libraries come back in the child by themselves
        log.warning("%s was started by an import: workers start cold, for a fork would lack it", ", ".join(threads))
    gc.collect()
    gc.freeze()  # no collection in a worker touches, and thereby copies, what they all share
    _Zygote(connection, grace=grace, cold=bool(threads)).serve()


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        started = time.monotonic()
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - the worker that needs it fails in the same way, and tells
            log.warning("%s cannot be imported: %s: %s", name, type(error).__name__, error)
        else:
            log.info("imported %s in %.1f s", name, time.monotonic() - started)


class _Zygote:
    """Forks workers and tells of their ends.

    Parameters
    ----------
    connection
        Socket to the pool.
    grace
        Seconds from telling a worker to stop to killing it.
    cold
        Whether workers are started as new programs.
    """

    def __init__(self, connection: socket.socket, *, grace: float, cold: bool) -> None:
        self._connection, self._grace, self._cold = connection, grace, cold
        self._workers: dict[int, int] = {}  # pid → ticket
        self._die_with_parent = die_with_parent()
        self._told_to_end = False
        self._wakeup, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        signal.signal(signal.SIGTERM, self._on_end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        self._tell(ready=True)
        while not self._told_to_end:
            readable, _, _ = select.select([self._connection.fileno(), self._wakeup], [], [])
            self._reap()
            if self._connection.fileno() in readable:
                self._answer()
        self._end_workers()

    def _on_end(self, *_: object) -> None:
        self._told_to_end = True

    def _tell(self, **message: Any) -> None:
        try:
            self._connection.send(json.dumps(message).encode())
        except ConnectionError:
            self._told_to_end = True  # the pool is gone

    def _answer(self) -> None:
        """Take a request, or notice that the pool is gone."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._connection, _LONGEST_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            message = b""
        if not message:
            self._told_to_end = True
            return
        request = json.loads(message)
        ticket = request.pop("start")
        try:
            pid = self._fork(_Request(**request), descriptors[0])
        except OSError as error:
            self._tell(refused=ticket, error=error.strerror or str(error))
        else:
            self._workers[pid] = ticket
            self._tell(started=ticket, pid=pid)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)  # the worker has it

    def _fork(self, request: _Request, lock: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(request, lock)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # whoever of the two is first
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        return pid

    def _become_worker(self, request: _Request, lock: int) -> NoReturn:
        """Turn the forked process into a worker as the one that a program of its own would be."""
        status = 1
        try:
            os.setpgid(0, 0)
            self._die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            self._connection.close()
            os.close(self._wakeup)
            os.close(self._alarm)
            output = os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            os.chdir(request.cwd)
            os.environ.update(request.env)
            worker = [sys.executable, "-P", "-m", "ai4sdk.worker", request.run, request.task]
            if program := request.program or (worker if self._cold else []):
                os.set_inheritable(lock, True)
                os.execv(program[0], program)
            log.info("forked; torch is %simported", "" if "torch" in sys.modules else "not ")
            sys.argv = [worker_file, request.run, request.task]
            status = _as_program(lambda: worker_main([request.run, request.task]))
        except BaseException:  # nothing of it may reach the zygote's loop
            log.exception("the worker could not be started, or not ended")
        finally:
            os._exit(status)

    def _reap(self) -> None:
        """Tell of the workers that have ended; what they left behind in their group is killed first."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        for pid, ticket in list(self._workers.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            signal_group(pid, signal.SIGKILL)  # before its number can be given to somebody else
            _, status = os.waitpid(pid, 0)
            del self._workers[pid]
            self._tell(ended=ticket, status=os.waitstatus_to_exitcode(status))

    def _end_workers(self) -> None:
        """Stop all workers, those that do not by force."""
        for pid in self._workers:
            signal_leader(pid, signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        while self._workers and time.monotonic() < deadline:
            select.select([self._wakeup], [], [], max(0.0, deadline - time.monotonic()))
            self._reap()
        for pid in self._workers:
            signal_group(pid, signal.SIGKILL)


def _as_program(call: Callable[[], int]) -> int:
    """Return the status that a program with this body would end with, everything done that Python does at an end."""
    try:
        status = call()
    except SystemExit as error:
        status = _status_of(error)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined] # missing in the stubs; waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return status & 0xFF


def _status_of(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    sys.stderr.write(f"{error.code}\n")
    return 1


if __name__ == "__main__":
    main(sys.argv[1:])
