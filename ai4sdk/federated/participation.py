"""How often each site took part, and how evenly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Participation", "jain_index", "participation"]


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
