"""The processes of a task talking to each other; a process alone talks to itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from ai4sdk.errors import EnvironmentFault
from ai4sdk.worker.ranks import ALONE, Rank

__all__ = ["Group", "LostRank", "join", "lost_rank"]

log = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=30)
"""Longest time a process waits for the others."""

_BROKEN = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Socket closed",
    "Timed out waiting",
    "Connection refused",
    "failed to recv",
    "remote process exited",
    "Failed to recv, got 0 bytes",
    "NCCL communicator was aborted",
)
"""What torch's backends say when another process is gone."""

Value = TypeVar("Value")


class LostRank(Exception):
    """Another process of the task is gone; its own end says why."""


def lost_rank(error: BaseException) -> bool:
    """Tell whether an error only says that another process is gone."""
    if isinstance(error, LostRank):
        return True
    kinds = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError, RuntimeError)
    return isinstance(error, kinds) and any(phrase in str(error) for phrase in _BROKEN)


class Group:
    """What the processes of a task have to agree on.

    Every method but `is_first` must be called by all of them in the same order. Values travel over gloo, on GPUs too,
    so that nothing waits for a device.

    Parameters
    ----------
    rank
        Which process this is.
    """

    def __init__(self, rank: Rank = ALONE) -> None:
        self.rank = rank

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.rank.world_size

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank.is_first

    def broadcast(self, value: Value) -> Value:
        """Return rank 0's value; the others' are not looked at."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        said: Value = box[0]
        return said

    def numbers(self, values: list[int] | None) -> list[int]:
        """Return rank 0's list of whole numbers, which may be long."""
        if self.size == 1:
            assert values is not None
            return values
        count = self.broadcast(len(values) if values is not None else 0)
        tensor = torch.tensor(values if values is not None else [0] * count, dtype=torch.int64)
        if count:
            dist.broadcast(tensor, src=0)
        return [int(number) for number in tensor.tolist()]

    def gather(self, value: Value) -> list[Value] | None:
        """Return everyone's value on rank 0, in the order of ranks, and nothing elsewhere."""
        if self.size == 1:
            return [value]
        gathered: list[Any] | None = [None] * self.size if self.is_first else None
        dist.gather_object(value, gathered, dst=0)
        return gathered

    def largest(self, *values: float) -> list[float]:
        """Return the largest that anyone has of each of some numbers."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [float(number) for number in tensor.tolist()]

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give everyone rank 0's content of some tensors."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Return once everyone has come here."""
        self.largest(0)

    def leave(self) -> None:
        """Part once everyone has come here; from then on each is alone."""
        if self.size > 1:
            self.wait()
            dist.destroy_process_group()
            self.rank = ALONE


def join(rank: Rank) -> Group:
    """Meet the other processes of the task.

    Raises
    ------
    EnvironmentFault
        If they cannot be reached.
    """
    if rank.world_size == 1:
        return Group(rank)
    options: dict[str, Any] = {}
    if rank.is_first and rank.listening is not None:
        options["master_listen_fd"] = rank.listening
    try:
        store = TCPStore(rank.address, rank.port, rank.world_size, rank.is_first, timeout=PATIENCE, **options)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank.rank, world_size=rank.world_size, timeout=PATIENCE)
    except (dist.DistError, RuntimeError) as error:
        if lost_rank(error):
            raise LostRank(str(error)) from error
        raise EnvironmentFault(
            f"the processes cannot meet at {rank.address}:{rank.port}: {str(error).splitlines()[0]}",
            hint="see that the nodes can reach each other",
        ) from error
    log.info("rank %d of %d has joined", rank.rank, rank.world_size)
    return Group(rank)
