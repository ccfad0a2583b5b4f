"""How a LightningModule is asked for predictions: which method, with what, and what of its answer counts."""

from __future__ import annotations

import dataclasses
import inspect
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = [
    "Call",
    "Undecided",
    "as_array",
    "call_module",
    "choose_call",
    "main_tensor",
    "moved",
    "split_batch",
    "still",
]

Call = Literal["forward", "predict_step", "predict_step_batch"]
"""``forward(x)``; ``predict_step(x)``; or ``predict_step((x, y))``, as Lightning calls it over labelled data."""

_PAIRS = (("x", "y"), ("input", "target"), ("inputs", "targets"), ("image", "label"), ("features", "label"))
_ANSWERS = ("logits", "probabilities", "probs", "scores", "output", "outputs", "predictions", "prediction", "preds")


class Undecided(Exception):
    """A batch or an answer has a form that nothing here knows how to read."""


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Split a batch into inputs and targets (``None`` where it has no targets).

    Parameters
    ----------
    batch
        A tensor; a tuple or list of inputs, targets and whatever follows; or a mapping with the keys ``x`` and
        ``y``, ``input(s)`` and ``target(s)``, ``image`` and ``label`` or ``features`` and ``label``.

    Raises
    ------
    Undecided
        For any other form.
    """
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, Mapping):
        for inputs, targets in _PAIRS:
            if inputs in batch:
                return batch[inputs], batch.get(targets)
        raise Undecided(f"batches are mappings with the keys {', '.join(map(str, batch))}; expected x and y")
    if isinstance(batch, tuple | list) and batch:
        return batch[0], (batch[1] if len(batch) > 1 else None)
    raise Undecided(f"batches are of type {type(batch).__name__}; expected (inputs, targets)")


def moved(value: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Copy the tensors in a nest of tuples, lists and mappings to a device, and floats to a dtype where given."""
    if isinstance(value, Tensor):
        return value.to(device, dtype) if dtype is not None and value.is_floating_point() else value.to(device)
    if isinstance(value, Mapping):
        return {key: moved(part, device, dtype) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [moved(part, device, dtype) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def float_type(module: nn.Module) -> torch.dtype | None:
    """Return the dtype of the module's floating-point weights, ``None`` without any."""
    return next((weight.dtype for weight in module.parameters() if weight.is_floating_point()), None)


def call_module(module: nn.Module, inputs: Any, call: Call, targets: Any = None, index: int = 0) -> Any:
    """Ask the module for its predictions."""
    if call == "forward":
        return module(inputs)
    batch = [inputs, targets] if call == "predict_step_batch" else inputs
    step: Any = module.predict_step
    return step(batch, index) if _takes_two(step) else step(batch)


def choose_call(module: nn.Module, inputs: Any, targets: Any = None) -> tuple[Call, Any]:
    """Find the way in which the module can be called, and return it with its answer.

    A ``predict_step`` of the user's comes before ``forward``. Lightning hands it whole batches, so that is tried
    first; many are written for the inputs alone, so those come next.

    Raises
    ------
    Undecided
        If every way failed; the last failure is the cause.
    """
    own = isinstance(module, pl.LightningModule) and type(module).predict_step is not pl.LightningModule.predict_step
    ways: tuple[Call, ...] = ("predict_step_batch", "predict_step", "forward") if own else ("forward",)
    failures: list[Exception] = []
    for way in ways:
        try:
            answer = call_module(module, inputs, way, targets)
            main_tensor(answer)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything; all of it is reported below
            failures.append(error)
        else:
            return way, answer
    reasons = "; ".join(f"{way}: {type(error).__name__}: {error}" for way, error in zip(ways, failures, strict=True))
    raise Undecided(f"the module gives no predictions ({reasons})") from failures[-1]


def main_tensor(answer: Any) -> Tensor:
    """Return the tensor of predictions in what a module answered.

    A tensor is taken as it is; of a tuple the first; of a mapping (or an object with such attributes) ``logits``,
    ``probabilities``, ``scores``, ``output``, ``predictions``, or the only one.

    Raises
    ------
    Undecided
        If there is no such tensor.
    """
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, tuple | list) and answer:
        return main_tensor(answer[0])
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type | Mapping):
        answer = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    if isinstance(answer, Mapping):
        tensors = {name: part for name, part in answer.items() if isinstance(part, Tensor)}
        for name in _ANSWERS:
            if name in tensors:
                return tensors[name]
        if len(tensors) == 1:
            return next(iter(tensors.values()))
        raise Undecided(f"the module answers with {', '.join(map(str, answer))}; expected one of {', '.join(_ANSWERS)}")
    raise Undecided(f"the module answers with a {type(answer).__name__}; expected a tensor")


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Copy a tensor to numpy; half precision becomes float32, which numpy computes with faithfully."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    array: NDArray[Any] = tensor.resolve_conj().resolve_neg().numpy().copy()
    return array


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Run the block in eval mode without gradients, and leave module and random numbers as they were found.

    Restored are the training mode of every submodule, buffers, and the random state of Python, numpy and torch.
    """
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    states = random.getstate(), np.random.get_state()  # the global state is what users draw from
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            module.eval()
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        random.setstate(states[0])
        np.random.set_state(states[1])


def _takes_two(step: Any) -> bool:
    try:
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):
        return True
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(each.kind is each.VAR_POSITIONAL for each in parameters)
