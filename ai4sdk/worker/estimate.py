"""How much memory a training takes, found without training.

The step is made with tensors of torch's meta device, which have a shape and no content: that a training is too large
for a machine can be found on a smaller one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from ai4sdk.worker.calling import moved, split_batch
from ai4sdk.worker.failures import one_line

__all__ = ["Memory", "estimate_memory"]

_TRUE = {"16-true": torch.float16, "bf16-true": torch.bfloat16, "64-true": torch.float64, "64": torch.float64}
"""Precisions in which the weights themselves are kept."""


@dataclass(frozen=True)
class Memory:
    """Bytes that one process of a training needs on its device.

    Parameters
    ----------
    weights
        Parameters and buffers.
    gradients
        Of the parameters that are trained.
    optimizer
        What the optimizer keeps beside them; ``None`` if it is not known.
    activations
        What the forward pass keeps for the backward pass, for one batch; ``None`` if it is not known.
    batch
        The batch itself.
    notes
        Why something is not known, or how it was found, in sentences.
    """

    weights: int
    gradients: int
    optimizer: int | None
    activations: int | None
    batch: int
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """What is known, added up: the least that is needed."""
        return self.weights + self.gradients + (self.optimizer or 0) + (self.activations or 0) + self.batch

    @property
    def complete(self) -> bool:
        """Whether everything is known."""
        return self.optimizer is not None and self.activations is not None

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint: weights, and what the optimizer keeps."""
        return self.weights + (self.optimizer or 0)


def estimate_memory(module: pl.LightningModule, batch: Any, precision: str = "32-true") -> Memory:
    """Estimate the memory that a training takes.

    Parameters
    ----------
    module
        The module, ready to be trained; it is left as it is.
    batch
        A batch of the size that one process gets.
    precision
        As Lightning names it. With a mixed precision the activations are an upper bound.

    Returns
    -------
    Memory
        Parts that could not be found are ``None``, with a note that says why.
    """
    dtype = _TRUE.get(precision)
    tensors = {name: _meta(tensor, dtype) for name, tensor in _named(module)}
    trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
    there = moved(batch, torch.device("meta"), dtype)
    notes: list[str] = []
    if precision.endswith("mixed"):
        notes.append("In mixed precision activations take less than this, down to half.")

    def with_meta(function: Callable[[], Any]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of logging without a Trainer
            named = {f"module.{name}": tensor for name, tensor in tensors.items()}
            return functional_call(_Caller(module), named, (function,))

    return Memory(
        weights=sum(map(_bytes, tensors.values())),
        gradients=sum(map(_bytes, trained)),
        optimizer=with_meta(lambda: _optimizer_state(module, trained, notes)),
        activations=with_meta(lambda: _activations(module, there, notes)),
        batch=sum(map(_bytes, _tensors(there))),
        notes=tuple(notes),
    )


class _Caller(nn.Module):
    """Calls functions while its module has the tensors that `functional_call` gives it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def _optimizer_state(module: pl.LightningModule, trained: list[Tensor], notes: list[str]) -> int | None:
    """Make a step of the module's optimizers, and add up what they keep then."""
    try:
        for tensor in trained:
            tensor.grad = torch.empty_like(tensor)
        found = list(_optimizers(module.configure_optimizers()))
        for optimizer in found:
            optimizer.step()
        kept = [value for optimizer in found for state in optimizer.state.values() for value in state.values()]
        return sum(map(_bytes, _tensors(kept)))
    except Exception as error:  # noqa: BLE001 - the user's code and torch's may raise anything
        notes.append(f"What the optimizer keeps is not known: {one_line(error)}.")
        return None
    finally:
        for tensor in trained:
            tensor.grad = None


def _optimizers(configured: Any) -> Iterator[Optimizer]:
    """Yield the optimizers in any of the forms that Lightning takes."""
    if isinstance(configured, Optimizer):
        yield configured
    elif isinstance(configured, Mapping):
        yield from _optimizers(configured.get("optimizer"))
    elif isinstance(configured, list | tuple):
        for part in configured:
            yield from _optimizers(part)


def _activations(module: pl.LightningModule, batch: Any, notes: list[str]) -> int | None:
    """Add up what a forward pass keeps; of a training step or, if it cannot be made like this, of ``forward``."""
    own = {_storage(tensor) for tensor in [*module.parameters(), *module.buffers(), *_tensors(batch)]}
    ways: dict[str, Callable[[], Any]] = {
        "training_step": lambda: module.training_step(batch, 0),
        "forward": lambda: module(split_batch(batch)[0]),
    }
    reasons = []
    training = [(part, part.training) for part in module.modules()]
    for name, call in ways.items():
        kept: dict[int, Tensor] = {}
        try:
            module.train()
            with torch.autograd.graph.saved_tensors_hooks(_keep_in(kept), lambda tensor: tensor):
                answer = call()  # noqa: F841 - what it keeps lives as long as this
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            reasons.append(f"{name}: {one_line(error)}")
            continue
        finally:
            for part, mode in training:
                part.training = mode
        if reasons:
            notes.append(f"Activations are those of forward alone, without the loss ({reasons[0]}).")
        return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
    notes.append(f"The size of the activations is not known: {'; '.join(reasons)}.")
    return None


def _keep_in(kept: dict[int, Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(_storage(tensor), tensor)
        return tensor

    return keep


def _storage(tensor: Tensor) -> int:
    """Return what tells apart tensors that share no memory; tensors of the meta device have no address."""
    return int(tensor.untyped_storage()._cdata)


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers; what is shared once."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _meta(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    made = torch.empty_like(tensor, device="meta", dtype=kind, requires_grad=tensor.requires_grad)
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for item in items:
        yield from _tensors(item)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
