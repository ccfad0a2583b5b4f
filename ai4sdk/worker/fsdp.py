"""Lightning on several processes that divide the parameters among them, too (torch's ``fully_shard``).

Between steps a process holds its slice of every parameter, gradient and optimizer state; for as long as a part of the
module computes, its parameters are gathered. Checkpoints hold everything whole, as those of one process do: slices are
cut from it by everyone, and rank 0 puts it together, tensor by tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from ai4sdk.errors import RunFailed
from ai4sdk.worker.ddp import InGroup

__all__ = ["Fsdp", "own_part", "parts_to_gather", "with_own_part"]

_PARTS = 32
"""A part is gathered by itself if it holds at least this fraction of all parameters; smaller ones are not worth it."""


class Fsdp(InGroup):
    """Data parallelism with divided parameters, in a group that was joined before.

    Parameters
    ----------
    group
        The processes.
    """

    def configure_ddp(self) -> None:
        """Divide the parameters."""
        module = self.lightning_module
        assert module is not None
        _refuse_what_cannot_be_divided(module)
        device = self.root_device
        mesh = init_device_mesh(device.type, (self._rank.world_size,))
        # Hooks that gather parameters sit on ``forward``, which Lightning passes by; and were they on the module
        # itself, a step that calls ``self(x)`` would set them off twice.
        whole = _Whole(module)
        for part in parts_to_gather(module):
            _shard(part, mesh)
        _shard(whole, mesh)
        whole.to(device)
        self.model = whole

    def model_to_device(self) -> None:
        """Wait until the parameters are divided: whole they may not fit."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Make a step with rank 0's buffers, as DDP does."""
        assert self.lightning_module is not None
        self._group.share(self.lightning_module.buffers())
        return _explained(super().training_step, args, kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Make a step of validation."""
        return _explained(super().validation_step, args, kwargs)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the weights, whole on rank 0; elsewhere the names only have shapes. All have to call it."""
        assert self.lightning_module is not None
        return self._whole(self.lightning_module.state_dict())  # type: ignore[no-any-return]

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return what an optimizer remembers, as `lightning_module_state_dict` does with weights."""
        state: dict[str, Any] = dict(super().optimizer_state(optimizer))
        parameters = _parameters(optimizer)
        for index, values in state["state"].items():
            for name, value in values.items():
                if isinstance(value, DTensor) and value.shape != parameters[index].shape:
                    raise RunFailed(
                        f"{type(optimizer).__name__} keeps {name} in another shape than its parameter; that cannot be "
                        "divided and put together again",
                        hint="another optimizer such as AdamW, or training=ddp",
                    )
        return self._whole(state)  # type: ignore[no-any-return]

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Cut own slices from whole weights, once parameters are divided."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        weights = {name: _sliced_like(own.get(name), value) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(weights, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Cut own slices from what optimizers remember."""
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = _parameters(optimizer)
            remembered = {
                index: {name: _sliced_like(parameters[index], value) for name, value in values.items()}
                for index, values in state["state"].items()
            }
            states.append({**state, "state": remembered})
        super().load_optimizer_state_dict({"optimizer_states": states})

    def teardown(self) -> None:
        """Leave everything where it is: the last checkpoint is still to be put together."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()

    def _whole(self, value: Any) -> Any:
        """Return a value with every divided tensor in it put together."""
        if isinstance(value, DTensor):
            whole = value.full_tensor().detach()
            return whole.cpu() if self._rank.is_first else torch.empty_like(whole, device="meta")
        if isinstance(value, dict):
            return type(value)((key, self._whole(item)) for key, item in value.items())
        return value


class _Whole(nn.Module):
    """A module with its hooks around another one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def parts_to_gather(module: nn.Module) -> list[nn.Module]:
    """Choose the parts whose parameters are gathered by themselves, inner ones first; the rest is gathered as one.

    These are the elements of ``nn.Sequential``, ``nn.ModuleList`` and ``nn.ModuleDict``, which are the blocks of most
    networks, as far as they are large enough and share no parameter with anything outside. Other modules are left
    together with their parents, for these may use their parameters without calling them.

    Parameters
    ----------
    module
        The whole; it is not among what is returned.
    """
    total = sum(parameter.numel() for parameter in module.parameters())
    uses = Counter(id(parameter) for part in module.modules() for parameter in part.parameters(recurse=False))
    taken: set[int] = set()
    chosen: list[nn.Module] = []

    def visit(part: nn.Module) -> None:
        for child in part.children():
            visit(child)
            if not isinstance(part, nn.Sequential | nn.ModuleList | nn.ModuleDict) or isinstance(child, _BAGS):
                continue
            own = [parameter for parameter in child.parameters() if id(parameter) not in taken]
            inside = Counter(id(parameter) for inner in child.modules() for parameter in inner.parameters(False))
            apart = all(uses[key] == count for key, count in inside.items())
            if apart and sum(parameter.numel() for parameter in own) * _PARTS >= max(total, 1):
                chosen.append(child)
                taken.update(id(parameter) for parameter in own)

    visit(module)
    return chosen


_BAGS = (nn.ModuleList, nn.ModuleDict)  # nobody calls them


def own_part(tensor: Tensor) -> Tensor:
    """Return a copy of this process's slice of a tensor; all of one that is not divided."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach().clone()


def with_own_part(weight: Tensor, part: Tensor) -> Tensor:
    """Return the tensor that is divided as a parameter is, of which this process has the given slice."""
    part = part.to(weight.device)
    if not isinstance(weight, DTensor):
        return part
    return DTensor.from_local(
        part, weight.device_mesh, weight.placements, shape=weight.shape, stride=weight.stride(), run_check=False
    )


def _sliced_like(own: Any, whole: Any) -> Any:
    """Return a whole tensor divided as another one is; anything else as it is."""
    if not isinstance(own, DTensor) or not isinstance(whole, Tensor) or whole.shape != own.shape:
        return whole
    # Everyone has it whole, so nobody needs to send anything.
    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """Return an optimizer's parameters in the order in which its state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _shard(part: nn.Module, mesh: DeviceMesh) -> None:
    try:
        fully_shard(part, mesh=mesh)
    except (ValueError, NotImplementedError) as error:
        raise RunFailed(
            f"the parameters of {type(part).__name__} cannot be divided: {error}", hint="training=ddp"
        ) from error


def _refuse_what_cannot_be_divided(module: pl.LightningModule) -> None:
    found = list(_indivisible(module))
    if found:
        raise RunFailed(f"training.mode fsdp cannot divide {found[0]}", hint="change that, or train with training=ddp")


def _indivisible(module: pl.LightningModule) -> Iterator[str]:
    kinds: dict[torch.dtype, str] = {}
    for name, parameter in module.named_parameters():
        if parameter.dim() == 0:
            yield f"{name}, which is a single number; torch.nn.Parameter(torch.zeros(1)) has a dimension"
        kinds.setdefault(parameter.dtype, name)
    if len(kinds) > 1:
        told = ", ".join(f"{name} is {kind}".replace("torch.", "") for kind, name in kinds.items())
        yield f"parameters of several types: {told}"


def _explained(step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    try:
        return step(*args, **kwargs)
    except RuntimeError as error:
        if "mixed torch.Tensor and DTensor" not in str(error):
            raise
        raise RunFailed(
            "a step uses parameters of a part without calling it; with training.mode fsdp they are there only then",
            hint="call the part (self.layer(x) instead of self.layer.weight), or train with training=ddp",
        ) from error
