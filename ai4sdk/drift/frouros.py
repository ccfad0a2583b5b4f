"""Frouros's detectors, which need an environment of their own, over a process boundary: lines of JSON, no code."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sdk.drift.sketch import Sketch
from ai4sdk.drift.streams import ranks
from ai4sdk.errors import EnvironmentFault, RunFailed, UsageError
from ai4sdk.processes import die_with_parent
from ai4sdk.spec.drift import Frouros

__all__ = ["DETECTORS", "FrourosProcess", "reference_ranks"]

STREAMING = (
    *("ADWIN", "BOCD", "CUSUM", "DDM", "ECDDWT", "EDDM", "GeometricMovingAverage", "HDDMA", "HDDMW", "KSWIN"),
    *("PageHinkley", "RDDM", "STEPD"),
)
TESTS = ("AndersonDarlingTest", "BWSTest", "CVMTest", "KSTest", "KuiperTest", "MannWhitneyUTest", "WelchTTest")
DISTANCES = (
    *("BhattacharyyaDistance", "EMD", "EnergyDistance", "HellingerDistance", "HINormalizedComplement", "JS", "KL"),
    *("MMD", "PSI"),
)
FITTED = ("IncrementalKSTest", "MMDStreaming")
DETECTORS = (*STREAMING, *TESTS, *DISTANCES, *FITTED)
"""Names, as in Frouros's own catalogue; without those for texts."""

MOST_REFERENCE = 1_000
_PATIENCE = 60.0
_END = 5.0
_RESTARTS = 3
_SOUND = 100
"""After so many answers failures before are forgotten, or one in a week would be too many in a month."""
_PIECE = 4096
"""Bytes that a pipe takes at once where it takes any, and that are kept of what the process says beside."""


