"""``python -P -m ai4sdk.backends.kubernetes.leader RUN_DIR TASK PROCESSES NODES``: a task on the ranks of several pods.

Runs in pod 0 of an Indexed Job. The others call here (`ai4sdk.backends.kubernetes.follower`); once all are there, each
starts its ranks. They say how each rank ends, and it is as if all were on one machine (`ai4sdk.backends.agent`): the
first that fails ends the task, whose failure is that one's. A pod that is lost ends the task, too, and all of them
start again. Nothing heavy is imported.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai4sdk.backends.agent import Agent, End, Node, Ranks
from ai4sdk.backends.kubernetes.line import Line
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths

__all__ = ["main"]

_POLL = 0.1
"""Seconds between two looks at the ranks of this pod; what others say is heard at once."""
_STRANGER = 10.0
"""Seconds that somebody who calls has to say who it is."""
_LOST = -9


def main(arguments: Sequence[str]) -> int:
    """Execute a task on the ranks of several pods and return its exit status."""
    if len(arguments) != 4:
        sys.stderr.write("usage: python -m ai4sdk.backends.kubernetes.leader RUN_DIR TASK PROCESSES NODES\n")
        return 2
    run, task, count = RunPaths(Path(arguments[0]).resolve()), arguments[1], int(arguments[2])
    argv = [sys.executable, "-P", "-m", "ai4sdk.worker", str(run.root), task]
    port = int(os.environ["AI4SDK_LEADER"].rpartition(":")[2])
    return _Leader(Ranks(run, task, count, argv), int(arguments[3]), port, os.environ["AI4SDK_JOB"]).execute()


class _Leader(Agent):
    """Executes a task on the ranks of this pod and of others.

    Parameters
    ----------
    ranks
        The workers in this pod.
    nodes
        How many pods there are.
    port
        Where the others call.
    job
        Name of the Job; pods of another one are not listened to.
    """

    def __init__(self, ranks: Ranks, nodes: int, port: int, job: str) -> None:
        super().__init__(ranks)
        self._nodes, self._port, self._job = nodes, port, job
        self._lines: dict[int, Line] = {}
        self._far: dict[int, set[int]] = {}
        """Number of a pod → its ranks that have not ended."""
        self._failures: dict[int, dict[str, Any]] = {}
        self._started = self._stopping = self._told_far = False

    def pass_on(self) -> None:
        """Tell all ranks to stop, once: pods are told at different times, and workers take a second time for haste."""
        self.told = True
        if self._started and not self._stopping:
            self._stopping = True
            self.ranks.tell()

    def execute(self) -> int:
        """Wait for the other pods, start all ranks, wait for all to end, and return the status that tells how."""
        status = 130
        try:
            with socket.create_server(("", self._port)) as calls:
                sys.stderr.write(f"pod 0 of {self._nodes} waits for the others at port {self._port}\n")
                if self._gather(calls):
                    self._start()
                    status = self.until_the_end()
            if self.counts is not None and (failure := self._failures.get(self.counts.rank)):
                write_json(self.ranks.run.failure, failure)
        finally:
            for line in self._lines.values():
                line.send(over=status)
                line.close()
        return status

    def _gather(self, calls: socket.socket) -> bool:
        """Wait until all pods are there; tell whether they are."""
        callers: dict[Line, float] = {}
        try:
            while len(self._lines) < self._nodes - 1 and not self.told:
                watched: list[Any] = [calls, *callers, *self._lines.values()]
                if calls in select.select(watched, [], [], _POLL)[0]:
                    callers[Line(calls.accept()[0])] = time.monotonic() + _STRANGER
                for number, line in list(self._lines.items()):
                    if line.receive() is None:  # it was lost before it had begun: another will come
                        self._lines.pop(number).close()
                for line, deadline in list(callers.items()):
                    messages = line.receive()
                    if messages == [] and time.monotonic() < deadline:
                        continue
                    del callers[line]
                    if (place := self._place(messages)) is None:
                        line.close()
                    else:
                        self._lines[place] = line
        finally:
            for line in callers:
                line.close()
        return not self.told

    def _place(self, messages: list[dict[str, Any]] | None) -> int | None:
        """Return the number of the pod that has said hello, ``None`` if it is not one that is waited for."""
        hello = messages[0].get("hello") if messages else None
        if not isinstance(hello, dict) or hello.get("job") != self._job:
            return None
        number = hello.get("node")
        return number if isinstance(number, int) and 0 < number < self._nodes and number not in self._lines else None

    def _start(self) -> None:
        address = next(iter(self._lines.values())).here
        with socket.socket() as free:  # not held open: a function may call torch itself, which opens it by its number
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.ranks.start(Node(0, self._nodes, address, port), None)
        for number, line in self._lines.items():
            self._far[number] = {number * self.ranks.count + local for local in range(self.ranks.count)}
            line.send(start={"address": address, "port": port})
        self._started = True

    def working(self) -> bool:
        return bool(self.ranks) or any(self._far.values())

    def pause(self) -> None:
        select.select([line for number, line in self._lines.items() if self._far[number]], [], [], _POLL)

    def poll(self) -> list[End]:
        if self._stopping and not self._told_far:
            self._told_far = True
            self._tell_far(stop=True)
        ends = self.ranks.poll()
        for number, ranks in self._far.items():
            messages = self._lines[number].receive() if ranks else []
            if messages is None:
                ends.append(End(min(ranks), _LOST, f"pod {number} of {self._nodes} was lost"))
                ranks.clear()
            for message in messages or []:
                ends += self._heard(number, message)
        return ends

    def _heard(self, number: int, message: dict[str, Any]) -> list[End]:
        if message.get("stopping"):  # that pod is taken away: all stop, as one cannot go on without it
            self.pass_on()
        if "ended" not in message:
            return []
        rank, status = message["ended"]
        self._far[number].discard(rank)
        if message.get("failure"):
            self._failures[rank] = message["failure"]
        return [End(rank, status)]

    def kill(self) -> None:
        self._tell_far(kill=True)
        super().kill()
        for ranks in self._far.values():
            ranks.clear()

    def _tell_far(self, **message: bool) -> None:
        for number, line in self._lines.items():
            if self._far[number]:
                line.send(**message)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
