"""Lightning on several processes that somebody else has started, each with one of our ranks."""

from __future__ import annotations

import functools
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.utilities import rank_zero as fabric_rank_zero
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero as lightning_rank_zero
from torch import Tensor

from ai4sdk.worker.group import Group
from ai4sdk.worker.ranks import Rank

_BEFORE_SYNC = 9
"""Arguments of Lightning's ``log`` up to and with ``sync_dist``."""

__all__ = ["Ddp", "RankEnvironment", "log_over_ranks"]


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


class Ddp(DDPStrategy):
    """Lightning's DDP in a group that was joined before.

    Parameters
    ----------
    group
        The processes.
    options
        Of torch's ``DistributedDataParallel``.
    """

    def __init__(self, group: Group, **options: Any) -> None:
        super().__init__(cluster_environment=RankEnvironment(group.rank), **options)
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
