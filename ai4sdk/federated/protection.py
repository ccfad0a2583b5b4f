"""Noise on what sites give away, by the site or by the server."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ai4sdk.errors import RunFailed
from ai4sdk.federated.answers import ARRAYS, METRICS, Answer
from ai4sdk.federated.strategies import WEIGHT_KEY
from ai4sdk.federated.weights import Arrays, State, from_records, to_record
from ai4sdk.privacy.noise import clipped, noised
from ai4sdk.spec.privacy import Privacy

__all__ = ["protect_all", "protect_own", "refuse_buffers"]


def protect_own(trained: State, sent: State, privacy: Privacy, secret: bytes, label: str) -> State:
    """Return what a site may send with ``mode: local``: its update, clipped, with noise of its own.

    Parameters
    ----------
    trained, sent
        The site's weights after and before its training.
    privacy
        The section, with its noise.
    secret
        The site's.
    label
        What was asked of the site. Another question gets other noise, or the server could take one answer from another.
    """
    return State(_protected(trained.parameters, sent.parameters, privacy, 1.0, secret, label)[0], trained.buffers)


def protect_all(answers: Mapping[str, Answer], sent: State, privacy: Privacy, secret: bytes, round_number: int) -> int:
    """Clip the updates of all sites and add the server's noise, for strategies that take the mean.

    Each update gets its part of the noise, so that the noise on their sum has the standard deviation
    ``noise_multiplier * clipping_norm``, however many there are. All count alike, as a site that counts more would need
    more noise.

    Returns
    -------
    int
        How many updates were clipped. The answers are changed in place.
    """
    part, too_large = 1 / math.sqrt(len(answers)), 0
    for site, answer in answers.items():
        content = answer.message.content
        trained = from_records(content.array_records[ARRAYS])
        protected, norm = _protected(trained, sent.parameters, privacy, part, secret, f"{site}\0{round_number}")
        too_large += norm > privacy.clipping_norm
        content.array_records[ARRAYS] = to_record(protected)
        content.metric_records[METRICS][WEIGHT_KEY] = 1
    return too_large


def refuse_buffers(state: State) -> None:
    """Refuse a module whose buffers would leave the sites unprotected.

    Raises
    ------
    RunFailed
        If it has any.
    """
    if state.buffers:
        some = ", ".join(list(state.buffers)[:3])
        raise RunFailed(
            f"federation.privacy protects weights, but the module also sends {some}, which would leave as it is",
            hint="use GroupNorm or LayerNorm in place of BatchNorm, or register such buffers with persistent=False",
        )


def _protected(
    trained: Arrays, sent: Arrays, privacy: Privacy, part: float, secret: bytes, label: str
) -> tuple[Arrays, float]:
    assert privacy.noise_multiplier is not None  # planning finds it
    update, norm = clipped({name: trained[name].astype("f8") - sent[name] for name in sent}, privacy.clipping_norm)
    update = noised(update, part * privacy.noise_multiplier * privacy.clipping_norm, secret, label)
    return {name: (sent[name] + update[name]).astype(sent[name].dtype) for name in sent}, norm
