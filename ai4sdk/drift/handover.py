"""One watch for several processes of a model: the others hand over features to it, over a socket of datagrams.

Each datagram stands alone: a line of JSON, ``{"count": N, "lost": {counter: more}, "numbers": [[part, name], ...],
"texts": [[part, name, [text]], ...]}``, and after it the numbers, N floats of eight bytes for each name. What finds no
room is dropped and counted, as what finds none in a queue is: nobody who answers waits for who watches.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ai4sdk.drift.features import Features
from ai4sdk.drift.feeding import Feeding
from ai4sdk.drift.reference import Reference
from ai4sdk.drift.watch import DriftWatch
from ai4sdk.spec.drift import DriftWatching

__all__ = ["Handover", "pack", "receive", "unpack"]

log = logging.getLogger(__name__)

MOST_BYTES = 2**16
"""Of a datagram, about; more samples make several."""
_ROOM = 2**20
_LOOK = 0.5
_PATIENCE, _PAUSE = 1.0, 0.005
_PARTS = ("input", "output")


class Handover(Feeding):
    """Reads the features of what one process is asked and answers, and hands them to the process that watches.

    Parameters
    ----------
    reference, settings, name
        See `ai4sdk.drift.feeding.Feeding`.
    line
        Where the features go.
    """

    def __init__(self, reference: Reference, settings: DriftWatching, line: socket.socket, name: str = "") -> None:
        super().__init__(reference, settings, name)
        self.line = line
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        self._told = {"dropped_batches": 0, "dropped_samples": 0, "errors": 0}

    def _see(self, inputs: Features, outputs: Features, count: int) -> None:
        with self._lock:
            now = {name: self._counters[name] for name in self._told}
        lost = {name: now[name] - told for name, told in self._told.items() if now[name] > told}
        left = count
        for datagram, samples in pack(inputs, outputs, count, lost):
            if not self._sent(datagram):
                with self._lock:
                    self._counters["dropped_batches"] += 1
                    self._counters["dropped_samples"] += left
                return
            self._told = now
            left -= samples

    def _sent(self, datagram: bytes) -> bool:
        """Send it, or return that there is no room; only this thread waits for some, and not long."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                # For this call only: the socket itself is shared with other processes.
                self.line.send(datagram, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.monotonic() > deadline or self._closing.wait(_PAUSE):
                    return False
            else:
                return True


def pack(inputs: Features, outputs: Features, count: int, lost: dict[str, int]) -> Iterator[tuple[bytes, int]]:
    """Yield the datagrams of the features of so many samples, each with how many of them it holds."""
    numbers = [(part, name, values) for part, name, values in _each(inputs, outputs) if isinstance(values, np.ndarray)]
    texts = [
        (part, name, values) for part, name, values in _each(inputs, outputs) if not isinstance(values, np.ndarray)
    ]
    letters = sum(len(text) for _, _, values in texts for text in values if text is not None)
    size = max(1, (8 * len(numbers) + 8 * len(texts)) + 2 * letters // max(count, 1))
    step = max(1, MOST_BYTES // size)
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        head = {
            "count": rows.stop - start,
            "lost": lost,
            "numbers": [[part, name] for part, name, _ in numbers],
            "texts": [[part, name, list(values[rows])] for part, name, values in texts],
        }
        lost = {}
        body = b"".join([np.ascontiguousarray(values[rows], np.float64).tobytes() for _, _, values in numbers])
        yield json.dumps(head, separators=(",", ":")).encode() + b"\n" + body, rows.stop - start


def unpack(datagram: bytes) -> tuple[Features, Features, int, dict[str, int]]:
    """Return what `pack` packed: features of samples and of answers, their number, and what was lost before.

    Raises
    ------
    ValueError
        If it is no such datagram.
    """
    text, _, body = datagram.partition(b"\n")
    head = json.loads(text)
    found: dict[str, Features] = {part: {} for part in _PARTS}
    count = int(head["count"])
    columns = np.frombuffer(body, np.float64).reshape(len(head["numbers"]), count)
    for (part, name), values in zip(head["numbers"], columns, strict=True):
        found[part][name] = values
    for part, name, values in head["texts"]:
        found[part][name] = values
    return found["input"], found["output"], count, head["lost"]


def receive(line: socket.socket, watch: DriftWatch) -> None:
    """Have a watch look at what comes over a line, in a thread that ends when nothing needs the process any more."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)

    def take() -> None:
        while not watch.closing:
            try:
                if select.select([line], [], [], _LOOK)[0]:
                    watch.feed_features(*unpack(line.recv(8 * MOST_BYTES)))
            except (ValueError, KeyError, TypeError) as error:
                if line.fileno() < 0:
                    return
                log.warning("drift watch: what another process handed over was not looked at: %s", error)
            except OSError:
                return  # the line is closed

    threading.Thread(target=take, name="drift handover", daemon=True).start()


def _each(inputs: Features, outputs: Features) -> Iterator[tuple[str, str, Any]]:
    for part, features in zip(_PARTS, (inputs, outputs), strict=True):
        for name, values in features.items():
            yield part, name, values
