"""How a convolutional module's weights lie in memory: as they came, or with the channels last, where that is faster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["lay_out"]

log = logging.getLogger(__name__)

_FASTER = 1.05


def lay_out(
    module: nn.Module,
    answers: Callable[[], Sequence[Tensor]],
    alike: Callable[[Tensor, Tensor], bool],
    timed: Callable[[], float],
) -> bool:
    """Lay the weights of two-dimensional convolutions out with the channels last, if it is worth it.

    Processors' kernels have channels together, so that torch otherwise turns each layer's inputs and answers around.
    Whatever the module does with its tensors' strides shows in its answers, or in that it raises: then it stays as it
    was.

    Parameters
    ----------
    module
        The module, on a CPU.
    answers
        Gives its answers to examples.
    alike
        Tells whether two answers are the same.
    timed
        Measures how long it takes, in seconds.

    Returns
    -------
    bool
        Whether the channels are last now.
    """
    weights = [weight for weight in (*module.parameters(), *module.buffers()) if weight.ndim == 4]
    if not weights:
        return False
    before, exact, lay = timed(), answers(), [weight.data for weight in weights]
    try:
        for weight in weights:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        found = answers()
        if all(map(alike, found, exact)) and timed() * _FASTER < before:
            return True
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything; as its weights lay, it did not
        log.info("convolutions stay as they lie: %s: %s", type(error).__name__, error)
    for weight, data in zip(weights, lay, strict=True):
        weight.data = data
    return False
