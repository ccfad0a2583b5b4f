"""``python -P -m ai4sdk.backends.agent RUN_DIR TASK PROCESSES``: one worker a rank, on this machine, as one task.

Each worker gets torchrun's variables. The ranks meet at a port of 127.0.0.1 that is open before they start, so that
nobody else can take it. What tells this process to stop is passed on to all of them. When one fails or is killed, the
others are killed at once, for they would wait for it; and the task's failure is that one's. Nothing heavy is imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ai4sdk.processes import die_with_parent, signal_leader
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths

__all__ = ["End", "main", "start_ranks", "which_counts"]

PATIENCE = 5.0
"""Seconds that ranks have to end once one has stopped in good order, or has lost another one."""
_STOPPED = (130, 143, -signal.SIGTERM, -signal.SIGINT)
_IN_ORDER = (0, 5, *_STOPPED)


@dataclass(frozen=True)
class End:
    """How a rank ended.

    Parameters
    ----------
    rank
        Its number.
    status
        Exit status; negative if a signal ended it.
    """

    rank: int
    status: int


def which_counts(ends: Sequence[End]) -> End:
    """Choose the end that says why a task ended.

    Parameters
    ----------
    ends
        Ranks in the order in which they ended by themselves; those that were killed because of them are missing.

    Returns
    -------
    End
        The first that failed; else the first that stopped or lost another rank, rank 0 before others; else rank 0.
    """
    failed = [end for end in ends if end.status not in _IN_ORDER]
    stopped = sorted((end for end in ends if end.status), key=lambda end: end.rank)
    return (failed or stopped or sorted(ends, key=lambda end: end.rank))[0]


def main(arguments: Sequence[str]) -> int:
    """Execute a task on several ranks and return its exit status."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python -m ai4sdk.backends.agent RUN_DIR TASK PROCESSES\n")
        return 2
    run, task = RunPaths(Path(arguments[0]).resolve()), arguments[1]
    return start_ranks(run, task, int(arguments[2]), [sys.executable, "-P", "-m", "ai4sdk.worker", str(run.root), task])


def start_ranks(run: RunPaths, task: str, count: int, argv: Sequence[str]) -> int:
    """Start a command once a rank, wait for all to end, and return the status that tells how the task did."""
    return _Agent(run, task, count, argv).execute()


class _Agent:
    def __init__(self, run: RunPaths, task: str, count: int, argv: Sequence[str]) -> None:
        self._run, self._task, self._count, self._argv = run, task, count, argv
        self._workers: list[subprocess.Popen[bytes]] = []
        self._told = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)

    def _pass_on(self, *_: object) -> None:
        self._told = True
        for worker in self._workers:
            signal_leader(worker.pid, signal.SIGTERM)

    def execute(self) -> int:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(max(128, 2 * self._count))
            inherited = _inherited()
            for rank in range(self._count):
                self._workers.append(self._start(rank, listening, inherited))
        if self._told:  # before all had been started
            self._pass_on()
        ends = self._wait()
        counts = which_counts(ends)
        if counts.status < 0 and not (self._told and counts.status in _STOPPED):
            return self._tell(counts)
        return 130 if counts.status in _STOPPED else counts.status

    def _start(self, rank: int, listening: socket.socket, inherited: list[int]) -> subprocess.Popen[bytes]:
        address, port = listening.getsockname()
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self._count),
            "LOCAL_WORLD_SIZE": str(self._count),
            "GROUP_RANK": "0",
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
        }
        if rank == 0:
            variables["AI4SDK_LISTEN_FD"] = str(listening.fileno())
        with contextlib.ExitStack() as files:
            log = None if rank == 0 else files.enter_context(open(self._run.log(self._task, rank), "ab"))
            return subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"GLOO_SOCKET_IFNAME": "lo", **os.environ, **variables},
                pass_fds=[*inherited, listening.fileno()] if rank == 0 else inherited,
                preexec_fn=die_with_parent(),
            )

    def _wait(self) -> list[End]:
        """Wait until all have ended, killing those that would not; return how the others did."""
        ends: list[End] = []
        running = dict(enumerate(self._workers))
        deadline: float | None = None
        while running:
            if deadline is None:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            for rank, worker in list(running.items()):
                if (status := worker.poll()) is None:
                    continue
                del running[rank]
                ends.append(End(rank, status))
                if status not in _IN_ORDER:
                    deadline = 0.0
                elif status and deadline is None:
                    deadline = time.monotonic() + PATIENCE
            if deadline is not None and time.monotonic() >= deadline:
                for worker in running.values():
                    worker.kill()
                for worker in running.values():
                    worker.wait()
                return ends
            if deadline is not None:
                time.sleep(0.01)
        return ends

    def _tell(self, end: End) -> int:
        """Say which rank a signal ended; return the status that means the same for the task."""
        number = -end.status
        if number == signal.SIGKILL:
            cause, kind, status = "was killed (SIGKILL: kill -9, or out of memory)", "interrupted", 5
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            cause, kind, status = "was told to stop from outside", "interrupted", 5
        else:
            name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
            cause, kind, status = f"crashed with {name}", "user", 4
        failure: dict[str, object] = {
            "cause": f"rank {end.rank} {cause}",
            "kind": kind,
            "exit_code": status,
            "traceback": "",
        }
        failure["rank"] = end.rank
        sys.stderr.write(f"{failure['cause']}\n")
        try:
            write_json(self._run.failure, failure)
        except OSError as error:
            sys.stderr.write(f"failure.json could not be written: {error}\n")
        return status


def _inherited() -> list[int]:
    """Return the descriptors that were handed to this process beside the standard ones, such as the run's lock."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
