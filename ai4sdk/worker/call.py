"""A task that calls a function. Only what the function itself needs is imported."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from ai4sdk.errors import RunFailed
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.instantiate import instantiate
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.task import Task, open_task

__all__ = ["execute", "figures_of"]


def execute(plan: Plan, paths: RunPaths, task: str, stop: StopRequest) -> None:
    """Call the function of a job, and write down what it returns.

    A call that was killed is made again from the start; one that has returned is not.

    Parameters
    ----------
    plan
        What runs.
    paths
        Files of the run; its code is unpacked. Figures go to ``evaluation/metrics.json``.
    task
        Name of the task in the plan.
    stop
        Interrupts the function, so that it closes what it opened.

    Raises
    ------
    StopTraining
        If it was asked to stop, or the wall time is over.
    RunFailed
        If the function raised, or returned what is no figure.
    """
    with open_task(plan, paths, task, stop) as opened:
        progress = opened.records.progress
        if "call" in progress.finished:
            progress.enter("done")
            return
        progress.enter("start")
        figures = figures_of(_call(opened))
        paths.evaluation.mkdir(exist_ok=True)
        write_json(paths.scores, figures)
        progress.finish("call")
        progress.enter("done")


def _call(task: Task) -> Any:
    function, plan = task.job.function, task.plan
    assert function is not None, "the planner makes this task only of such a job"
    recorded = plan.data.get("function", {}).get("paths")
    if recorded:
        from ai4sdk.data.fingerprint import require_paths

        require_paths(recorded, function.arguments, Path.cwd(), "function")
    _seed(task.job.seed, plan.code["external"])
    task.records.progress.enter("call")
    with task.stop.interrupting():
        return instantiate(function.as_config(), key="function")


def _seed(seed: int, imports: Collection[str]) -> None:
    """Seed the random numbers that the function's code can draw from.

    Most libraries draw those of numpy, which the code itself need not import. What is loaded already does not count: a
    worker that was forked has more of it than one that was not, and both must find the same.
    """
    random.seed(seed)
    if imports:
        import numpy

        numpy.random.seed(seed)
    if "torch" in imports:
        import torch

        torch.manual_seed(seed)


def figures_of(returned: Any) -> dict[str, float]:
    """Return what a function returned as figures by name.

    Parameters
    ----------
    returned
        Nothing, a number (its name is ``value``), or a mapping of names to numbers.

    Raises
    ------
    RunFailed
        If it is something else.
    """
    if returned is None:
        return {}
    if (number := _number(returned)) is not None:
        return {"value": number}
    if isinstance(returned, Mapping):
        figures = {str(name): _number(value) for name, value in returned.items()}
        wrong = [name for name, value in figures.items() if value is None]
        if not wrong:
            return {name: value for name, value in figures.items() if value is not None}
        what = f"{wrong[0]!r} is a {type(returned[wrong[0]]).__name__}" if wrong[0] in returned else f"{wrong[0]!r}"
        raise RunFailed(f"the function returned a mapping in which {what}, no number")
    raise RunFailed(
        f"the function returned a {type(returned).__name__}",
        hint="return nothing, a number, or a mapping of names to numbers",
    )


def _number(value: Any) -> float | None:
    """Return a number of any library as a float; ``None`` for what is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, Real):
        return float(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # of NumPy or torch
        return _number(value.item())
    return None
