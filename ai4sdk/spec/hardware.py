"""What a task needs of a machine, in the terms of the platform."""

from __future__ import annotations

from pydantic import Field

from ai4sdk.spec.base import Section, field_that_changes_nothing
from ai4sdk.spec.units import Size, Span


class Hardware(Section):
    """CPUs, GPUs, memory, disk and time for each node of the job."""

    cpus: int = Field(default=2, ge=1)
    """CPU cores per node; also the number of threads that its processes compute with, divided among them."""

    gpus: int = Field(default=0, ge=0)
    """GPUs per node; 0 trains on CPU."""

    gpu_model: str | None = field_that_changes_nothing(default=None)
    """Model of GPU to ask for, as the cluster names it, such as ``A100`` or ``Tesla V100``."""

    gpu_memory: Size | None = field_that_changes_nothing(default=None)
    """Memory of each GPU, such as ``40GiB``; `plan --deep` refuses a training that cannot fit into it."""

    core_watts: float | None = field_that_changes_nothing(default=None, gt=0)
    """Power that a busy core draws in watts, such as the processor's thermal design power by its cores. With it a
    federation tells what energy the processors of each site took: an estimate, without memory and GPUs."""

    memory: Size | None = field_that_changes_nothing(default=None)
    """Memory per node, such as ``16GiB``; nothing asks for what the backend gives."""

    disk: Size | None = field_that_changes_nothing(default=None)
    """Scratch disk per node, such as ``50GB``; nothing asks for what the backend gives."""

    nodes: int = Field(default=1, ge=1)
    """Machines that work together."""

    wall_time: Span | None = field_that_changes_nothing(default=None)
    """Longest time the job may take, such as ``2h``; it is stopped with a checkpoint before that."""
