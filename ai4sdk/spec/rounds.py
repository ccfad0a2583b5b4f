"""How many rounds a federation has."""

from __future__ import annotations

from ai4sdk.spec.job import Job

__all__ = ["rounds_of"]


def rounds_of(job: Job) -> int:
    """Return the rounds of a federation: as many as are said, or as the length of the training has.

    Lengths that do not divide are rounded down; planning refuses them.
    """
    federation, training = job.federation, job.training
    if federation.rounds is not None:
        return federation.rounds
    if federation.local_steps is not None:
        return max(1, (training.max_steps or 0) // federation.local_steps)
    return max(1, (training.max_epochs or 0) // (federation.local_epochs or 1))
