"""Frouros's detectors, which need an environment of their own, over a process boundary: lines of JSON, no code."""

from __future__ import annotations

import difflib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sdk.drift.sketch import Sketch
from ai4sdk.drift.streams import ranks
from ai4sdk.errors import ConfigError, EnvironmentFault, Problem, RunFailed
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
_RESTARTS = 3


class FrourosProcess:
    """A process with detectors of some features; started by `see`, and again if it dies.

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
    ConfigError
        If a detector's name is unknown.
    EnvironmentFault
        If there is no such interpreter.
    """

    def __init__(self, settings: Frouros, features: Mapping[str, Sketch], window: int) -> None:
        for name in settings.detectors:
            if name not in DETECTORS:
                near = difflib.get_close_matches(name, DETECTORS, n=1)
                fix = near[0] if near else f"there are {', '.join(DETECTORS)}"
                problem = Problem(f"Frouros has no detector {name!r} that is known", "frouros.detectors", fix=fix)
                raise ConfigError([problem])
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
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._failures = 0

    def see(self, feature: str, numbers: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Show new values to the detectors of a feature; return what each says.

        Raises
        ------
        RunFailed
            If the process cannot be had or does not answer; it is given up after three times.
        """
        known = self.features.get(feature)
        if known is None or self._failures > _RESTARTS:
            return []
        values = self._turned(feature, ranks(known, numbers)).tolist()
        try:
            if self._process is None:
                self.version = str(self._start()["ready"])
            results: list[dict[str, Any]] = self._ask({"values": {feature: values}})["results"]
        except (OSError, ValueError, KeyError, TimeoutError) as error:
            self.close()
            self._failures += 1
            given_up = "; it is given up" if self._failures > _RESTARTS else ""
            raise RunFailed(f"Frouros's detectors in {self.python} failed: {error}{given_up}") from error
        return results

    def close(self) -> None:
        """End the process."""
        process, self._process, self._rest = self._process, None, b""
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _turned(self, feature: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 - values if feature == "output:confidence" else values

    def _start(self) -> dict[str, Any]:
        assert self.python is not None
        host = Path(__file__).with_name("frouros_host.py")
        # Isolated, as what PYTHONPATH names is of our environment, not of that one.
        self._process = subprocess.Popen(
            [self.python, "-I", str(host)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return self._ask(self._opening)

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._line())
        if not isinstance(answer, dict) or "error" in answer:
            raise ValueError(answer["error"] if isinstance(answer, dict) else "an answer of another form")
        return answer

    def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + _PATIENCE
        while b"\n" not in self._rest:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no answer in {_PATIENCE:.0f} s")
            read = os.read(descriptor, 2**16)
            if not read:
                raise OSError(f"the process ended with {self._process.wait()}")
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def reference_ranks(known: Sketch) -> NDArray[np.float64]:
    """Return a sample of the reference as ranks: the middle of each cell as often as it was counted, thinned evenly."""
    up_to = np.cumsum(known.counts)
    middle = (up_to - known.counts / 2) / max(known.samples, 1)
    places = np.arange(known.samples)
    if known.samples > MOST_REFERENCE:
        places = np.linspace(0, known.samples - 1, MOST_REFERENCE).round().astype(int)
    sample: NDArray[np.float64] = middle[np.searchsorted(up_to, places, side="right")]
    return sample
