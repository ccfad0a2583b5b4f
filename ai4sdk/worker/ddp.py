"""Lightning on several processes that somebody else has started, each with one of our ranks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.utilities import rank_zero as fabric_rank_zero
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero as lightning_rank_zero
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ai4sdk.errors import RunFailed
from ai4sdk.worker.group import Group
from ai4sdk.worker.ranks import Rank
from ai4sdk.worker.unused import (
    arrange_buckets,
    can_be_arranged,
    instead_of_its_module,
    some,
    unused_parameters,
    without_gradient,
)

__all__ = ["Ddp", "InGroup", "RankEnvironment", "log_over_ranks"]

log = logging.getLogger(__name__)

_BEFORE_SYNC = 9
"""Arguments of Lightning's ``log`` up to and with ``sync_dist``."""


class RankEnvironment(ClusterEnvironment):
    """What Lightning asks about the processes; it is told, and guesses nothing from a scheduler's variables.

    Parameters
    ----------
    rank
        Which process this is.
    """

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts nothing."""
        return True

    @property
    def main_address(self) -> str:
        """Where rank 0 listens."""
        return self._rank.address

    @property
    def main_port(self) -> int:
        """Where rank 0 listens."""
        return self._rank.port

    @staticmethod
    def detect() -> bool:
        """It is never found, always given."""
        return False

    def world_size(self) -> int:
        """All processes."""
        return self._rank.world_size

    def set_world_size(self, size: int) -> None:
        """It is what it is."""

    def global_rank(self) -> int:
        """This process among all."""
        return self._rank.rank

    def set_global_rank(self, rank: int) -> None:
        """It is what it is."""

    def local_rank(self) -> int:
        """This process among those of its node."""
        return self._rank.local_rank

    def node_rank(self) -> int:
        """This process's node."""
        return self._rank.node


class InGroup(DDPStrategy):
    """What strategies of Lightning's do in a group that was joined before.

    Parameters
    ----------
    group
        The processes.
    """

    def __init__(self, group: Group) -> None:
        super().__init__(cluster_environment=RankEnvironment(group.rank))
        self._group, self._rank = group, group.rank

    def setup_distributed(self) -> None:
        """Leave the group and the random numbers as they are; Lightning would seed everyone alike here."""
        self.set_world_ranks()

    def _configure_launcher(self) -> None:
        """Start nothing: that is done."""

    def set_world_ranks(self) -> None:
        """Tell Lightning who writes."""
        for module in (fabric_rank_zero, lightning_rank_zero):
            vars(module)["rank_zero_only"].rank = self._rank.rank

    def barrier(self, *arguments: Any, **options: Any) -> None:
        """Wait for the others, but for no device."""
        self._group.wait()

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Reduce a tensor over all processes; unlike Lightning's this keeps fractions of counts, and its argument."""
        if not isinstance(tensor, Tensor):
            return tensor
        result = tensor.detach().clone()
        if isinstance(reduce_op, str) and reduce_op.lower() in ("mean", "avg"):
            dist.all_reduce(result, group=group)
            return result / self._rank.world_size
        op = getattr(dist.ReduceOp, reduce_op.upper()) if isinstance(reduce_op, str) else reduce_op
        dist.all_reduce(result, op=op or dist.ReduceOp.SUM, group=group)
        return result


class Ddp(InGroup):
    """Lightning's DDP in a group that was joined before.

    Parameters
    ----------
    group
        The processes.
    find_unused_parameters
        Whether every step looks for parameters that its loss does not depend on, which takes time. ``None`` looks in
        the first step, and in all others if it has found some.

    Attributes
    ----------
    looks
        Whether every step looks; ``None`` as long as that is open.
    """

    def __init__(self, group: Group, find_unused_parameters: bool | None = None) -> None:
        super().__init__(group)
        self.looks = find_unused_parameters

    @property
    def _ddp(self) -> DistributedDataParallel:
        assert isinstance(self.model, DistributedDataParallel)
        return self.model

    def configure_ddp(self) -> None:
        """Have gradients averaged."""
        module = self.lightning_module
        assert module is not None
        arranged = can_be_arranged(module)
        if self.looks is None and not (module.automatic_optimization and arranged):
            self.looks = True  # optimizers may take turns; and buckets that change would change a resumed training
        self._ddp_kwargs = {"find_unused_parameters": bool(self.looks)}
        super().configure_ddp()
        if not self.looks and arranged:
            arrange_buckets(self._ddp)

    def keep_looking(self) -> None:
        """Look in every step from now on."""
        if self.looks:
            return
        module = self._ddp.module
        self._ddp._remove_autograd_hooks()  # type: ignore[no-untyped-call]
        self.looks = True
        # Parameters and buffers are the same everywhere; and within a step they must not be written to.
        self._ddp_kwargs = {"find_unused_parameters": True, "init_sync": False}
        self.model = self._setup_model(module)
        self._register_ddp_hooks()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss; that of the first step shows whether to look for unused parameters."""
        output = super().training_step(*args, **kwargs)
        if self.looks is not None or not self._ddp.require_backward_grad_sync:
            return output
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor):
            return output
        unused = unused_parameters(self._ddp.module, loss)
        (most,) = self._group.largest(len(unused))
        if not most:
            self.looks = False
            return output
        log.info("not every parameter is used (%s); each step looks which are", some(unused) or "here all are")
        self.keep_looking()
        with instead_of_its_module(self._ddp, lambda: output):
            return self._ddp()

    def post_backward(self, closure_loss: Tensor) -> None:
        """See that gradients were averaged: where they were not, this process would step apart from the others."""
        super().post_backward(closure_loss)
        assert self.lightning_module is not None
        manual = not self.lightning_module.automatic_optimization
        if self.looks or manual or not self._ddp.require_backward_grad_sync:
            return
        try:
            self._ddp._check_reducer_finalized()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if (names := without_gradient(self._ddp.module, str(error))) is None:
                raise
            raise RunFailed(
                f"the loss of this step does not depend on {some(names)}, and no step looks for such parameters",
                hint="training.find_unused_parameters=true",
            ) from error


def log_over_ranks(module: pl.LightningModule) -> None:
    """Have whatever a module logs be of all processes, as if there were one, unless it is logged on rank 0 only.

    What decides (plateau schedulers, early stopping, the best weights) then decides alike everywhere.
    """
    plain = module.log

    @functools.wraps(plain)
    def log(*arguments: Any, **options: Any) -> None:
        if not options.get("rank_zero_only") and len(arguments) < _BEFORE_SYNC:
            options["sync_dist"] = True  # log_dict passes on its default, so that False does not say what is wanted
        plain(*arguments, **options)

    object.__setattr__(module, "log", log)
