"""What a federation spends of its privacy: epsilon for a delta.

The unit that is protected and what has to be assumed depend on who adds noise:

``central``
    A site. The server adds noise of ``noise_multiplier * clipping_norm`` to the sum of clipped updates, and divides it
    by a number that does not depend on the data. (In a weighted mean the noise has to be ``noise_multiplier *
    clipping_norm`` times the largest share of a site.) All others trust the server.
``local``
    A site, from the server, too. Any two updates that a site might send differ by up to twice the clipping norm, so the
    noise counts half. No sampling helps, as the server sees who takes part.
``record``
    A record of a site. Sites hold different records, so that what one site spends does not add to what another does;
    the one with the largest share of its records in a batch counts. It is no promise about a site as a whole.

What sampling adds to privacy it adds only if nobody knows who was chosen:

``none``
    Nothing is assumed. Neighbours differ by a unit that is there, or gives nothing at all.
``poisson``
    Each unit is in a round, or a batch, by itself with the same chance (I. Mironov, K. Talwar, L. Zhang: Rényi
    Differential Privacy of the Sampled Gaussian Mechanism, https://arxiv.org/abs/1908.10530). Same neighbours. Batches
    of a shuffled epoch are not sampled so, nor is a fixed number of sites, nor are sites that drop out.
``fixed``
    Always as many, all choices equally likely (Y. Wang, B. Balle, S. Kasiviswanathan: Subsampled Rényi Differential
    Privacy, https://arxiv.org/abs/1808.00087). Neighbours differ in the data of one unit, whose two updates differ by
    up to twice the clipping norm, so the noise counts half. The bound is loose: for few sites ``none`` promises more.

The numbers are those of Google's dp-accounting: its privacy loss distributions (the PRV accountant of S. Gopi, Y. Lee,
L. Wutschitz, https://arxiv.org/abs/2106.02848, is another way to the same figures) and its Rényi accountant. What
is done in a round may depend on the outcome of those before.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

from ai4sdk.errors import ConfigError, EnvironmentFault, Problem
from ai4sdk.spec.privacy import Privacy, PrivacyMode, Sampling

__all__ = ["Mechanism", "Unit", "epsilon_of", "mechanism_of", "noise_for", "promise"]

Unit = Literal["site", "record"]
Method = Literal["pld", "rdp"]

_MOST_NOISE = 1e6
_TOLERANCE = 1e-3
_HOPELESS = 1000.0
"""An epsilon beyond which nobody cares how far."""


@dataclass(frozen=True)
class Mechanism:
    """Gaussian noise on the sum of what sampled units give.

    Parameters
    ----------
    mode
        Who adds the noise, to what.
    noise_multiplier
        Standard deviation of the noise divided by the clipping norm.
    sampling
        How units are sampled.
    sampled, population
        Of how many units how many are in a round or batch; on average with ``poisson``.
    """

    mode: PrivacyMode
    noise_multiplier: float
    sampling: Sampling = "none"
    sampled: int = 1
    population: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.sampled <= self.population:
            raise ValueError(f"{self.sampled} of {self.population} cannot be sampled")
        if not self.noise_multiplier > 0:
            raise ValueError(f"noise must be above 0, not {self.noise_multiplier}")

    @property
    def unit(self) -> Unit:
        """What is protected."""
        return "record" if self.mode == "record" else "site"

    @property
    def replaces(self) -> bool:
        """Whether neighbours differ in the data of a unit, not in whether it is there."""
        return self.mode == "local" or self.sampling == "fixed"

    @property
    def effective_noise(self) -> float:
        """Standard deviation of the noise divided by the most that the sum may differ between neighbours."""
        return self.noise_multiplier / 2 if self.replaces else self.noise_multiplier

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as records keep them."""
        return asdict(self)


Releases = Sequence[tuple[Mechanism, int]]
"""Mechanisms, and how often each was applied: what was done round by round may differ."""


def mechanism_of(privacy: Privacy, sampled: int, population: int) -> Mechanism:
    """Return the mechanism that the section asks for.

    Parameters
    ----------
    privacy
        The section; without ``noise_multiplier`` the noise is 1, for `noise_for` to replace.
    sampled, population
        Sites in a round and all sites; with ``record`` the samples of a batch and of the site, for the site where their
        ratio is largest.
    """
    return Mechanism(privacy.mode, privacy.noise_multiplier or 1.0, privacy.sampling or "none", sampled, population)


def epsilon_of(releases: Releases, delta: float, method: Method = "pld") -> float:
    """Return the epsilon that was spent by rounds (or steps) one after another.

    Parameters
    ----------
    releases
        What was done, and how often; all of it protects the same unit.
    delta
        Chance that is left out of the promise.
    method
        ``pld`` or ``rdp``; the smaller one of both is taken for ``pld``, as either is a promise.

    Raises
    ------
    EnvironmentFault
        If dp-accounting is not installed.
    """
    done = [(mechanism, times) for mechanism, times in releases if times]
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, not {delta}")
    if not done:
        return 0.0
    if len({(mechanism.unit, mechanism.replaces) for mechanism, _ in done}) > 1:
        raise ValueError("what protects different units, or has different neighbours, cannot be composed")
    dp = _engine()
    fixed = any(mechanism.sampling == "fixed" for mechanism, _ in done)
    bound = _composed(dp, dp.rdp.RdpAccountant(), done, delta, sampled=not fixed)
    # Privacy loss distributions of a large epsilon take long, and show only that there is no privacy.
    if method == "pld" and bound < _HOPELESS:
        interval = min(max(bound * 1e-4, 1e-5), 1e-2)
        exact = dp.pld.PLDAccountant(value_discretization_interval=interval)
        bound = min(bound, _composed(dp, exact, done, delta, sampled=not fixed))
    if fixed:
        # That sampling does no harm is a bound, and for few units often a better one than what it is known to add.
        relation = dp.events.NeighboringRelation.REPLACE_ONE
        loose = dp.rdp.RdpAccountant(neighboring_relation=relation)
        bound = min(bound, _composed(dp, loose, done, delta, sampled=True))
    return bound


