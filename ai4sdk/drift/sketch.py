"""Summaries of features: counts between edges, of values or of texts. Small, and no record can be read from them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ai4sdk.errors import DataError

__all__ = ["BINS", "BUCKETS", "MOST_TEXTS", "MOST_VALUES", "Sketch", "Values", "missing_in", "sketch"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Values = Floats | Sequence[str | None]
"""Values of one feature: numbers, NaN where missing, or texts, ``None`` where missing."""

BINS = 64
PER_BIN = 5
"""So many samples a bin has on average, or there are fewer bins."""

MOST_VALUES = 20
"""Numbers with at most so many different values, each five times on average, are counted by value."""

MOST_TEXTS = 100
BUCKETS = 128
"""More different texts than ``MOST_TEXTS`` are counted in so many buckets of a hash."""

Kind = Literal["bins", "values", "texts", "buckets"]


@dataclass(frozen=True, eq=False)
class Sketch:
    """Summary of one feature.

    Parameters
    ----------
    kind
        ``bins``: numbers counted between edges. ``values``, ``texts``: counted one by one. ``buckets``: texts counted
        by hash.
    counts
        Samples in each cell; those that are missing are in none.
    missing
        Samples whose value is missing or no finite number.
    edges
        For ``bins``, ascending; cell ``i`` holds ``edges[i - 1] < value <= edges[i]``, the outer ones are open.
    values
        For ``values``, ascending.
    texts
        For ``texts``, ascending.
    """

    kind: Kind
    counts: Integers
    missing: int = 0
    edges: Floats | None = None
    values: Floats | None = None
    texts: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Samples with a value."""
        return int(self.counts.sum())

    @property
    def is_number(self) -> bool:
        """Whether the feature is a number."""
        return self.kind in ("bins", "values")

    def cells(self, values: Values) -> tuple[Integers, Integers, list[str]]:
        """Count new values in the cells of this summary.

        Parameters
        ----------
        values
            New values of the same feature.

        Returns
        -------
        tuple
            Counts of the reference and of the new values, cell by cell, and names of the cells. Values and texts
            that the reference has not are cells of their own after the others, of count 0 in the reference.
        """
        if self.kind == "bins":
            assert self.edges is not None
            found = np.searchsorted(self.edges, _finite(values), side="left")
            return self.counts, np.bincount(found, minlength=len(self.counts)).astype(np.int64), _bin_names(self.edges)
        if self.kind == "values":
            return self._by_value(_finite(values))
        present = [text for text in values if text is not None]
        if self.kind == "buckets":
            new = np.bincount([bucket_of(str(text)) for text in present], minlength=BUCKETS).astype(np.int64)
            return self.counts, new, [f"bucket {number}" for number in range(BUCKETS)]
        counted = Counter(map(str, present))
        unseen = sorted(set(counted).difference(self.texts))
        names = [*self.texts, *unseen]
        return _longer(self.counts, len(unseen)), np.array([counted[name] for name in names], np.int64), names

    def _by_value(self, numbers: Floats) -> tuple[Integers, Integers, list[str]]:
        assert self.values is not None
        known = self.values
        at = _nearest(known, numbers) if len(known) else np.zeros(len(numbers), np.int64)
        is_known = np.isclose(known[at], numbers, rtol=1e-6, atol=0.0) if len(known) else np.zeros(len(numbers), bool)
        new = np.bincount(at[is_known], minlength=len(known)).astype(np.int64)
        unseen, counts = np.unique(numbers[~is_known], return_counts=True)
        names = [f"{value:.6g}" for value in [*known, *unseen]]
        return _longer(self.counts, len(unseen)), np.concatenate([new, counts.astype(np.int64)]), names

    def to_json(self) -> dict[str, Any]:
        """Return it as a mapping for JSON; `from_json` makes an equal one."""
        made: dict[str, Any] = {"kind": self.kind, "counts": self.counts.tolist()}
        if self.missing:
            made["missing"] = self.missing
        if self.edges is not None:
            made["edges"] = self.edges.tolist()
        if self.values is not None:
            made["values"] = self.values.tolist()
        if self.kind == "texts":
            made["texts"] = list(self.texts)
        return made

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Sketch:
        """Read what `to_json` wrote.

        Raises
        ------
        DataError
            If it is damaged.
        """
        try:
            kind, counts = value["kind"], np.asarray(value["counts"], dtype=np.int64)
            edges = np.asarray(value["edges"], np.float64) if kind == "bins" else None
            values = np.asarray(value["values"], np.float64) if kind == "values" else None
            texts = tuple(str(text) for text in value["texts"]) if kind == "texts" else ()
            missing = int(value.get("missing", 0))
            length = {
                "bins": 1 + (0 if edges is None else len(edges)),
                "values": 0 if values is None else len(values),
                "texts": len(texts),
                "buckets": BUCKETS,
            }[kind]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"a summary of the drift reference is damaged: {error}") from error
        places = edges if edges is not None else values
        if counts.shape != (length,) or counts.min(initial=0) < 0 or missing < 0:
            raise DataError("a summary of the drift reference is damaged: its counts do not fit its cells")
        if places is not None and not (np.isfinite(places).all() and (np.diff(places) > 0).all()):
            raise DataError("a summary of the drift reference is damaged: its places are not in order")
        return cls(kind, counts, missing, edges, values, texts)


