"""Samples gathered into windows, each held against the reference."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ai4sdk.drift.features import Features, joined
from ai4sdk.drift.reference import Reference
from ai4sdk.drift.verdict import Verdict, judge

__all__ = ["Windows"]

_LOOSE = 256


class Windows:
    """Windows that follow each other without overlap.

    Parameters
    ----------
    reference
        What they are held against.
    size
        Samples in a window.
    alpha
        Largest chance of any false alarm in a window.
    """

    def __init__(self, reference: Reference, size: int, alpha: float) -> None:
        self.reference, self.size, self.alpha = reference, size, alpha
        self.waiting = 0
        self._batches: list[tuple[Features, Features]] = []
        self._loose = 0
        self._names: tuple[set[str], set[str]] | None = None

    def add(self, inputs: Features, outputs: Features) -> Iterator[Verdict]:
        """Add the features of some samples; yield the verdict on each window that is full now."""
        names = (set(inputs), set(outputs))
        if names != self._names:  # samples or answers are watched that were not before, or no longer
            self._batches, self._loose, self.waiting, self._names = [], 0, 0, names
        count = max((len(values) for part in (inputs, outputs) for values in part.values()), default=0)
        if not count:
            return
        self._batches.append((inputs, outputs))
        self._loose += 1
        if self._loose == _LOOSE:  # single samples are better kept together: each array has a head of its own
            parts = self._batches[-_LOOSE:]
            self._batches[-_LOOSE:] = [(joined([one for one, _ in parts]), joined([two for _, two in parts]))]
            self._loose = 0
        self.waiting += count
        if self.waiting < self.size:
            return
        whole = [joined([batch[part] for batch in self._batches]) for part in (0, 1)]
        start = 0
        while self.waiting >= self.size:
            one, two = (_cut(part, start, start + self.size) for part in whole)
            self.waiting -= self.size
            start += self.size
            yield judge(self.reference, one, two, alpha=self.alpha, pause=_give_way)
        self._batches, self._loose = [(_cut(whole[0], start, None), _cut(whole[1], start, None))], 0


def _give_way() -> None:
    """Let the threads that answer have the interpreter; they would wait up to 5 ms for it."""
    time.sleep(5e-5)


def _cut(features: Features, start: int, end: int | None) -> Features:
    return {name: values[start:end] for name, values in features.items()}
