"""What a federation's rounds spend, before and after."""

from __future__ import annotations

from ai4sdk.errors import ConfigError, Problem
from ai4sdk.privacy.accountant import Mechanism, epsilon_of, mechanism_of, noise_for
from ai4sdk.spec.privacy import Privacy

__all__ = ["mechanism", "spends", "with_noise"]


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
        raise ConfigError(
            [
                Problem(
                    f"{rounds} rounds with this noise spend epsilon {spent:.4g}, more than {privacy.epsilon:g}",
                    key="noise_multiplier",
                    fix="leave noise_multiplier out to have it found, or do fewer rounds",
                )
            ]
        )
    return privacy