def sketch(values: Values) -> Sketch:
    """Summarise the values of a feature.

    Parameters
    ----------
    values
        Numbers or texts; what is missing is counted apart.
    """
    missing = missing_in(values)
    if isinstance(values, np.ndarray):
        return _of_numbers(_finite(values), missing)
    counted = Counter(str(text) for text in values if text is not None)
    if len(counted) <= MOST_TEXTS:
        names = sorted(counted)
        return Sketch("texts", np.array([counted[name] for name in names], np.int64), missing, texts=tuple(names))
    counts = np.zeros(BUCKETS, np.int64)
    for text, count in counted.items():
        counts[bucket_of(text)] += count
    return Sketch("buckets", counts, missing)


def missing_in(values: Values) -> int:
    """Count the values that are missing."""
    if isinstance(values, np.ndarray):
        return int(len(values) - np.isfinite(values).sum())
    return sum(text is None for text in values)


def bucket_of(text: str) -> int:
    """Return the bucket of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest()) % BUCKETS


def _of_numbers(numbers: Floats, missing: int) -> Sketch:
    distinct, counts = np.unique(numbers, return_counts=True)
    if len(distinct) <= MOST_VALUES and (len(distinct) <= 1 or len(numbers) >= PER_BIN * len(distinct)):
        return Sketch("values", counts.astype(np.int64), missing, values=distinct.astype(np.float64))
    bins = min(BINS, max(1, len(numbers) // PER_BIN))
    reached = np.cumsum(counts)
    # The first value at which a share is reached; the edge is half way to the next, so that it is nobody's value and
    # values that differ by the rounding of a float are on one side of it.
    places = np.unique(np.searchsorted(reached, len(numbers) * np.arange(1, bins) / bins))
    places = places[places < len(distinct) - 1]
    edges = np.unique(distinct[places] / 2 + distinct[places + 1] / 2)
    found = np.searchsorted(edges, numbers, side="left")
    return Sketch("bins", np.bincount(found, minlength=len(edges) + 1).astype(np.int64), missing, edges=edges)


def _finite(values: Values) -> Floats:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a feature that was a number is none now: {error}") from error
    return numbers[np.isfinite(numbers)]


def _nearest(places: Floats, numbers: Floats) -> Integers:
    after = np.clip(np.searchsorted(places, numbers), 0, len(places) - 1)
    before = np.maximum(after - 1, 0)
    with np.errstate(over="ignore"):
        nearer = np.abs(places[before] - numbers) <= np.abs(places[after] - numbers)
    return np.where(nearer, before, after).astype(np.int64)


def _longer(counts: Integers, by: int) -> Integers:
    return np.concatenate([counts, np.zeros(by, np.int64)])


def _bin_names(edges: Floats) -> list[str]:
    shown = [f"{edge:.4g}" for edge in edges]
    if not shown:
        return ["any"]
    between = [f"{low} to {high}" for low, high in pairwise(shown)]
    return [f"up to {shown[0]}", *between, f"above {shown[-1]}"]
