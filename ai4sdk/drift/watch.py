"""Watch a served model for drift, beside the answering: batches wait in a bounded queue, a thread looks at them.

::

    watch = DriftWatch(read_reference(package), DriftWatching(), events=Path("drift.jsonl"))
    watch.start()
    ...
    watch.feed(samples, prediction)   # never waits; False if the batch was dropped
    ...
    watch.snapshot()                  # for an endpoint and for metrics
    watch.close()
"""

from __future__ import annotations

import copy
import logging
import queue
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ai4sdk.drift.features import Features, features_of_inputs, features_of_outputs
from ai4sdk.drift.frouros import TESTS, FrourosProcess
from ai4sdk.drift.reference import Reference
from ai4sdk.drift.states import LEVELS, Hits, Latch, State, worst
from ai4sdk.drift.streams import open_streams
from ai4sdk.drift.verdict import Verdict
from ai4sdk.drift.windows import Windows
from ai4sdk.errors import RunFailed
from ai4sdk.runs.files import append_json_line
from ai4sdk.spec.drift import DriftWatching

if TYPE_CHECKING:
    from ai4sdk.worker.prediction import Prediction

__all__ = ["DriftWatch"]

log = logging.getLogger(__name__)

MOST_BYTES = 64 * 2**20
"""So much may wait, however few batches it is."""
_TOLD = 5


