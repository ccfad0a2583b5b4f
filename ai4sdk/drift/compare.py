"""Two-sample tests of new values against a summary. Every p-value holds for small samples and ties."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ai4sdk.drift.sketch import Sketch, Values, missing_in

__all__ = [
    "Comparison",
    "compare",
    "compare_missing",
    "holm",
    "homogeneity",
    "kolmogorov_smirnov",
    "stability_index",
    "total_variation",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EXACT = 50_000
"""Up to this product of the two sample sizes the distribution of the distance is computed exactly."""

MOST_CELLS = 128
"""Of more cells the rarest, counted over both samples, are put together."""

ENOUGH = 5.0
"""Where every expected count is at least this, the chi-square distribution is trusted away from the decision."""

_CELLS_SHARE = 0.01
_PLAIN = 1e-3
_SEEN = 20
"""Drawing tables stops after so many that are as far from expectation as the one found."""
_MOST_DRAWS = 1_000_000
_FIRST, _CHUNK = 60, 2_000
"""Tables drawn at once: few at first, as most features need no more."""


@dataclass(frozen=True)
class Comparison:
    """How new values of one feature differ from the reference.

    Parameters
    ----------
    test
        ``KS``, ``chi-square``, ``Fisher``, or ``none`` where one side has no values.
    p
        Chance of a difference at least as large where both samples are from one distribution; never too small.
    distance
        Kolmogorov–Smirnov distance of numbers, total variation of counts; in 0..1.
    psi
        Population stability index.
    reference, samples
        Values compared, of the reference and new.
    """

    test: str
    p: float
    distance: float
    psi: float
    reference: int
    samples: int


def compare(known: Sketch, values: Values, *, least: float = 1e-4) -> Comparison:
    """Test whether values are distributed as those of a summary.

    Parameters
    ----------
    known
        The reference.
    values
        New values; what is missing is left out, see `compare_missing`.
    least
        Smallest p-value that has to be told apart from 0, such as ``alpha`` divided by the number of tests.
    """
    before, after, _ = known.cells(values)
    n, m = int(before.sum()), int(after.sum())
    if n == 0 or m == 0:
        return Comparison("none", 1.0, 0.0, 0.0, n, m)
    if known.kind == "bins":
        distance, p = kolmogorov_smirnov(before, after)
        return Comparison("KS", p, distance, stability_index(*_coarse(before, after)), n, m)
    before, after = _fewer(before, after)
    test = "Fisher" if len(before) == 2 else "chi-square"
    p = homogeneity(before, after, least=least)
    return Comparison(test, p, total_variation(before, after), stability_index(before, after), n, m)


def compare_missing(known: Sketch, values: Values) -> Comparison | None:
    """Test whether as many values are missing as in a summary; nothing where none is missing on either side."""
    absent = missing_in(values)
    if not absent and not known.missing:
        return None
    before = np.array([known.missing, known.samples], np.int64)
    after = np.array([absent, len(values) - absent], np.int64)
    n, m = int(before.sum()), int(after.sum())
    if n == 0 or m == 0:
        return None
    p, distance = homogeneity(before, after), total_variation(before, after)
    return Comparison("Fisher", p, distance, stability_index(before, after), n, m)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of any false alarm below ``alpha`` is at most ``alpha`` (Holm 1979).

    Holds however the tests depend on each other.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def kolmogorov_smirnov(before: Integers, after: Integers) -> tuple[float, float]:
    """Test counts in the same ordered cells.

    The distance over the edges is at most that over all values, whose distribution the p-value is of: it is never
    too small.

    Parameters
    ----------
    before, after
        Counts of two samples, neither empty.

    Returns
    -------
    tuple
        Distance and p-value.
    """
    from scipy import stats

    n, m = int(before.sum()), int(after.sum())
    distance = float(np.abs(np.cumsum(before) / n - np.cumsum(after) / m).max())
    if distance < 1e-12:
        return 0.0, 1.0
    if n * m <= EXACT:
        places = np.arange(len(before))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # told where an exact value overflows and is approximated
            found: Any = stats.ks_2samp(np.repeat(places, before), np.repeat(places, after), method="exact")
        return distance, float(min(1.0, max(0.0, found.pvalue)))
    effective = n * m / (n + m)
    return distance, float(np.clip(stats.kstwo.sf(distance, max(1, round(effective))), 0.0, 1.0))


def homogeneity(before: ArrayLike, after: ArrayLike, *, least: float = 1e-4) -> float:
    """Return the p-value of counts of two samples in the same cells, by chi-square or Fisher's exact test.

    Parameters
    ----------
    before, after
        Counts.
    least
        See `compare`.
    """
    table = np.asarray([before, after], dtype=np.int64)
    table = table[:, table.sum(axis=0) > 0]
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), int(table.sum())
    if table.shape[1] < 2 or not rows.all():
        return 1.0
    from scipy import special, stats

    if table.shape[1] == 2:
        return float(min(1.0, stats.fisher_exact(table).pvalue))
    expected = rows[:, None] * (columns / total)[None, :]
    statistic = float(((table - expected) ** 2 / expected).sum())
    approximate = float(special.chdtrc(table.shape[1] - 1, statistic))
    # Far from the decision on either side the approximation does; else tables with the same margins are drawn.
    if expected.min() >= ENOUGH and (approximate > 0.1 or approximate < 1e-12):
        return approximate
    # The smaller of two p-values is one, too, where each has its share of the error. That of single cells is a formula
    # and spares the drawing where a difference is plain.
    single = _by_cell(table, rows, columns, total) / _CELLS_SHARE if approximate < _PLAIN else 1.0
    if single <= least:
        return single
    return min(1.0, single, _by_drawing(columns, int(rows.min()), statistic, least) / (1 - _CELLS_SHARE))


def _by_cell(table: Integers, rows: Integers, columns: Integers, total: int) -> float:
    """Return the smallest p-value of a single cell, by the hypergeometric distribution, times the number of cells."""
    from scipy import stats

    found = table[0]
    below = stats.hypergeom.cdf(found, total, columns, rows[0])
    above = stats.hypergeom.sf(found - 1, total, columns, rows[0])
    return float(max(0.0, 2 * np.minimum(below, above).min() * len(columns)))


def _by_drawing(columns: Integers, drawn: int, statistic: float, least: float) -> float:
    """Return the chance of a table at least as far from expectation, given its margins (Besag and Clifford 1991)."""
    generator = np.random.default_rng(0)
    total = int(columns.sum())
    expected = columns * (drawn / total)
    # The statistic of both rows, as a function of the smaller one.
    factor = total / (total - drawn)
    most = int(min(_MOST_DRAWS, max(_CHUNK, math.ceil(2 / max(least, 1e-9)))))
    seen = done = 0
    chunk = _FIRST
    while done < most:
        size = min(chunk, most - done)
        tables = generator.multivariate_hypergeometric(columns, drawn, size=size, method="marginals")
        far = ((tables - expected) ** 2 / expected).sum(axis=1) * factor >= statistic * (1 - 1e-9)
        if seen + int(far.sum()) >= _SEEN:
            last = int(np.flatnonzero(far)[_SEEN - seen - 1])
            return _SEEN / (done + last + 1)
        seen, done, chunk = seen + int(far.sum()), done + size, min(_CHUNK, 2 * chunk)
    return (seen + 1) / (done + 1)


def total_variation(before: Integers, after: Integers) -> float:
    """Return half the sum of the differences of shares, in 0..1."""
    return float(np.abs(before / before.sum() - after / after.sum()).sum() / 2)


def stability_index(before: Integers, after: Integers) -> float:
    """Return the population stability index, with half a sample added to each cell so that it is finite.

    Customarily below 0.1 is small, above 0.25 large. Of two samples of one distribution it is about
    ``(cells - 1) * (1 / n + 1 / m)``, so with few samples a large index means nothing.
    """
    old = (before + 0.5) / (before.sum() + 0.5 * len(before))
    new = (after + 0.5) / (after.sum() + 0.5 * len(after))
    return float(((new - old) * np.log(new / old)).sum())


def _coarse(before: Integers, after: Integers, cells: int = 10) -> tuple[Integers, Integers]:
    """Put neighbours together until about ten cells of equal share in the reference are left."""
    middle = (np.cumsum(before) - before / 2) / before.sum()
    group = np.minimum((middle * cells).astype(np.int64), cells - 1)
    old, new = (np.bincount(group, weights=counts, minlength=cells).astype(np.int64) for counts in (before, after))
    used = np.bincount(group, minlength=cells) > 0
    return old[used], new[used]


def _fewer(before: Integers, after: Integers) -> tuple[Integers, Integers]:
    """Put the rarest cells together. What is rare is told from both samples: from one, it would differ by chance."""
    present = before + after > 0
    before, after = before[present], after[present]
    if len(before) <= MOST_CELLS:
        return before, after
    order = np.argsort(-(before + after), kind="stable")
    kept, rest = order[: MOST_CELLS - 1], order[MOST_CELLS - 1 :]
    return np.append(before[kept], before[rest].sum()), np.append(after[kept], after[rest].sum())