class FrourosProcess:
    """A process with detectors of some features; started again if it dies.

    Values go as ranks in the reference, 0 to 1; a classifier's confidence as 1 less its rank, so that detectors that
    wait for errors to grow see it fall.

    Parameters
    ----------
    settings
        Interpreter and detectors.
    features
        Which are watched, with their reference; those that are no numbers are left out.
    window
        Samples that are compared at once.

    Raises
    ------
    UsageError
        If a detector's name is unknown.
    EnvironmentFault
        If there is no such interpreter.
    """

    def __init__(self, settings: Frouros, features: Mapping[str, Sketch], window: int) -> None:
        for name in settings.detectors:
            if name not in DETECTORS:
                near = difflib.get_close_matches(name, DETECTORS, n=1)
                known = near[0] if near else f"one of {', '.join(DETECTORS)}"
                raise UsageError(
                    f"Frouros has no detector {name!r} that is known", hint=f"name {known} in drift.frouros.detectors"
                )
        self.python = shutil.which(settings.python)
        if self.python is None:
            raise EnvironmentFault(
                f"there is no interpreter {settings.python} for Frouros's detectors",
                hint="python -m venv frouros && frouros/bin/pip install frouros; then python: frouros/bin/python",
            )
        self.features = {name: sketch for name, sketch in features.items() if sketch.is_number and sketch.samples}
        self.names = list(settings.detectors)
        self.version: str | None = None
        self._opening = {
            "window": window,
            "detectors": [
                {
                    "feature": feature,
                    "name": name,
                    "options": options,
                    "reference": self._turned(feature, reference_ranks(sketch)).tolist(),
                }
                for feature, sketch in self.features.items()
                for name, options in settings.detectors.items()
            ],
        }
        self.given_up = False
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = self._said = b""
        self._failures = self._answers = 0

    def start(self) -> None:
        """Start the process, so that what is wrong with it is known before values come.

        Raises
        ------
        RunFailed
            See `see`.
        """
        self._asked(None)

    def see(self, feature: str, numbers: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Show new values to the detectors of a feature; return what each says.

        Raises
        ------
        RunFailed
            If the process cannot be had or does not answer; it is given up after three times.
        """
        known = self.features.get(feature)
        if known is None or self.given_up:
            return []
        values = self._turned(feature, ranks(known, numbers)).tolist()
        results: list[dict[str, Any]] = self._asked({"values": {feature: values}})["results"] if values else []
        return results

    def kill(self) -> None:
        """End the process at once, whichever thread waits for it."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process."""
        process, self._process, self._rest, self._said = self._process, None, b"", b""
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def _turned(self, feature: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 - values if feature == "output:confidence" else values

    def _asked(self, question: Mapping[str, Any] | None) -> dict[str, Any]:
        """Ask, after the process has been started where there is none; count what fails."""
        try:
            if self._process is None:
                self._spawn()
                self.version = str(self._ask(self._opening)["ready"])
            answer = {} if question is None else self._ask(question)
        except (OSError, EOFError, ValueError, KeyError) as error:
            told = f"Frouros's detectors in {self.python} failed: {self._reason(error)}"
            self.close()
            self._failures += 1
            self.given_up = self._failures > _RESTARTS
            missing = "No module named 'frouros'" in told
            raise RunFailed(
                told + ("; they are given up" if self.given_up else ""),
                hint=f"{self.python} -m pip install frouros" if missing else None,
            ) from error
        self._answers += 1
        if self._answers >= _SOUND:
            self._failures = 0
        return answer

    def _spawn(self) -> None:
        assert self.python is not None
        host = Path(__file__).with_name("frouros_host.py")
        # Isolated, as what PYTHONPATH names is of our environment, not of that one.
        self._process = subprocess.Popen(
            [self.python, "-I", str(host)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        self._answers = 0

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        answer = json.loads(self._exchanged(json.dumps(question).encode() + b"\n"))
        if not isinstance(answer, dict) or "error" in answer:
            raise ValueError(answer["error"] if isinstance(answer, dict) else "an answer of another form")
        return answer

    def _exchanged(self, line: bytes) -> bytes:
        """Write a line and read one, whatever the other side does or does not; what it says beside is kept."""
        stdin, stdout, stderr = self._pipes()
        heard, deadline = [stdout, stderr], time.monotonic() + _PATIENCE
        while line or b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            readable, writable, _ = select.select(heard, [stdin] if line else [], [], left)
            if not readable and not writable:
                raise TimeoutError(f"no answer in {_PATIENCE:.0f} s")
            if stderr in readable:
                said = os.read(stderr, _PIECE)
                self._said = (self._said + said)[-_PIECE:]
                heard = heard if said else [stdout]
            if stdout in readable:
                if not (read := os.read(stdout, 2**16)):
                    raise EOFError
                self._rest += read
            if writable:
                line = line[os.write(stdin, line[:_PIECE]) :]
        answer, _, self._rest = self._rest.partition(b"\n")
        return answer

    def _pipes(self) -> tuple[int, int, int]:
        assert self._process is not None
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        first, second, third = (pipe.fileno() for pipe in pipes if pipe is not None)
        return first, second, third

    def _reason(self, error: Exception) -> str:
        """Return why it failed; where the process has ended, how, and its last words."""
        if self._process is None or not isinstance(error, EOFError | BrokenPipeError):
            return str(error)
        try:
            status = self._process.wait(_END)
        except subprocess.TimeoutExpired:
            return "the process closed the line"
        stderr = self._pipes()[2]
        os.set_blocking(stderr, False)
        with contextlib.suppress(BlockingIOError):  # a child of its own has the other end
            while read := os.read(stderr, _PIECE):
                self._said = (self._said + read)[-_PIECE:]
        words = self._said.decode(errors="replace").strip().rpartition("\n")[2]
        return f"the process ended with {status}" + (f": {words[:200]}" if words else "")


def reference_ranks(known: Sketch) -> NDArray[np.float64]:
    """Return a sample of the reference as ranks: the middle of each cell as often as it was counted, thinned evenly."""
    up_to = np.cumsum(known.counts)
    middle = (up_to - known.counts / 2) / max(known.samples, 1)
    places = np.arange(known.samples)
    if known.samples > MOST_REFERENCE:
        places = np.linspace(0, known.samples - 1, MOST_REFERENCE).round().astype(int)
    sample: NDArray[np.float64] = middle[np.searchsorted(up_to, places, side="right")]
    return sample
