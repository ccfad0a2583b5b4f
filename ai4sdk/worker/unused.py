"""Parameters that a loss does not depend on, and the buckets in which torch's DDP adds up gradients.

Where each step looks for such parameters, buckets stay as they are; looking costs a walk through the graph, though,
and an exchange more. Where none looks, a gradient that does not come leaves its bucket as it is: without a word each
process makes a step with gradients of its own, and only the next step fails. Hence the look in the first step, the
check after each, and buckets that are arranged beforehand.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "arrange_buckets",
    "can_be_arranged",
    "instead_of_its_module",
    "some",
    "unused_parameters",
    "without_gradient",
]


def arrange_buckets(ddp: DistributedDataParallel) -> None:
    """Put gradients into the buckets in which they are added up for good.

    torch does so after the first step, by the order in which gradients came. A resumed training would make its first
    step with the buckets as they were before that, and with more than two processes add up in another order. So a step
    that changes nothing is made here, before the training, in which gradients come from the last parameter to the
    first.
    """
    parameters = [parameter for parameter in ddp.parameters() if parameter.requires_grad]
    if not parameters:
        return

    def touch() -> Tensor:
        result = torch.zeros((), device=parameters[0].device)
        for parameter in parameters:
            result = _Touch.apply(result, parameter)  # type: ignore[no-untyped-call]
        return result

    with instead_of_its_module(ddp, touch):
        ddp().backward()
    for parameter in parameters:
        parameter.grad = None


class _Touch(torch.autograd.Function):
    """Hand on a number; the gradient of the parameter is zero."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, parameter: Tensor) -> Tensor:
        ctx.save_for_backward(parameter)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (parameter,) = ctx.saved_tensors
        return gradients[0], torch.zeros_like(parameter)


@contextlib.contextmanager
def instead_of_its_module(ddp: DistributedDataParallel, function: Callable[[], Any]) -> Iterator[None]:
    """Have DDP call something else than its module, so that no hook of the user's is, and leave buffers as they are."""

    class Other(nn.Module):
        def forward(self) -> Any:
            return function()

    module = ddp.module
    ddp.module, ddp.require_forward_param_sync = Other(), False
    try:
        yield
    finally:
        ddp.module = module


def unused_parameters(module: nn.Module, loss: Tensor) -> list[str]:
    """Return the names of the parameters to be trained that a loss does not depend on."""
    used: set[int] = set()
    seen: set[Any] = set()
    left = [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            used.add(id(variable))
        left += [following for following, _ in node.next_functions]
    trained = ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)
    return [name for name, weight in trained if id(weight) not in used]


def without_gradient(module: nn.Module, said: str) -> list[str] | None:
    """Return the names of the parameters that torch says had no gradient, ``None`` if it says something else."""
    if (found := re.search(r"did not receive grad for rank \d+: ([\d ]+)", said)) is None:
        return None
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    return [names[int(number)] for number in found[1].split()]


def can_be_arranged(module: nn.Module) -> bool:
    """Tell whether `arrange_buckets` can do its work: sparse gradients are added up in other ways."""
    return not any(isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse for part in module.modules())


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
