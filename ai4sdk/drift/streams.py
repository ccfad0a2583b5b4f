"""River's detectors on streams of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sdk.drift.sketch import Sketch
from ai4sdk.drift.states import Latch
from ai4sdk.errors import EnvironmentFault, UsageError

__all__ = ["DETECTORS", "Stream", "open_streams"]

DETECTORS = {"adwin": "ADWIN", "kswin": "KSWIN", "page_hinkley": "PageHinkley"}
"""Name → class in ``river.drift``."""

KSWIN_WINDOW, KSWIN_NEWEST = 300, 60
"""Values that KSWIN keeps, and the newest of them, which it compares with as many of the others."""
KSWIN_TESTS = 1000
"""It tests at every sample, and neighbours are nearly the same test: what it may spend is for about so many."""


class Stream:
    """One detector on one feature.

    Numbers are replaced by their rank in the reference, 0 to 1, so that a detector's thresholds mean the same for
    every feature and outliers weigh no more than others.

    Parameters
    ----------
    feature
        Name of the feature.
    known
        Its reference.
    detector
        One of river's.
    hold
        Samples for which an alarm stays.
    """

    def __init__(self, feature: str, known: Sketch, detector: Any, hold: int) -> None:
        self.feature, self.known, self.detector = feature, known, detector
        self.latch = Latch(hold)
        self.samples = self.alarms = 0

    def see(self, numbers: NDArray[np.float64]) -> bool:
        """Look at new numbers one by one; return whether any was an alarm. What is missing is left out."""
        alarmed = False
        for rank in ranks(self.known, numbers).tolist():
            self.detector.update(rank)
            hit = bool(self.detector.drift_detected)
            self.latch.see(hit)
            self.samples += 1
            self.alarms += hit
            alarmed |= hit
        return alarmed


def ranks(known: Sketch, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the reference that is below each number, half of what is in the same cell included."""
    numbers = numbers[np.isfinite(numbers)]
    cumulated = np.concatenate([[0], np.cumsum(known.counts)]) / max(known.samples, 1)
    if known.kind == "bins":
        assert known.edges is not None
        found = np.searchsorted(known.edges, numbers, side="left")
        middle: NDArray[np.float64] = (cumulated[found] + cumulated[found + 1]) / 2
        return middle
    assert known.values is not None
    below = np.searchsorted(known.values, numbers - 1e-6 * np.abs(numbers), side="left")
    up_to = np.searchsorted(known.values, numbers + 1e-6 * np.abs(numbers), side="right")
    return (cumulated[below] + cumulated[up_to]) / 2


def open_streams(
    names: Sequence[str], features: Mapping[str, Sketch], *, alpha: float, hold: int
) -> dict[str, list[Stream]]:
    """Make detectors for features.

    Parameters
    ----------
    names
        Of `DETECTORS`.
    features
        Which are watched, with their reference; those that are no numbers are left out.
    alpha
        Shared by all detectors that have such a threshold.
    hold
        See `Stream`.

    Returns
    -------
    dict
        Feature → its detectors, by the order of ``names``.

    Raises
    ------
    EnvironmentFault
        If river is not installed.
    UsageError
        If a name is unknown.
    """
    if unknown := [name for name in names if name not in DETECTORS]:
        raise UsageError(f"there is no detector {unknown[0]!r}", hint=f"there are {', '.join(DETECTORS)}")
    numbers = {name: sketch for name, sketch in features.items() if sketch.is_number and sketch.samples}
    if not names or not numbers:
        return {}
    try:
        from river import drift
    except ImportError as error:
        raise EnvironmentFault(
            f"the detectors {', '.join(names)} are river's, which is not installed", hint="pip install 'ai4sdk[drift]'"
        ) from error
    share = alpha / (len(numbers) * len(names))
    made = {
        "adwin": lambda: drift.ADWIN(delta=share),
        "kswin": lambda: drift.KSWIN(share / KSWIN_TESTS, KSWIN_WINDOW, KSWIN_NEWEST, seed=0),
        "page_hinkley": lambda: drift.PageHinkley(),
    }
    return {name: [Stream(name, sketch, made[each](), hold) for each in names] for name, sketch in numbers.items()}
