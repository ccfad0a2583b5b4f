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

__all__ = ["Agent", "End", "Node", "Ranks", "main", "start_ranks", "which_counts"]

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
    cause
        Why, where it was not seen but concluded.
    """

    rank: int
    status: int
    cause: str = ""


@dataclass(frozen=True)
class Node:
    """A machine of a task, and where rank 0 listens for the others.

    Parameters
    ----------
    number, count
        Its number, and how many there are.
    address, port
        Where rank 0 listens.
    """

    number: int
    count: int
    address: str
    port: int


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
    return Agent(Ranks(run, task, count, argv)).execute()


class Ranks:
    """The workers of a task on this machine.

    Parameters
    ----------
    run, task
        The run, and the name of its task.
    count
        How many there are.
    argv
        What to start, once a rank.
    """

    def __init__(self, run: RunPaths, task: str, count: int, argv: Sequence[str]) -> None:
        self.run, self.task, self.count = run, task, count
        self._argv = argv
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, node: Node, listening: socket.socket | None) -> None:
        """Start them; rank 0 is handed the socket that listens for the others."""
        inherited = _inherited()
        for local in range(self.count):
            rank = node.number * self.count + local
            self._running[rank] = self._start(rank, local, node, listening if rank == 0 else None, inherited)

    def _start(
        self, rank: int, local: int, node: Node, listening: socket.socket | None, inherited: list[int]
    ) -> subprocess.Popen[bytes]:
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(self.count * node.count),
            "LOCAL_WORLD_SIZE": str(self.count),
            "GROUP_RANK": str(node.number),
            "MASTER_ADDR": node.address,
            "MASTER_PORT": str(node.port),
        }
        handed = list(inherited)
        if listening is not None:
            variables["AI4SDK_LISTEN_FD"] = str(listening.fileno())
            handed.append(listening.fileno())
        alone = {"GLOO_SOCKET_IFNAME": "lo"} if node.count == 1 else {}
        with contextlib.ExitStack() as files:
            log = None if rank == 0 else files.enter_context(open(self.run.log(self.task, rank), "ab"))
            return subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**alone, **os.environ, **variables},
                pass_fds=handed,
                preexec_fn=die_with_parent(),
            )

    def tell(self) -> None:
        """Tell them to stop in good order."""
        for worker in list(self._running.values()):
            signal_leader(worker.pid, signal.SIGTERM)

    def poll(self) -> list[End]:
        """Return those that have ended since the last time."""
        ends = [End(rank, worker.returncode) for rank, worker in self._running.items() if worker.poll() is not None]
        for end in ends:
            del self._running[end.rank]
        return ends

    def kill(self) -> None:
        """End those that still work."""
        for worker in self._running.values():
            worker.kill()
        for worker in self._running.values():
            worker.wait()
        self._running.clear()


class Agent:
    """Executes a task on the ranks of this machine.

    Parameters
    ----------
    ranks
        The workers.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.told = False
        self.counts: End | None = None
        """The end that said why the task ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.pass_on())

    def pass_on(self) -> None:
        """Tell all ranks to stop."""
        self.told = True
        self.ranks.tell()

    def execute(self) -> int:
        """Start the ranks, wait for all to end, and return the status that tells how the task did."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(max(128, 2 * self.ranks.count))
            self.ranks.start(Node(0, 1, *listening.getsockname()), listening)
        return self.until_the_end()

    def until_the_end(self) -> int:
        """Wait for all ranks to end, and return the status that tells how the task did."""
        if self.told:  # before all had been started
            self.pass_on()
        counts = which_counts(self._wait())
        self.counts = counts
        if counts.status < 0 and not (self.told and counts.status in _STOPPED):
            return self._tell(counts)
        return 130 if counts.status in _STOPPED else counts.status

    def working(self) -> bool:
        """Tell whether any rank still works."""
        return bool(self.ranks)

    def pause(self) -> None:
        """Return when a rank may have ended."""
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)

    def poll(self) -> list[End]:
        """Return the ranks that have ended since the last time."""
        return self.ranks.poll()

    def kill(self) -> None:
        """End the ranks that still work."""
        self.ranks.kill()

    def _wait(self) -> list[End]:
        """Wait until all have ended, killing those that would not; return how the others did."""
        ends: list[End] = []
        deadline: float | None = None
        while self.working():
            if deadline is None:
                self.pause()
            for end in self.poll():
                ends.append(end)
                if end.status not in _IN_ORDER:
                    deadline = 0.0
                elif end.status and deadline is None:
                    deadline = time.monotonic() + PATIENCE
            if deadline is not None and time.monotonic() >= deadline:
                self.kill()
                return ends
            if deadline is not None:
                time.sleep(0.01)
        return ends

    def _tell(self, end: End) -> int:
        """Say which rank a signal ended; return the status that means the same for the task."""
        number = -end.status
        if end.cause:
            cause, kind, status = end.cause, "interrupted", 5
        elif number == signal.SIGKILL:
            cause, kind, status = "was killed (SIGKILL: kill -9, or out of memory)", "interrupted", 5
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            cause, kind, status = "was told to stop from outside", "interrupted", 5
        else:
            name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
            cause, kind, status = f"crashed with {name}", "user", 4
        failure: dict[str, object] = {
            "cause": end.cause or f"rank {end.rank} {cause}",
            "kind": kind,
            "exit_code": status,
            "traceback": "",
        }
        failure["rank"] = end.rank
        sys.stderr.write(f"{failure['cause']}\n")
        try:
            write_json(self.ranks.run.failure, failure)
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
