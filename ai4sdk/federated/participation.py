"""How often each site took part, and how evenly."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

__all__ = ["Participation", "changes", "jain_index", "participation"]


@dataclass(frozen=True)
class Participation:
    """Who took part in a federation.

    Parameters
    ----------
    counts
        Rounds that each site took part in.
    shares
        The same as a share of all rounds.
    fairness
        Jain's index of the counts; see `jain_index`.
    """

    counts: dict[str, int]
    shares: dict[str, float]
    fairness: float


def participation(rounds: Iterable[Iterable[str]], sites: Sequence[str]) -> Participation:
    """Count who took part.

    Parameters
    ----------
    rounds
        The sites that took part in each round.
    sites
        All sites, so that those that never did count.
    """
    counts = dict.fromkeys(sites, 0)
    number = 0
    for took_part in rounds:
        number += 1
        for site in set(took_part):
            counts[site] = counts.get(site, 0) + 1
    shares = {site: count / max(1, number) for site, count in counts.items()}
    return Participation(counts, shares, jain_index(counts.values()))


def changes(
    rounds: Sequence[tuple[Container[str], float | None]], sites: Iterable[str]
) -> dict[str, tuple[float, float]]:
    """Return how a metric changed in rounds with each site, and in rounds without it: means over the rounds.

    What differs between the two need not be the site's doing, as rounds also differ in how far the training is.

    Parameters
    ----------
    rounds
        Who took part in each, and the metric after it; nothing where it was not measured.
    sites
        Whom to look at.

    Returns
    -------
    dict
        Site → both means; without sites that were in each round, or in none.
    """
    steps = [
        (took_part, value - before)
        for (_, before), (took_part, value) in pairwise(rounds)
        if before is not None and value is not None and isfinite(value - before)
    ]
    found = {}
    for site in sites:
        there = [step for took_part, step in steps if site in took_part]
        missing = [step for took_part, step in steps if site not in took_part]
        if there and missing:
            found[site] = (sum(there) / len(there), sum(missing) / len(missing))
    return found


def jain_index(amounts: Iterable[float]) -> float:
    """Return how evenly something is shared: 1 if all have the same, 1/n if one of n has everything.

    R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness and Discrimination for Resource Allocation in Shared
    Computer Systems. DEC Research Report TR-301, 1984 (https://arxiv.org/abs/cs/9809099).

    Where nobody has anything, all have the same.
    """
    values = [float(amount) for amount in amounts]
    largest = max(values, default=0.0)
    if largest <= 0:
        return 1.0
    parts = [value / largest for value in values]  # so that squares of large ones stay finite
    return sum(parts) ** 2 / (len(parts) * sum(part * part for part in parts))
