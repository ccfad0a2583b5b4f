"""Plan → what a pod starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ai4sdk.backends.base import Submission
from ai4sdk.backends.local.backend import LocalBackend
from ai4sdk.planning.plan import Plan, TaskPlan
from ai4sdk.runs.layout import RunPaths

__all__ = ["commands"]


def commands(plan: Plan, run: RunPaths, project: Path) -> Submission:
    """Return what a pod starts: what any machine would or, for several nodes, what brings pods together.

    Parameters
    ----------
    plan
        What runs.
    run, project
        Files of the run and the project's folder, as the pod sees them.
    """
    local = LocalBackend().render(plan, run, project)
    tasks = [
        replace(command, argv=_argv(command.argv, task, run))
        for command, task in zip(local.tasks, plan.tasks, strict=True)
    ]
    return replace(local, backend="kubernetes", tasks=tasks)


def _argv(argv: list[str], task: TaskPlan, run: RunPaths) -> list[str]:
    if task.nodes == 1:
        return argv
    module = "ai4sdk.backends.kubernetes.leader"
    return [argv[0], "-P", "-m", module, str(run.root), task.name, str(task.processes), str(task.nodes)]
