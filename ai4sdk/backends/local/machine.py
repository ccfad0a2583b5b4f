"""What this machine has, and what runs take of it; found without importing torch."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from ai4sdk.planning.plan import Plan, TaskPlan
from ai4sdk.spec.units import format_size

__all__ = ["group_memory", "shortages", "slots_for", "visible_gpus"]


def slots_for(task: TaskPlan) -> int:
    """Return how many processes with a task's hardware fit into this machine at once, at least 1."""
    fitting = [len(os.sched_getaffinity(0)) // task.cpus]
    if task.memory:
        fitting.append(psutil.virtual_memory().total // task.memory)
    if task.gpus:
        fitting.append(len(visible_gpus()) // task.gpus)
    return max(1, min(fitting))


def shortages(plan: Plan) -> list[str]:
    """Return what a plan asks for that this machine does not have, a sentence each.

    None of it is refused: threads take turns, and GPUs of another make than this looks for may be there all the same.
    """
    cpus, memory, gpus = len(os.sched_getaffinity(0)), psutil.virtual_memory().total, len(visible_gpus())
    found = []
    for task in plan.tasks:
        if task.cpus > cpus:
            found.append(f"hardware.cpus is {task.cpus}, this machine has {cpus}: its threads will wait for each other")
        if task.gpus > gpus:
            found.append(f"hardware.gpus is {task.gpus}, this machine shows {gpus or 'none'}: it will fail without")
        if task.memory and task.memory > memory:
            most = f"{format_size(task.memory)}, this machine has {format_size(memory)}"
            found.append(f"hardware.memory is {most}: it may run out before the limit is reached")
    return list(dict.fromkeys(found))


def visible_gpus() -> list[str]:
    """Return the GPUs that may be used, by the names that ``CUDA_VISIBLE_DEVICES`` knows them by."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in chosen.split(",")]
        hidden = next((index for index, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:hidden]  # CUDA looks no further than the first that does not exist
    devices = [match[1] for path in Path("/dev").glob("nvidia*") if (match := re.fullmatch(r"nvidia(\d+)", path.name))]
    return [str(index) for index in range(len(devices))]


def group_memory(limits: Mapping[int, int]) -> dict[int, int]:
    """Return the bytes of memory that process groups take.

    Memory that several processes share is counted whole at first, which is cheap to ask for. Only where that is over
    the limit it is counted by shares, as the imports that forked workers have in common should be.

    Parameters
    ----------
    limits
        Process group → its limit in bytes.

    Returns
    -------
    dict
        Process group → bytes resident in memory; groups that are gone are missing.
    """
    members: dict[int, list[int]] = {}
    for pid in psutil.pids():
        try:
            group = os.getpgid(pid)
        except (ProcessLookupError, PermissionError):
            continue
        if group in limits:
            members.setdefault(group, []).append(pid)
    used = {}
    for group, pids in members.items():
        used[group] = sum(_resident(pid) for pid in pids)
        if used[group] > limits[group]:
            used[group] = _shared_out(pids)
    return used


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _shared_out(pids: Collection[int]) -> int:
    total = 0
    for pid in pids:
        try:
            total += int(psutil.Process(pid).memory_full_info().pss)
        except psutil.Error:
            continue
    return total
