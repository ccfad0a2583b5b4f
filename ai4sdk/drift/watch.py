"""Watch a served model for drift, beside the answering.

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

import difflib
import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ai4sdk.drift.features import Features
from ai4sdk.drift.feeding import Feeding
from ai4sdk.drift.frouros import TESTS, FrourosProcess
from ai4sdk.drift.reference import Reference
from ai4sdk.drift.sketch import Sketch
from ai4sdk.drift.states import LEVELS, Hits, Latch, State, worst
from ai4sdk.drift.streams import open_streams
from ai4sdk.drift.verdict import Verdict
from ai4sdk.drift.windows import Windows
from ai4sdk.errors import RunFailed
from ai4sdk.runs.files import append_json_line
from ai4sdk.spec.drift import DriftWatching

__all__ = ["DriftWatch"]

log = logging.getLogger(__name__)

_TOLD = 5
_MOST_UNWRITTEN = 1_000
"""Events that are kept while their file cannot be written."""


class DriftWatch(Feeding):
    """Detectors of one model in one process.

    Parameters
    ----------
    reference
        What the model was trained on; see `ai4sdk.drift.reference.read_reference`.
    settings
        Which detectors, and how.
    events
        File that each change of state is appended to, as a line of JSON; several processes may share it.
    name, version
        Of the model, for log and events.

    Raises
    ------
    EnvironmentFault
        If a detector's package is not installed.
    UsageError
        If a detector is unknown.
    """

    def __init__(
        self,
        reference: Reference,
        settings: DriftWatching | None = None,
        *,
        events: Path | None = None,
        name: str = "",
        version: str = "",
    ) -> None:
        super().__init__(reference, settings or DriftWatching(), name)
        self.events, self.version = events, version
        how = self.settings
        self._windows = Windows(reference, how.window, how.alpha) if "windows" in how.detectors else None
        self._names = [name for name in how.detectors if name != "windows"]
        watched, self.notes = _watched(reference, how)
        self._streams = open_streams(self._names, watched, alpha=how.alpha, hold=how.window)
        self._frouros = None if how.frouros is None else FrourosProcess(how.frouros, watched, how.window)
        self._told: dict[str, Hits | Latch] = {}
        self._counters |= {"windows": 0, "alarms": 0}
        self._states: dict[str, State] = {}
        self._changed: dict[str, float] = {}
        self._distances: dict[str, float | None] = {}
        self._overall = Hits()
        self._features: dict[str, Hits] = {}
        self._last: dict[str, Any] = {}
        self._since = time.time()
        self._unwritten: deque[dict[str, Any]] = deque(maxlen=_MOST_UNWRITTEN)

    def feed_features(self, inputs: Features, outputs: Features, count: int, lost: Mapping[str, int]) -> bool:
        """Hand over features that another process has read; see `feed`.

        Parameters
        ----------
        inputs, outputs
            Of the samples and of the answers to them.
        count
            Samples.
        lost
            What that process has dropped since the last time, and errors, by the names of the counters.
        """
        with self._lock:
            for name, more in lost.items():
                self._counters[name] += more
        size = sum(values.nbytes if isinstance(values, np.ndarray) else 64 * count for values in inputs.values())
        if not self._is_room(count, size):
            return False
        self._queue.put((partial(self._see, inputs, outputs, count), size))
        return True

    def close(self, timeout: float = 5.0) -> None:
        """Look at no further batch, end the thread, and Frouros's process."""
        super().close(timeout)
        if self._frouros is None:
            return
        if self._thread is None:
            self._frouros.close()
        elif self._thread.is_alive():  # it waits for an answer that does not come
            self._frouros.kill()
            self._thread.join(timeout)

    # What is told ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The worst state of all detectors."""
        with self._lock:
            return worst(list(self._states.values()))

    def snapshot(self) -> dict[str, Any]:
        """Return how things stand, ready for JSON.

        ``state``; ``began``: since when, as what was before is forgotten, and ``pid``; ``counters``, which only grow;
        ``gauges``, plain numbers; ``streams``: detector → its state, its number (0, 1, 2) and since when; ``features``:
        the state of each feature in windows; ``distances``: of Frouros's detectors that have no threshold;
        ``last_window``: the tests of the last one with the smallest p-values.
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
                "version": self.version,
                "state": state,
                "began": _date(self._since),
                "pid": os.getpid(),
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
                "detectors": self._detectors,
                "notes": [*self.reference.notes, *self.notes],
            }

    # The thread -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        for note in self.notes:
            log.warning("%sdrift watch: %s", self._model, note)
        self._write({"event": "began", "detectors": self._detectors})
        import scipy.stats  # noqa: F401 - takes a second, which is better spent before the first batch than in its midst

        if self._frouros is not None:
            try:
                self._frouros.start()
            except RunFailed as error:
                self._frouros_failed(error)

    def _end(self) -> None:
        if self._frouros is not None:
            self._frouros.close()

    def _see(self, inputs: Features, outputs: Features, count: int) -> None:
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
            self._counters["samples"] += count
        self._write_rest()

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
            self._frouros_failed(error)
            return
        tests = sum(name in TESTS for name in self._frouros.names) * len(self._frouros.features)
        for result in results:
            stream = f"frouros.{result['name']}/{feature}"
            detail: dict[str, Any] = {}
            if "error" in result:
                self._note_error(RunFailed(result["error"]), f"{stream} failed")
                continue
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

    def _frouros_failed(self, error: RunFailed) -> None:
        self._note_error(error, "Frouros's detectors did not look")
        if self._frouros is None or not self._frouros.given_up:
            return
        with self._lock:  # what they said last is no longer how things stand
            self._states = {name: state for name, state in self._states.items() if not name.startswith("frouros.")}
        self._write({"event": "given up", "stream": "frouros", "error": error.message})

    @property
    def _detectors(self) -> list[str]:
        how = self.settings
        return [*how.detectors, *(f"frouros.{name}" for name in (how.frouros.detectors if how.frouros else ()))]

    @property
    def _model(self) -> str:
        return f"model {self.name}: " if self.name else ""

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
        why = f" ({why})" if why else ""
        log.warning("%sdrift watch: %s went from %s to %s%s", self._model, stream, was, state, why)
        self._write({"event": "changed", "stream": stream, "state": state, "was": was, **detail}, now)

    def _write(self, record: dict[str, Any], at: float | None = None) -> None:
        """Append a line to the event file; where that fails it is tried again after the next batch."""
        if self.events is None:
            return
        head = {"time": _date(time.time() if at is None else at), "name": self.name, "version": self.version}
        self._unwritten.append({**head, **record})
        if (error := self._write_rest()) is not None:
            self._note_error(error, "an event was not written, and is kept")

    def _write_rest(self) -> OSError | None:
        while self._unwritten and self.events is not None:
            try:
                append_json_line(self.events, self._unwritten[0])
            except OSError as error:
                return error
            self._unwritten.popleft()
        return None


def _watched(reference: Reference, how: DriftWatching) -> tuple[dict[str, Sketch], list[str]]:
    """Return the features whose numbers are looked at one by one, and what a reader must know of them."""
    outputs = {f"output:{name}": sketch for name, sketch in reference.outputs.items()}
    detectors = [*(name for name in how.detectors if name != "windows"), *(["Frouros"] if how.frouros else [])]
    if not detectors:
        return {}, []
    watched, notes = outputs, []
    if how.streams is not None:
        every = outputs | {f"input:{name}": sketch for name, sketch in reference.inputs.items()}
        names = {key.partition(":")[2]: sketch.is_number for key, sketch in every.items()}
        for name in how.streams:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                notes.append(
                    f"streams names {name!r}, which is no feature here" + (f"; {near[0]!r} is" if near else "")
                )
            elif not names[name]:
                notes.append(f"streams names {name!r}, which is no number: only windows look at it.")
        watched = {key: sketch for key, sketch in every.items() if key.partition(":")[2] in how.streams}
    if not any(sketch.is_number and sketch.samples for sketch in watched.values()):
        notes.append(f"There is no number for {', '.join(detectors)} to look at; name features in streams.")
    return watched, notes


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
