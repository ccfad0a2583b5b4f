"""What every kind of task begins with: its plan, its code, its records."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ai4sdk.errors import UsageError
from ai4sdk.planning.plan import Plan, TaskPlan, read_plan_file
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import Job
from ai4sdk.worker.ranks import Rank, read_rank
from ai4sdk.worker.records import Records
from ai4sdk.worker.signals import StopRequest

__all__ = ["Task", "open_task", "read_task"]


@dataclass(frozen=True)
class Task:
    """A task that is being executed.

    Parameters
    ----------
    plan, job
        What runs.
    paths
        Files of the run.
    records
        Where metrics, progress and events go.
    stop
        Asked now and then whether to stop.
    rank
        Which of the task's processes this is.
    threads
        How many threads it computes with.
    """

    plan: Plan
    job: Job
    paths: RunPaths
    records: Records
    stop: StopRequest
    rank: Rank
    threads: int


@contextmanager
def open_task(plan: Plan, paths: RunPaths, name: str, stop: StopRequest) -> Iterator[Task]:
    """Make ready to execute a task: its code comes first on the import path, its log is as loud as asked for.

    Raises
    ------
    UsageError
        If the plan has no such task.
    EnvironmentFault
        If the plan has several processes and it cannot be told which this is.
    """
    task = next((known for known in plan.tasks if known.name == name), None)
    if task is None:
        raise UsageError(f"the plan has no task {name!r}; it has {', '.join(known.name for known in plan.tasks)}")
    job = plan.as_job()
    logging.getLogger().setLevel(job.log_level.upper())
    sys.path[:0] = [str(paths.code / path) for path in plan.code["paths"]]
    stop.limit(job.hardware.wall_time)
    rank = read_rank(task.world_size, os.environ)
    records = Records(paths, writes=rank.is_first)
    try:
        yield Task(plan, job, paths, records, stop, rank, task.threads)
    finally:
        records.close()


def read_task(paths: RunPaths, name: str) -> tuple[Plan, TaskPlan | None]:
    """Return the plan of a run and one of its tasks, ``None`` for one that it does not have."""
    plan = read_plan_file(paths.root)
    return plan, next((task for task in plan.tasks if task.name == name), None)
