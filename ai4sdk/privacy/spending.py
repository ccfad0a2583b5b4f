"""What a federation's rounds spend, before and after.

Where sites are protected all spend alike. Where records are, each site has noise and a bound of its own: what a batch
takes of its records depends on how many it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ai4sdk.errors import ConfigError, Problem
from ai4sdk.privacy.accountant import Mechanism, epsilon_of, mechanism_of, noise_for
from ai4sdk.spec.privacy import Privacy

__all__ = ["Account", "mechanism", "record_account", "spends", "with_noise"]


@dataclass(frozen=True)
class Account:
    """What a site that protects its records does, and how often.

    Parameters
    ----------
    mechanism
        What is done to one batch.
    steps
        Batches of a round.
    """

    mechanism: Mechanism
    steps: int

    def spends(self, privacy: Privacy, rounds: int) -> float:
        """Return the epsilon of so many rounds."""
        return epsilon_of([(self.mechanism, rounds * self.steps)], privacy.delta, privacy.accountant)


def record_account(privacy: Privacy, samples: int, batch_size: int, steps: int, rounds: int) -> Account:
    """Return what a site does, with the noise that its epsilon needs if none is said.

    Parameters
    ----------
    privacy
        The section, with ``mode: record``.
    samples
        Records that the site trains on.
    batch_size
        Records of a batch, on average.
    steps
        Batches of a round.
    rounds
        Rounds that the site may take part in.

    Raises
    ------
    ConfigError
        If no noise is enough, or the noise that is said spends more than epsilon.
    EnvironmentFault
        If dp-accounting is not installed.
    """
    how = mechanism_of(privacy, min(batch_size, samples), samples)
    account = Account(how, steps)
    if privacy.noise_multiplier is None:
        assert privacy.epsilon is not None  # one of the two is there
        noise = noise_for(how, rounds * steps, privacy.epsilon, privacy.delta, privacy.accountant)
        return Account(replace(how, noise_multiplier=noise), steps)
    if privacy.epsilon is not None and (spent := account.spends(privacy, rounds)) > privacy.epsilon * (1 + 1e-6):
        raise _spends_too_much(f"{rounds * steps} batches of {samples} records", spent, privacy.epsilon)
    return account


def mechanism(privacy: Privacy) -> Mechanism:
    """Return what is done in each round; nothing is gained from who is chosen, as everybody knows who was."""
    return mechanism_of(privacy, 1, 1)


def spends(privacy: Privacy, rounds: int) -> float:
    """Return the epsilon of so many rounds.

    Raises
    ------
    EnvironmentFault
        If dp-accounting is not installed.
    """
    return epsilon_of([(mechanism(privacy), rounds)], privacy.delta, privacy.accountant)


def with_noise(privacy: Privacy, rounds: int) -> Privacy:
    """Return the section with the noise that its epsilon needs, if none is said.

    Raises
    ------
    ConfigError
        If no noise is enough, or the noise that is said spends more than epsilon.
    EnvironmentFault
        If dp-accounting is not installed.
    """
    if privacy.noise_multiplier is None:
        assert privacy.epsilon is not None  # one of the two is there
        noise = noise_for(mechanism(privacy), rounds, privacy.epsilon, privacy.delta, privacy.accountant)
        return privacy.model_copy(update={"noise_multiplier": noise})
    if privacy.epsilon is not None and (spent := spends(privacy, rounds)) > privacy.epsilon * (1 + 1e-6):
        raise _spends_too_much(f"{rounds} rounds", spent, privacy.epsilon)
    return privacy


def _spends_too_much(what: str, spent: float, epsilon: float) -> ConfigError:
    return ConfigError(
        [
            Problem(
                f"{what} with this noise spend epsilon {spent:.4g}, more than {epsilon:g}",
                key="noise_multiplier",
                fix="leave noise_multiplier out to have it found, or do fewer rounds",
            )
        ]
    )
