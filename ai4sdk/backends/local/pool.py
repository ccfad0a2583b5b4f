"""The pool of this machine: runs of a study side by side, each a worker forked from a zygote.

The pool decides and writes; the zygote (`ai4sdk.worker.zygote`) imports, forks, and tells. There is one for each
environment asked for, as `Command.env` must be there before Python starts; one that has nothing to do goes when another
needs its place. Records are sent nowhere: a submission's sidecars are for runs on their own.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ai4sdk.backends.base import Command, Ended, Submission
from ai4sdk.backends.local.machine import group_memory, slots_for, visible_gpus
from ai4sdk.backends.local.task import Outcome, forget_failure, outcome, stop_request, task_ended
from ai4sdk.backends.local.zygote import Zygote
from ai4sdk.errors import EnvironmentFault
from ai4sdk.planning.plan import Plan
from ai4sdk.processes import signal_group
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, add_event, is_alive, read_state, write_last, write_state

__all__ = ["LocalPool"]

_LOOK = 0.2
"""Seconds between two looks at requests to stop and at time limits."""
_LOOK_AT_MEMORY = 0.5
"""Seconds between two looks at how much memory the runs take."""
_DYING = 0.005
"""Seconds between two looks whether what was killed is gone."""
_PATIENCE = 10.0
"""Longest time, in seconds, that this may take."""

_NEEDED = {
    "train": "ai4sdk.worker.phases",
    "federate": "ai4sdk.federated.task",
    "call": "ai4sdk.worker.call",
}
"""Kind of task → what its worker imports."""

_DELETED = Outcome(State.FAILED, 4, "its run directory was deleted")
_CLOSED = Outcome(State.INTERRUPTED, 5, "its study was stopped")
_CANCELLED = outcome(130, None, finished=False, stop="cancelled")


@dataclass(eq=False)
class _Entry:
    """A run in the pool."""

    run: RunPaths
    submission: Submission
    lock: int
    state: RunState
    """As it was last written."""
    todo: list[Command]
    """Tasks from the present one on."""
    gpus: list[str] = field(default_factory=list)
    """GPUs it may use."""
    zygote: Zygote | None = None
    """Who forks the worker of the present task; ``None`` while it waits for its turn."""
    ticket: int | None = None
    """Number of the request that was sent for it."""
    pid: int | None = None
    """The worker."""
    process: int | None = None
    """Descriptor of the worker (a pidfd); ``None`` if it has ended."""
    limit: float = float("inf")
    """When the worker has taken longer than it may, on the monotonic clock."""
    stop: str | None = None
    """Why it was told to stop."""
    kill: float = float("inf")
    """When it is killed if it has not stopped, on the monotonic clock."""
    verdict: Outcome | None = None
    """What it ends with, unless it succeeds all the same."""


class LocalPool:
    """Runs plans side by side on this machine; `ai4sdk.backends.base.Pool` says what is promised.

    Use it from one thread, which lives as long as the pool: the kernel ends the zygotes with the thread that made them.

    Parameters
    ----------
    plan
        Plan of the first run; the others have the same hardware, backend and imports.
    folder
        Folder for the zygotes' log.
    project
        Folder the zygotes start in.
    parallel
        Runs at once; by default as many as fit.
    """

    def __init__(self, plan: Plan, folder: Path, project: Path, *, parallel: int | None = None) -> None:
        self._tasks = {task.name: task for task in plan.tasks}
        forked = [task for task in plan.tasks if task.processes == 1]
        needed = [_NEEDED[task.kind] for task in forked if task.kind in _NEEDED]
        self._modules = [*dict.fromkeys([*needed, *plan.code["external"]])] if forked else []
        self._grace = float(plan.job["backend"]["grace"])
        self._project = project
        self._log = folder / "zygote.log"
        self._slots = parallel or min(slots_for(task) for task in plan.tasks)
        self._gpus = dict.fromkeys(visible_gpus(), 0)  # GPU → runs that use it
        self._entries: dict[Path, _Entry] = {}
        self._ended: list[tuple[Ended, float]] = []  # and until when its lock may be held by what was killed
        self._zygotes: list[Zygote] = []
        self._leaving: list[Zygote] = []
        self._tickets = 0
        self._next_look = self._next_look_at_memory = 0.0
        self._selector = selectors.DefaultSelector()

    @property
    def slots(self) -> int:
        """How many runs work at once; any more that are started wait for their turn."""
        return self._slots

    def start(self, run: RunPaths, submission: Submission, lock: int) -> None:
        """Start a run, or go on with it. The pool owns the descriptor ``lock`` from here on.

        The worker is forked later, once there is room and everything is imported; until then the run is queued. If it
        cannot be, the run ends as failed with the exit code of an `EnvironmentFault`, 7.

        Raises
        ------
        EnvironmentFault
            If no zygote can be started, or the run's folder not be written.
        """
        try:
            write_json(run.submission, submission.to_json(), durable=False)
            state = replace(read_state(run), ended=None)
        except (OSError, ValueError) as error:
            os.close(lock)
            raise _not_started(run, error) from error
        entry = _Entry(run, submission, lock, state, list(submission.tasks))
        self._entries[run.root] = entry
        try:
            self._begin(entry)
        except OSError as error:
            self._forget(entry)
            raise _not_started(run, error) from error

    def adopt(self, run: RunPaths) -> bool:
        """Adopt nothing: runs of a pool that is gone were killed with it."""
        return False

    def wait(self, timeout: float) -> list[Ended]:
        """Wait until runs end, at most ``timeout`` seconds; return those that did. Their locks are free."""
        deadline = time.monotonic() + timeout
        while True:
            if (now := time.monotonic()) >= self._next_look:
                self._look(now)
                self._next_look = now + _LOOK
            ended = self._take_ended()
            until = min(deadline, self._next_look, now + _DYING if self._ended else float("inf"))
            for key, _ in self._selector.select(0.0 if ended else max(0.0, until - time.monotonic())):
                key.data()
            ended += self._take_ended()
            if ended or time.monotonic() >= deadline:
                return ended

    def stop(self, run: RunPaths, *, now: bool = False) -> None:
        """Ask a run to stop with a checkpoint, or with ``now`` without one. It ends later, as `wait` tells."""
        if entry := self._entries.get(run.root):
            self._stop(entry, now=now)

    def close(self) -> None:
        """Kill what still runs and give everything back. Runs that were killed end as interrupted."""
        self._slots = 0
        for entry in list(self._entries.values()):
            self._condemn(entry, _CLOSED)
        deadline = time.monotonic() + _PATIENCE
        while self._entries and time.monotonic() < deadline:
            self.wait(0.05)
        for entry in list(self._entries.values()):
            self._end(entry, _CLOSED)
        for zygote in list(self._zygotes):
            self._let_go(zygote)
        for zygote in self._leaving:
            zygote.join(max(0.0, deadline - time.monotonic()))
        self._selector.close()

    # ------------------------------------------------------------------ a run, from task to task

    def _begin(self, entry: _Entry) -> None:
        """Begin with the next task; raises OSError if the folder cannot be written or no zygote be started."""
        forget_failure(entry.run)
        if entry.stop or stop_request(entry.run):
            return self._end(entry, _CANCELLED)
        if self._has_room():
            self._prepare(entry)

    def _has_room(self) -> bool:
        return sum(entry.zygote is not None for entry in self._entries.values()) < self._slots

    def _prepare(self, entry: _Entry) -> None:
        """Find or start the zygote for the present task, which is handed over once that is ready."""
        entry.zygote = self._zygote(entry.todo[0].env)
        if entry.zygote.ready:
            self._hand_over(entry, entry.zygote)

    def _let_next_work(self) -> None:
        """Give the room that there is to those who have waited longest."""
        for entry in list(self._entries.values()):
            if entry.zygote is None and self._has_room():
                try:
                    self._prepare(entry)
                except OSError as error:
                    self._end(entry, _no_process(error.strerror or str(error)))

    def _hand_over(self, entry: _Entry, zygote: Zygote) -> None:
        command = entry.todo[0]
        started = entry.state.started or time.time()
        entry.state = replace(entry.state, state=State.RUNNING, started=started, pid=os.getpid(), task=command.name)
        write_state(entry.run, entry.state)
        entry.gpus = entry.gpus or self._take_gpus()
        self._tickets += 1
        entry.ticket = self._tickets
        request = {
            "start": entry.ticket,
            "run": str(entry.run.root),
            "task": command.name,
            "log": command.log,
            "cwd": entry.submission.project,
            "env": {"CUDA_VISIBLE_DEVICES": ",".join(entry.gpus)} if entry.gpus else {},
            "program": command.argv if self._tasks[command.name].processes > 1 else [],
        }
        zygote.ask(request, entry.lock)

    def _started(self, entry: _Entry, pid: int) -> None:
        entry.pid = pid
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            entry.process = os.pidfd_open(pid)
        if wall_time := self._tasks[entry.todo[0].name].wall_time:
            entry.limit = time.monotonic() + wall_time + entry.submission.grace
        _record(entry, "task started", pid=pid)
        if entry.verdict or time.monotonic() > entry.kill:
            self._kill(entry)
        elif entry.stop:
            self._terminate(entry)

    def _task_ended(self, entry: _Entry, status: int) -> None:
        try:
            ended = task_ended(entry.run, entry.todo[0].name, status, stop=entry.stop)
            if entry.verdict and ended.state is not State.SUCCEEDED:
                ended = entry.verdict
            if ended.state is State.SUCCEEDED and len(entry.todo) > 1 and not entry.verdict:
                del entry.todo[0]
                self._forget_worker(entry)
                return self._begin(entry)
        except OSError as error:
            ended = _unwritable(error)
        self._end(entry, ended)

    def _end(self, entry: _Entry, ended: Outcome) -> None:
        """Write how a run ended, and free its lock."""
        state = _with(entry.state, ended)
        try:
            if entry.run.plan.exists():
                write_last(entry.run, state)
            else:
                state = _with(entry.state, _DELETED)
        except OSError as error:
            state = _with(entry.state, _unwritable(error))
        self._forget(entry)
        self._ended.append((Ended(entry.run, state), time.monotonic() + _PATIENCE))
        self._let_next_work()

    def _forget(self, entry: _Entry) -> None:
        self._forget_worker(entry)
        del self._entries[entry.run.root]
        for gpu in entry.gpus:
            self._gpus[gpu] -= 1
        os.close(entry.lock)

    def _forget_worker(self, entry: _Entry) -> None:
        if entry.process is not None:
            with contextlib.suppress(KeyError):  # it is watched only if its zygote has died
                self._selector.unregister(entry.process)
            os.close(entry.process)
        entry.zygote = entry.ticket = entry.pid = entry.process = None
        entry.limit = float("inf")

    def _take_ended(self) -> list[Ended]:
        """Take out the runs that have ended and whose last process is gone, so that they can be resumed."""
        now = time.monotonic()
        gone = [(ended, until) for ended, until in self._ended if now > until or not is_alive(ended.run)]
        self._ended = [pair for pair in self._ended if pair not in gone]
        return [ended for ended, _ in gone]

    def _take_gpus(self) -> list[str]:
        """Give a run the GPUs that the fewest others use."""
        count = max(task.gpus for task in self._tasks.values())
        gpus = sorted(self._gpus, key=lambda gpu: self._gpus[gpu])[:count]
        for gpu in gpus:
            self._gpus[gpu] += 1
        return gpus

    # ------------------------------------------------------------------ stopping runs

    def _look(self, now: float) -> None:
        for entry in list(self._entries.values()):
            self._look_at(entry, now)
        if now >= self._next_look_at_memory:
            self._next_look_at_memory = now + _LOOK_AT_MEMORY
            self._look_at_memory()
        self._leaving = [zygote for zygote in self._leaving if not zygote.ended()]

    def _look_at(self, entry: _Entry, now: float) -> None:
        if not entry.run.plan.exists():
            return self._condemn(entry, _DELETED)
        if now > entry.limit:
            wall_time = self._tasks[entry.todo[0].name].wall_time
            cause = f"over its time limit (hardware.wall_time={wall_time:g}s)"
            return self._condemn(entry, Outcome(State.FAILED, 4, cause))
        if now > entry.kill:
            return self._kill(entry)
        request = stop_request(entry.run)
        if request == "now" or (request and not entry.stop):
            self._stop(entry, now=request == "now")

    def _look_at_memory(self) -> None:
        limited: dict[int, tuple[_Entry, int]] = {}
        for entry in self._entries.values():
            if entry.process is not None and entry.pid and (limit := self._tasks[entry.todo[0].name].memory):
                limited[entry.pid] = entry, limit
        if not limited:
            return
        for pid, used in group_memory({pid: limit for pid, (_, limit) in limited.items()}).items():
            entry, limit = limited[pid]
            if used > limit:
                cause = f"used more than hardware.memory ({limit / 2**30:.3g} GiB)"
                self._condemn(entry, Outcome(State.FAILED, 4, cause))

    def _stop(self, entry: _Entry, *, now: bool) -> None:
        if not entry.stop:
            entry.stop = "cancelled"
            entry.kill = time.monotonic() + entry.submission.grace
            _record(entry, "stopping", why=entry.stop)
            self._terminate(entry)
        if now:
            entry.kill = 0.0
            self._kill(entry)
        if entry.ticket is None:
            self._end(entry, _CANCELLED)

    def _condemn(self, entry: _Entry, verdict: Outcome) -> None:
        """Kill a run; it ends with a verdict."""
        entry.verdict = entry.verdict or verdict
        self._kill(entry)
        if entry.ticket is None:
            self._end(entry, entry.verdict)

    def _terminate(self, entry: _Entry) -> None:
        if entry.process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(entry.process, signal.SIGTERM)

    def _kill(self, entry: _Entry) -> None:
        if entry.pid is not None:
            signal_group(entry.pid, signal.SIGKILL)

    # ------------------------------------------------------------------ zygotes

    def _zygote(self, env: Mapping[str, str]) -> Zygote:
        """Return the zygote of an environment."""
        if known := next((zygote for zygote in self._zygotes if zygote.env == env and not zygote.ended()), None):
            return known
        busy = [entry.zygote for entry in self._entries.values()]
        idle = [zygote for zygote in self._zygotes if zygote not in busy]
        if idle and len(self._zygotes) >= self._slots:
            self._let_go(idle[0])
        zygote = Zygote(env, self._modules, self._project, self._log, self._grace)
        self._zygotes.append(zygote)
        self._selector.register(zygote.connection, selectors.EVENT_READ, partial(self._listen, zygote))
        return zygote

    def _listen(self, zygote: Zygote) -> None:
        if zygote not in self._zygotes:
            return  # let go since it spoke
        match zygote.hear():
            case None:
                self._lost(zygote)
            case {"ready": True}:
                zygote.ready = True
                for waiting in [entry for entry in self._entries.values() if entry.zygote is zygote]:
                    try:
                        self._hand_over(waiting, zygote)
                    except OSError as error:
                        self._end(waiting, _unwritable(error))
            case {"started": ticket, "pid": pid} if entry := self._asked(ticket):
                self._started(entry, pid)
            case {"refused": ticket, "error": error} if entry := self._asked(ticket):
                self._end(entry, entry.verdict or _no_process(error))
            case {"ended": ticket, "status": status} if entry := self._asked(ticket):
                self._task_ended(entry, status)

    def _asked(self, ticket: int) -> _Entry | None:
        return next((entry for entry in self._entries.values() if entry.ticket == ticket), None)

    def _let_go(self, zygote: Zygote) -> None:
        self._selector.unregister(zygote.connection)
        self._zygotes.remove(zygote)
        self._leaving.append(zygote)
        zygote.let_go()

    def _lost(self, zygote: Zygote) -> None:
        """Look after the runs of a zygote that has died; the kernel has told their workers to stop."""
        self._let_go(zygote)
        status = zygote.join(_PATIENCE)
        killed = status in (-signal.SIGKILL, -signal.SIGTERM)
        how = "was killed" if killed else f"ended with status {status}"
        lost = [entry for entry in self._entries.values() if entry.zygote is zygote]
        if not zygote.ready and not killed:
            self._modules = []  # importing them is what ended it; each worker will tell for itself
        for entry in lost:
            if entry.ticket is not None:
                self._orphan(entry, how)
            elif killed:
                self._end(entry, Outcome(State.INTERRUPTED, 5, f"its zygote {how}"))
            elif zygote.modules:
                self._begin_again(entry)
            else:
                self._end(entry, _no_process(f"the zygote {how}, see {self._log}"))

    def _begin_again(self, entry: _Entry) -> None:
        try:
            entry.zygote = self._zygote(entry.todo[0].env)
        except OSError as error:
            self._end(entry, _no_process(error.strerror or str(error)))

    def _orphan(self, entry: _Entry, how: str) -> None:
        """Wait for the end of a worker that nobody else waits for any more."""
        lost = _CANCELLED if entry.stop else Outcome(State.INTERRUPTED, 5, f"its zygote {how}")
        entry.verdict = entry.verdict or lost
        if entry.process is None:
            return self._end(entry, entry.verdict)
        entry.kill = min(entry.kill, time.monotonic() + entry.submission.grace)
        self._selector.register(entry.process, selectors.EVENT_READ, partial(self._orphan_ended, entry, how))

    def _orphan_ended(self, entry: _Entry, how: str) -> None:
        if entry.process is not None and entry.verdict:
            self._kill(entry)  # what it left behind
            _record(entry, "task ended", why=f"its zygote {how}")
            self._end(entry, entry.verdict)


def _record(entry: _Entry, event: str, **details: Any) -> None:
    """Write an event of the present task; a folder that is gone or full is noticed where it counts."""
    with contextlib.suppress(OSError):
        add_event(entry.run, event, task=entry.todo[0].name, **details)


def _with(state: RunState, ended: Outcome) -> RunState:
    return replace(state, state=ended.state, cause=ended.cause, exit_code=ended.exit_code, ended=time.time())


def _no_process(reason: str) -> Outcome:
    return Outcome(State.FAILED, EnvironmentFault.exit_code, f"no process can be started: {reason}")


def _unwritable(error: OSError) -> Outcome:
    reason = error.strerror or error
    return Outcome(State.FAILED, EnvironmentFault.exit_code, f"the run's folder cannot be written: {reason}")


def _not_started(run: RunPaths, error: Exception) -> EnvironmentFault:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return EnvironmentFault(f"{run.id} cannot be started: {reason}")