class DriftWatch:
    """Detectors of one model in one process.

    Parameters
    ----------
    reference
        What the model was trained on; see `ai4sdk.drift.reference.read_reference`.
    settings
        Which detectors, and how.
    events
        File that each change of state is appended to, as a line of JSON; several processes may share it.
    name
        Of the model, for log and events.

    Raises
    ------
    EnvironmentFault
        If a detector's package is not installed.
    ConfigError
        If a detector is unknown.
    """

    def __init__(
        self, reference: Reference, settings: DriftWatching | None = None, *, events: Path | None = None, name: str = ""
    ) -> None:
        self.reference, self.settings = reference, settings or DriftWatching()
        self.events, self.name = events, name
        how = self.settings
        self._windows = Windows(reference, how.window, how.alpha) if "windows" in how.detectors else None
        names = [name for name in how.detectors if name != "windows"]
        watched = {f"output:{name}": sketch for name, sketch in reference.outputs.items()}
        if how.streams is not None:
            watched |= {f"input:{name}": sketch for name, sketch in reference.inputs.items()}
            watched = {name: sketch for name, sketch in watched.items() if name.partition(":")[2] in how.streams}
        self._streams = open_streams(names, watched, alpha=how.alpha, hold=how.window)
        self._frouros = None if how.frouros is None else FrourosProcess(how.frouros, watched, how.window)
        self._told: dict[str, Hits | Latch] = {}
        self._queue: queue.SimpleQueue[tuple[Any, Prediction | None, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting = self._bytes = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._counters = dict.fromkeys(
            ("batches", "samples", "dropped_batches", "dropped_samples", "windows", "alarms", "errors"), 0
        )
        self._states: dict[str, State] = {}
        self._changed: dict[str, float] = {}
        self._distances: dict[str, float | None] = {}
        self._overall = Hits()
        self._features: dict[str, Hits] = {}
        self._last: dict[str, Any] = {}
        self._error: str | None = None

    # What the serving thread calls ----------------------------------------------------------------------------------

    def feed(self, samples: Any, prediction: Prediction | None) -> bool:
        """Hand over a batch; return whether it will be looked at.

        Never waits: where too much waits already, the batch is dropped and counted. Arrays that own their memory must
        not be changed afterwards; views of other memory are copied.

        Parameters
        ----------
        samples
            What was asked: records, rows, an array; for pictures also the array the module takes, which saves
            reading them twice. ``None`` watches answers only.
        prediction
            What was answered. ``None`` watches samples only.
        """
        count = len(prediction) if prediction is not None else _count(samples)
        size = _bytes_in(samples) + (0 if prediction is None else prediction.outputs.nbytes)
        with self._lock:
            full = self._waiting >= self.settings.queue or (self._waiting > 0 and self._bytes + size > MOST_BYTES)
            if full or self._closing.is_set():
                self._counters["dropped_batches"] += 1
                self._counters["dropped_samples"] += count
                return False
            self._waiting += 1
            self._bytes += size
        if isinstance(samples, np.ndarray) and prediction is not None:
            shared = np.may_share_memory(samples, prediction.outputs)  # a module may hand on what it was given
            prediction = copy.deepcopy(prediction) if shared else prediction
        self._queue.put((_kept(samples), prediction, size))
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
        elif self._frouros is not None:
            self._frouros.close()

    def drain(self, timeout: float = 60.0) -> bool:
        """Wait until nothing waits; return whether that came about."""
        with self._idle:
            return self._idle.wait_for(lambda: self._waiting == 0, timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is told ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The worst state of all detectors."""
        with self._lock:
            return worst(list(self._states.values()))

    def snapshot(self) -> dict[str, Any]:
        """Return how things stand, ready for JSON.

        ``state``; ``counters``, which only grow; ``gauges``, plain numbers; ``streams``: detector → its state, its
        number (0, 1, 2) and since when; ``features``: that of each feature in windows; ``distances``: of
        Frouros's detectors that have no threshold; ``last_window``: the tests of
        the last one with the smallest p-values.
        """
        with self._lock:
            streams = {
                name: {"state": state, "level": LEVELS[state], "since": _date(self._changed[name])}
                for name, state in self._states.items()
            }
            state = worst(list(self._states.values()))
            waiting = 0 if self._windows is None else self._windows.waiting
            return {
                "name": self.name,
                "state": state,
                "counters": dict(self._counters),
                "gauges": {
                    "state": LEVELS[state],
                    "queue": self._waiting,
                    "window_samples": waiting,
                    "smallest_p": self._last.get("smallest_p", 1.0),
                },
                "streams": streams,
                "distances": dict(self._distances),
                "features": {name: hits.state for name, hits in self._features.items()},
                "last_window": self._last or None,
                "last_error": self._error,
                "detectors": list(self.settings.detectors),
                "notes": list(self.reference.notes),
            }

    # The thread -----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        import scipy.stats  # noqa: F401 - takes a second, which is better spent before the first batch than in its midst

        while (item := self._queue.get()) is not None and not self._closing.is_set():
            started = time.thread_time()
            try:
                self._look(*item[:2])
            except Exception as error:  # noqa: BLE001 - whatever a batch holds, the next one is looked at
                self._note_error(error)
            with self._idle:
                self._waiting -= 1
                self._bytes -= item[2]
                if self._waiting == 0:
                    self._idle.notify_all()
            rest = (time.thread_time() - started) * (1 / self.settings.load - 1)
            if rest > 0:
                self._closing.wait(rest)
        if self._frouros is not None:
            self._frouros.close()

    def _look(self, samples: Any, prediction: Prediction | None) -> None:
        form = self.reference.form
        inputs: Features = {} if samples is None or form is None else features_of_inputs(samples, form)
        outputs: Features = {} if prediction is None else features_of_outputs(prediction)
        for key, part in (("input", inputs), ("output", outputs)):
            for name, values in part.items():
                if isinstance(values, np.ndarray):
                    self._look_at_stream(f"{key}:{name}", values)
                    self._ask_frouros(f"{key}:{name}", values)
        if self._windows is not None:
            for verdict in self._windows.add(inputs, outputs):
                self._take(verdict)
        with self._lock:  # last, so that whoever sees samples counted sees what was found in them
            self._counters["batches"] += 1
            self._counters["samples"] += len(prediction) if prediction is not None else _count(samples)

    def _look_at_stream(self, feature: str, values: Any) -> None:
        for stream, name in zip(self._streams.get(feature, ()), self._names, strict=False):
            before = stream.alarms
            stream.see(values)
            with self._lock:
                self._counters["alarms"] += stream.alarms - before
            self._set(f"{name}/{feature}", stream.latch.state, {"samples": stream.samples, "alarms": stream.alarms})

    def _ask_frouros(self, feature: str, values: Any) -> None:
        if self._frouros is None:
            return
        try:
            results = self._frouros.see(feature, values)
        except RunFailed as error:  # what is ours goes on
            self._note_error(error)
            return
        tests = sum(name in TESTS for name in self._frouros.names) * len(self._frouros.features)
        for result in results:
            stream = f"frouros.{result['name']}/{feature}"
            detail: dict[str, Any] = {}
            if result["name"] in TESTS:
                hits = self._told.setdefault(stream, Hits())
                assert isinstance(hits, Hits)
                for window in result["windows"]:
                    hit = (window["p"] if window.get("p") is not None else 1.0) < self.settings.alpha / tests
                    with self._lock:
                        self._counters["alarms"] += hit
                    detail = window
                    self._set(stream, hits.see(hit), detail)
                continue
            latch = self._told.setdefault(stream, Latch(self.settings.window))
            assert isinstance(latch, Latch)
            with self._lock:
                self._counters["alarms"] += result["alarms"]
                for window in result["windows"][-1:]:
                    self._distances[stream] = window.get("distance")
            state = latch.see(result["alarms"] > 0, result["seen"])
            self._set(stream, "warning" if state == "ok" and result["warning"] else state, detail)

    @property
    def _names(self) -> list[str]:
        return [name for name in self.settings.detectors if name != "windows"]

    def _take(self, verdict: Verdict) -> None:
        """Take the verdict on a window into account."""
        drifted = {f"{finding.part}:{finding.name}" for finding in verdict.findings if finding.drifted}
        seen = {f"{finding.part}:{finding.name}" for finding in verdict.findings}
        last = {
            "samples": verdict.samples,
            "smallest_p": verdict.smallest,
            "drift": verdict.drifted,
            "drifted": sorted(drifted),
            "findings": [finding.to_json() for finding in verdict.findings[:_TOLD]],
        }
        with self._lock:
            self._counters["windows"] += 1
            self._counters["alarms"] += verdict.drifted
            self._last = {"at": _date(time.time()), **last}
            for name in sorted(seen):
                self._features.setdefault(name, Hits()).see(name in drifted)
        first = [f"{finding.part} {finding.name}" for finding in verdict.findings if finding.drifted][:_TOLD]
        more = len(drifted) - len(first)
        why = ", ".join([*first, *([f"{more} more"] if more > 0 else [])])
        self._set("windows", self._overall.see(verdict.drifted), last, why)

    def _set(self, stream: str, state: State, detail: dict[str, Any], why: str = "") -> None:
        """Note a state; a change is logged and written down, once."""
        now = time.time()
        with self._lock:
            was = self._states.get(stream, "ok")
            known = stream in self._states
            self._states[stream] = state
            if state != was or not known:
                self._changed[stream] = now
        if state == was:
            return
        model = f"model {self.name}: " if self.name else ""
        log.warning("%sdrift watch: %s went from %s to %s%s", model, stream, was, state, f" ({why})" if why else "")
        if self.events is None:
            return
        record = {"time": _date(now), "name": self.name, "stream": stream, "state": state, "was": was, **detail}
        try:
            append_json_line(self.events, record)
        except OSError as error:
            self._note_error(error)

    def _note_error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        with self._lock:
            self._counters["errors"] += 1
            is_new, self._error = text != self._error, text
        if is_new:  # once, not with every batch
            log.warning("drift watch: a batch was not looked at: %s", text)


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
    if isinstance(samples, np.ndarray):
        return int(samples.nbytes)
    if isinstance(samples, bytes):
        return len(samples)
    if isinstance(samples, Sequence) and samples and isinstance(samples[0], bytes | np.ndarray):
        return sum(len(each) if isinstance(each, bytes) else int(np.asarray(each).nbytes) for each in samples)
    return 0


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
