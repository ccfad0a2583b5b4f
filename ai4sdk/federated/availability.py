"""Which sites can be reached in a round.

What happens to a site in a round depends on the seed, the site and the round alone, so that a federation which is
resumed, or asked about its hundredth round first, meets the same outages. Nothing is remembered between rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import assert_never

from ai4sdk.spec.availability import (
    AlwaysAvailable,
    Availability,
    DiurnalAvailability,
    DropoutAvailability,
    MarkovAvailability,
    TraceAvailability,
)

__all__ = ["available", "expected_shares", "realised_shares"]


def available(how: Availability, sites: Sequence[str], round: int, seed: int) -> list[str]:
    """Return the sites that are up in a round.

    Parameters
    ----------
    how
        The section ``availability``; one with a trace file after `ai4sdk.data.trace.read_trace`.
    sites
        All sites.
    round
        From 1.
    seed
        Seed of what is random.

    Returns
    -------
    list
        Those that are up, in their order; perhaps none.
    """
    if round < 1:
        raise ValueError(f"rounds are counted from 1, not {round}")
    return [site for site in sites if _is_up(how, site, round, seed)]


def expected_shares(how: Availability, sites: Sequence[str], rounds: int) -> dict[str, float]:
    """Return the share of rounds 1 to ``rounds`` that each site is up, on average over all seeds."""
    if isinstance(how, TraceAvailability):
        return realised_shares(how, sites, rounds, 0)
    return dict.fromkeys(sites, _expected(how, rounds))


def realised_shares(how: Availability, sites: Sequence[str], rounds: int, seed: int) -> dict[str, float]:
    """Return the share of rounds 1 to ``rounds`` that each site is up with this seed."""
    return {
        site: sum(_is_up(how, site, number, seed) for number in range(1, rounds + 1)) / max(1, rounds) for site in sites
    }


def _is_up(how: Availability, site: str, round: int, seed: int) -> bool:
    match how:
        case AlwaysAvailable():
            return True
        case DropoutAvailability():
            return _chance(seed, site, round) >= how.probability
        case MarkovAvailability():
            return _markov(how, site, round, seed)
        case DiurnalAvailability():
            return _diurnal(how, site, round, seed)
        case TraceAvailability():
            return _traced(how, site, round)
        case _:
            assert_never(how)


def _expected(
    how: AlwaysAvailable | DropoutAvailability | MarkovAvailability | DiurnalAvailability, rounds: int
) -> float:
    match how:
        case AlwaysAvailable():
            return 1.0
        case DropoutAvailability():
            return 1.0 - how.probability
        case DiurnalAvailability():
            return how.share
        case MarkovAvailability():
            change = how.up_to_down + how.down_to_up
            if change == 0:
                return float(how.start == "up")
            long_run = how.down_to_up / change
            if how.start == "stationary":
                return long_run
            # How far the chance is from that of the long run shrinks by the same factor each round.
            away = (how.start == "up") - long_run
            return long_run + away * (1 - (1 - change) ** rounds) / change / max(1, rounds)
        case _:
            assert_never(how)


def _chance(seed: int, site: str, round: int) -> float:
    """Return a number in 0..1 that is as good as random, and always the same."""
    digest = blake2b(f"availability\0{seed}\0{site}\0{round}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def _markov(how: MarkovAvailability, site: str, round: int, seed: int) -> bool:
    """Follow a site back to the last round that decides how it is, whatever was before.

    With the same random number, a site that was up is up below ``1 - up_to_down``, one that was down below
    ``down_to_up``. Below both or above both it does not matter how it was; in between it stays as it was or, where
    sites change more often than not, becomes the opposite. So only a few rounds are looked at, about
    ``1 / (up_to_down + down_to_up)``, however many there were.
    """
    if_up, if_down = 1.0 - how.up_to_down, how.down_to_up
    flips = 0
    for number in range(round, 1, -1):
        chance = _chance(seed, site, number)
        if (chance < if_up) == (chance < if_down):
            up = chance < if_up
            break
        flips += if_down > if_up
    else:
        up = how.start == "up"
        if how.start == "stationary":
            up = _chance(seed, site, 1) < how.down_to_up / (how.up_to_down + how.down_to_up)
    return up != bool(flips % 2)


def _diurnal(how: DiurnalAvailability, site: str, round: int, seed: int) -> bool:
    # Exact fractions of what was written: in floats 2.3 days are less than 0.3 days after the second.
    phase = _exact(how.phases[site]) if site in how.phases else Fraction(_chance(seed, site, 0))
    passed = (round - 1) * _exact(how.round_time or 1) / _exact(how.period)
    return (passed + phase) % 1 < _exact(how.share)


def _exact(value: float) -> Fraction:
    return Fraction(str(value))


def _traced(how: TraceAvailability, site: str, round: int) -> bool:
    if how.up is None or site not in how.up:
        raise ValueError(f"there is no trace of {site}; read and check it with read_trace")
    spans = how.up[site]
    if how.round_time is None:
        return any(span == round if isinstance(span, int) else span[0] <= round <= span[1] for span in spans)
    now = float((round - 1) * _exact(how.round_time))
    return any(not isinstance(span, int) and span[0] <= now < span[1] for span in spans)
