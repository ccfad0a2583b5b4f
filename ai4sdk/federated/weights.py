"""A module's state as Flower sends it, and back.

Parameters go through the strategy. Buffers, such as the running statistics of batch normalisation, are averaged
whatever the strategy: an optimizer on the server, or a median, would make variances negative or counts fractions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

__all__ = ["Arrays", "State", "average", "digest_of", "from_records", "load_state", "state_of", "to_record"]

Arrays = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class State:
    """What sites and server exchange.

    Parameters
    ----------
    parameters
        Weights that are trained.
    buffers
        What the module keeps beside them.
    """

    parameters: Arrays
    buffers: Arrays


def state_of(module: nn.Module) -> State:
    """Return a copy of what is exchanged: parameters that are trained, and buffers that are saved with the module.

    Frozen parameters stay as they are everywhere and are not sent.
    """
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    every = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    parameters: Arrays = {}
    buffers: Arrays = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            continue  # extra state of a submodule's own, which nothing can average
        if name in trained:
            parameters[name] = _array(value)
        elif name not in every:
            buffers[name] = _array(value)
    return State(parameters, buffers)


def digest_of(state: State) -> str:
    """Return a digest of every value of a state."""
    found = hashlib.sha256()
    for name, array in sorted({**state.parameters, **state.buffers}.items()):
        found.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def load_state(module: nn.Module, state: State) -> None:
    """Put a state into a module; what it does not hold stays."""
    own = module.state_dict()
    with torch.no_grad():
        for name, array in {**state.parameters, **state.buffers}.items():
            own[name].copy_(torch.from_numpy(np.asarray(array, order="C")))


def _array(value: Tensor) -> Any:
    """Return a copy as numpy knows it: bfloat16 as float32, which holds all its values."""
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy().copy()


def to_record(arrays: Mapping[str, Any]) -> ArrayRecord:
    """Make a record of arrays."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def from_records(record: ArrayRecord) -> Arrays:
    """Return the arrays of a record."""
    return {name: array.numpy() for name, array in record.items()}


def average(parts: Sequence[Arrays], weights: Iterable[float], template: Arrays) -> Arrays:
    """Return the weighted mean of arrays, in the types of a template; whole numbers are rounded.

    Parameters
    ----------
    parts
        One mapping a site.
    weights
        One a site; they need not add up to 1.
    template
        Names and types to return.
    """
    shares = np.asarray(list(weights), dtype=np.float64)
    shares = shares / shares.sum()
    found: Arrays = {}
    for name, like in template.items():
        mean = sum(part[name].astype(np.float64) * share for part, share in zip(parts, shares, strict=True))
        found[name] = _as_type(np.asarray(mean), like.dtype)
    return found


def _as_type(values: Any, dtype: Any) -> Any:
    return np.rint(values).astype(dtype) if np.issubdtype(dtype, np.integer) else values.astype(dtype)