def noise_for(mechanism: Mechanism, times: int, epsilon: float, delta: float, method: Method = "pld") -> float:
    """Return the smallest noise multiplier, within a thousandth, that spends no more than ``epsilon``.

    Parameters
    ----------
    mechanism
        All but its noise.
    times
        How often it is applied.
    epsilon, delta
        What may be spent.
    method
        As for `epsilon_of`.

    Raises
    ------
    ConfigError
        If no noise is enough.
    """

    def spends(noise: float, how: Method) -> float:
        return epsilon_of([(replace(mechanism, noise_multiplier=noise), times)], delta, how)

    # The quick bound first: what it needs is enough.
    enough = _smallest(lambda noise: spends(noise, "rdp") <= epsilon, 1.0)
    if enough is None:
        raise ConfigError(
            [
                Problem(
                    f"no noise keeps {times} rounds or steps within epsilon {epsilon:g} at delta {delta:g}",
                    key="epsilon",
                    fix="raise epsilon or delta, or do fewer rounds",
                )
            ]
        )
    if method == "rdp":
        return enough
    # What is nearly exact needs little less, and takes long where there is much less noise.
    return _smallest(lambda noise: spends(noise, "pld") <= epsilon, enough, step=1.15) or enough


def promise(mechanism: Mechanism, epsilon: float, delta: float) -> list[str]:
    """Return in plain sentences what was promised to whom, and what that rests on; for reports."""
    unit = "one record of a site" if mechanism.unit == "record" else "a whole site with all of its records"
    difference = "held other data" if mechanism.replaces else "were left out"
    trusted = {
        "central": "The server sees every update as it is and has to be trusted; the promise is about all others.",
        "local": "Noise is added at the sites, so that the promise holds against the server, too.",
        "record": "Noise is added at the sites, so that the promise holds against the server and the other sites, too. "
        "It is about single records, not about a site or about somebody with many records.",
    }[mechanism.mode]
    assumed = {
        "none": "Nothing is assumed of who was chosen.",
        "poisson": "It is assumed that each was chosen by itself with the same chance, and that nobody knows who was.",
        "fixed": "It is assumed that all choices of the same number were equally likely, and that nobody knows them.",
    }[mechanism.sampling]
    lines = [
        f"epsilon {epsilon:.3g} at delta {delta:g}, for {unit}: whatever is seen of the weights is at most "
        f"{math.exp(epsilon):.3g} times as likely as if it {difference}, but for a chance of {delta:g}."
        if epsilon < 20
        else f"epsilon {epsilon:.3g} at delta {delta:g}, for {unit}: practically no privacy.",
        trusted,
        assumed,
        "Metrics, buffers such as those of batch normalisation, numbers of samples and who took part are not covered.",
    ]
    if delta * mechanism.population >= 1:
        lines.append(
            f"delta is not below 1/{mechanism.population}, so the promise would allow to give away one of them."
        )
    return lines


def _smallest(enough: Callable[[float], bool], guess: float, *, step: float = 2.0) -> float | None:
    """Return about the smallest number from which on something is true, by bisection; it is true there."""
    high = guess
    while not enough(high):
        high *= step
        if high > _MOST_NOISE:
            return None
    low = high / step
    while enough(low):
        low, high = low / step, low
        if high < 1 / _MOST_NOISE:
            return high
    while high > low * (1 + _TOLERANCE):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _engine() -> Any:
    try:
        import dp_accounting
        from dp_accounting import pld, rdp
    except ImportError as error:
        raise EnvironmentFault(
            f"accounting for privacy needs the package {error.name}", hint="pip install 'ai4sdk[privacy]'"
        ) from error
    return SimpleNamespace(events=dp_accounting, rdp=rdp, pld=pld)


def _composed(dp: Any, accountant: Any, releases: Releases, delta: float, *, sampled: bool) -> float:
    with _quiet():
        for mechanism, times in releases:
            accountant.compose(_event(dp, mechanism, sampled), times)
        return float(accountant.get_epsilon(delta))


def _event(dp: Any, mechanism: Mechanism, sampled: bool) -> Any:
    noise = dp.events.GaussianDpEvent(mechanism.effective_noise)
    if not sampled or mechanism.sampling == "none" or mechanism.sampled == mechanism.population:
        return noise
    if mechanism.sampling == "poisson":
        return dp.events.PoissonSampledDpEvent(mechanism.sampled / mechanism.population, noise)
    return dp.events.SampledWithoutReplacementDpEvent(mechanism.population, mechanism.sampled, noise)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the engine from warning of orders that it does not need."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
