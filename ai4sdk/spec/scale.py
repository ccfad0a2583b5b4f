"""How many processes a job is, what each takes of a batch, and what that does to the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ai4sdk.spec.job import Job

__all__ = ["Scale", "scale_of"]


@dataclass(frozen=True)
class Scale:
    """The numbers that follow from ``training``, ``hardware`` and ``dataset.loader``.

    Parameters
    ----------
    processes, nodes
        Processes per node, and nodes.
    batch_size
        Samples in a batch of one process; ``None`` where the loader is the user's own.
    global_batch_size
        Samples in an optimizer step of all processes; ``None`` where that is not known.
    growth
        How many times as many samples an optimizer step has as with one process and the loader's own batch size.
    learning_rate
        The rate the optimizer is given; ``None`` where the job does not say it.
    """

    processes: int
    nodes: int
    batch_size: int | None
    global_batch_size: int | None
    growth: float
    learning_rate: float | None

    @property
    def world_size(self) -> int:
        """Processes of all nodes."""
        return self.processes * self.nodes


def scale_of(job: Job) -> Scale:
    """Return the scale of a job.

    Numbers that do not divide are rounded down; planning refuses them.
    """
    training, nodes = job.training, job.hardware.nodes
    processes = (training.processes or job.hardware.gpus or 1) if training.is_shared else 1
    world, accumulate = processes * nodes if training.is_shared else 1, training.accumulate_grad_batches
    loader = job.dataset.loader if job.dataset is not None else None
    own = loader.batch_size if loader is not None else None
    if training.global_batch_size is None:
        batch = own
        whole = own * world * accumulate if own is not None else None
        growth = float(world)
    else:
        whole = training.global_batch_size
        batch = max(1, whole // (world * accumulate))
        growth = whole / (own * accumulate) if own is not None else float(world)
    rate = job.optimizer.arguments.get("lr") if job.optimizer is not None else None
    if not isinstance(rate, int | float):
        scaled = None
    else:
        scaled = float(rate) * {"none": 1.0, "linear": growth, "sqrt": math.sqrt(growth)}[training.scale_learning_rate]
    return Scale(processes, nodes, batch, whole, growth, scaled)
