"""Batches wait in a bounded queue and a thread looks at them, so that who answers never waits."""

from __future__ import annotations

import copy
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ai4sdk.drift.features import Features, features_of_inputs, features_of_outputs
from ai4sdk.drift.reference import Reference
from ai4sdk.errors import Ai4Error
from ai4sdk.spec.drift import DriftWatching

if TYPE_CHECKING:
    from ai4sdk.worker.prediction import Prediction

__all__ = ["Feeding"]

log = logging.getLogger(__name__)

MOST_BYTES = 64 * 2**20
"""So much may wait, however few batches it is."""
_MOST_ERRORS = 100
"""Errors that are known, and so not logged again."""
_CELL = 32
"""What a number takes where it is an object of its own."""
_PLAIN = frozenset({float, int, bool, type(None)})


class Feeding(ABC):
    """A queue of batches and the thread that reads their features.

    Parameters
    ----------
    reference
        What the model was trained on; see `ai4sdk.drift.reference.read_reference`.
    settings
        How many batches may wait, and how much of a core looking at them may take.
    name
        Of the model, for the log.
    """

    def __init__(self, reference: Reference, settings: DriftWatching, name: str = "") -> None:
        self.reference, self.settings, self.name = reference, settings, name
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting = self._bytes = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._counters = dict.fromkeys(("batches", "samples", "dropped_batches", "dropped_samples", "errors"), 0)
        self._error: str | None = None
        self._known_errors: set[str] = set()

    # What the serving thread calls ----------------------------------------------------------------------------------

    def feed(self, samples: Any, prediction: Prediction | None) -> bool:
        """Hand over a batch; return whether it will be looked at.

        Never waits: where too much waits already, the batch is dropped and counted. Arrays that own their memory must
        not be changed afterwards; views of other memory are copied.

        Parameters
        ----------
        samples
            What was asked: records, rows, an array; for pictures and recordings also the array the module takes, which
            saves reading them twice. ``None`` watches answers only.
        prediction
            What was answered. ``None`` watches samples only.
        """
        count = len(prediction) if prediction is not None else _count(samples)
        size = _bytes_in(samples) + (0 if prediction is None else prediction.outputs.nbytes)
        if not self._is_room(count, size):
            return False
        if isinstance(samples, np.ndarray) and prediction is not None:
            shared = np.may_share_memory(samples, prediction.outputs)  # a module may hand on what it was given
            prediction = copy.deepcopy(prediction) if shared else prediction
        self._queue.put((partial(self._read, _kept(samples), prediction, count), size))
        return True

    def _is_room(self, count: int, size: int) -> bool:
        """Take room in the queue for a batch, or count it as dropped."""
        with self._lock:
            full = self._waiting >= self.settings.queue or (self._waiting > 0 and self._bytes + size > MOST_BYTES)
            if full or self._closing.is_set():
                self._counters["dropped_batches"] += 1
                self._counters["dropped_samples"] += count
                return False
            self._waiting += 1
            self._bytes += size
        return True

    # Life -----------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the thread that looks at batches."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="drift watch", daemon=True)
            self._thread.start()
        return self

    def close(self, timeout: float = 5.0) -> None:
        """Look at no further batch and end the thread."""
        self._closing.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def closing(self) -> bool:
        """Whether nothing will be looked at any more."""
        return self._closing.is_set()

    def drain(self, timeout: float = 60.0) -> bool:
        """Wait until nothing waits; return whether that came about."""
        with self._idle:
            return self._idle.wait_for(lambda: self._waiting == 0, timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # The thread -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:  # noqa: B027 - there may be nothing to do
        """Do what takes long and is better done before the first batch."""

    def _end(self) -> None:  # noqa: B027 - as above
        """Let go of what `_begin` got hold of."""

    @abstractmethod
    def _see(self, inputs: Features, outputs: Features, count: int) -> None:
        """Do something with the features of so many samples and of the answers to them."""

    def _work(self) -> None:
        self._begin()
        while (item := self._queue.get()) is not None and not self._closing.is_set():
            work, size = item
            started = time.thread_time()
            try:
                work()
            except Exception as error:  # noqa: BLE001 - whatever a batch holds, the next one is looked at
                self._note_error(error, "a batch was not looked at")
            with self._idle:
                self._waiting -= 1
                self._bytes -= size
                if self._waiting == 0:
                    self._idle.notify_all()
            rest = (time.thread_time() - started) * (1 / self.settings.load - 1)
            if rest > 0:
                self._closing.wait(rest)
        self._end()

    def _read(self, samples: Any, prediction: Prediction | None, count: int) -> None:
        form = self.reference.form
        inputs: Features = {} if samples is None or form is None else features_of_inputs(samples, form)
        outputs: Features = {} if prediction is None else features_of_outputs(prediction)
        self._see(inputs, outputs, count)

    def _note_error(self, error: Exception, what: str) -> None:
        hint = f"; {error.hint}" if isinstance(error, Ai4Error) and error.hint else ""
        text = f"{type(error).__name__}: {error.message if isinstance(error, Ai4Error) else error}{hint}"
        with self._lock:
            self._counters["errors"] += 1
            self._error = text
            is_new = text not in self._known_errors and len(self._known_errors) < _MOST_ERRORS
            self._known_errors.add(text)
        if is_new:  # once, not with every batch
            log.warning("%sdrift watch: %s: %s", f"model {self.name}: " if self.name else "", what, text)


def _count(samples: Any) -> int:
    return len(samples) if isinstance(samples, Sequence | np.ndarray) and not isinstance(samples, str | bytes) else 1


def _kept(samples: Any) -> Any:
    """Return samples that stay as they are: a server puts the next batch where those of the last one lay."""
    if isinstance(samples, np.ndarray):
        return samples if samples.flags.owndata else samples.copy()
    if isinstance(samples, Sequence) and samples and isinstance(samples[0], np.ndarray):
        return [_kept(each) for each in samples]
    return samples


def _bytes_in(samples: Any) -> int:
    """Return about how much memory samples take; who answers waits for it."""
    if isinstance(samples, np.ndarray):
        return int(samples.nbytes)
    if isinstance(samples, str | bytes):
        return len(samples)
    if isinstance(samples, dict):
        samples = samples.values()
    elif not isinstance(samples, list | tuple):
        return 0
    return _CELL * len(samples) + sum([0 if type(each) in _PLAIN else _bytes_in(each) for each in samples])
