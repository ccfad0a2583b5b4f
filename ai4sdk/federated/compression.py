"""Smaller updates: a site sends what changed, in fewer bits.

Differences are small and near zero, where few bits say most of what weights in full would. ``int8`` rounds to one of
255 steps of each array up or down by chance, so that the mean over sites and rounds is right (as QSGD does, Alistarh et
al. 2017, arXiv:1610.02132, with the largest change in place of the norm); the chance follows from seed, site and round,
and is the same when a round is done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flwr.app import Message

from ai4sdk.federated.answers import ARRAYS
from ai4sdk.federated.weights import Arrays, from_records, to_record

__all__ = ["SCALES", "Compression", "compress", "expand", "size_of"]

Compression = Literal["none", "float16", "int8"]

SCALES = "scales"
"""Name of the record of the largest change of each array, for ``int8``."""

_STEPS = 127


def compress(arrays: Arrays, sent: Arrays, how: Compression, drawn_with: str) -> dict[str, Arrays]:
    """Return the records that stand for a site's arrays in its answer.

    Parameters
    ----------
    arrays
        What the site has after training.
    sent
        What it was sent.
    how
        ``none``: as they are.
    drawn_with
        What chance follows from.
    """
    if how == "none":
        return {ARRAYS: arrays}
    changes = {name: array.astype(np.float64) - sent[name] for name, array in arrays.items()}
    if how == "float16":
        with np.errstate(over="ignore"):  # what is infinite is refused by whoever gets it, and says why
            return {ARRAYS: {name: change.astype(np.float16) for name, change in changes.items()}}
    draw = np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(drawn_with.encode()).digest(), "big")))
    scales = {name: np.float32(np.abs(change).max(initial=0.0)) for name, change in changes.items()}
    return {
        ARRAYS: {name: _rounded(change, scales[name], draw) for name, change in changes.items()},
        SCALES: {name: np.asarray(scale) for name, scale in scales.items()},
    }


def _rounded(change: Any, scale: np.float32, draw: np.random.Generator) -> Any:
    chance = draw.random(change.shape)
    if not np.isfinite(scale) or scale == 0:
        return np.zeros(change.shape, np.int8)
    steps = np.floor(change / float(scale) * _STEPS + chance)
    return np.clip(steps, -_STEPS, _STEPS).astype(np.int8)


def expand(message: Message, sent: Arrays, how: Compression) -> str | None:
    """Put the weights in place of the changes in an answer.

    Parameters
    ----------
    message
        The answer; whether its weights can be used is for `ai4sdk.federated.answers.judge` to say.
    sent
        What the site was sent.
    how
        As sites were told.

    Returns
    -------
    str, optional
        Why that is not possible.
    """
    if how == "none" or message.has_error():
        return None
    expected = np.dtype(np.float16 if how == "float16" else np.int8)
    try:
        changes = from_records(message.content.array_records[ARRAYS])
        scales = from_records(message.content.array_records[SCALES]) if how == "int8" else {}
        for name, change in changes.items():
            if change.dtype != expected:
                return f"{name} is {change.dtype}; updates are compressed to {expected}"
            if change.shape != sent[name].shape:
                return f"{name} has the shape {change.shape} instead of {sent[name].shape}"
            if how == "int8" and scales[name].shape != ():
                return f"the scale of {name} is no number"
        whole = {name: _added(change, scales.get(name), sent[name]) for name, change in changes.items()}
    except (KeyError, TypeError, ValueError, AttributeError, EOFError) as error:
        return f"not a compressed answer of this federation: {type(error).__name__}: {str(error)[:500]}"
    message.content.pop(SCALES, None)  # strategies take one record of arrays
    message.content[ARRAYS] = to_record(whole)
    return None


def _added(change: Any, scale: Any, sent: Any) -> Any:
    wide = change.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # whoever judges the answer tells of it
        if scale is not None:
            wide *= float(scale) / _STEPS
        return (sent + wide).astype(sent.dtype)


def size_of(records: Mapping[str, Any]) -> int:
    """Return how many bytes the records of a message take, without what carries them."""
    return sum(int(record.count_bytes()) for record in records.values())
