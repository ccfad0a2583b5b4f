"""Plan → the request that Ray's Jobs API takes. Pure: it can be read, kept, and compared with one that is right."""

from __future__ import annotations

import math
import re
import shlex
import sys
from typing import Any

from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths

__all__ = ["job_request"]

_AFTER_GRACE = 15
"""Seconds that Ray leaves the supervisor to write down how the run ended, after the task's time to stop is over."""


def job_request(plan: Plan, run: RunPaths, attempt: int) -> dict[str, Any]:
    """Return the body of ``POST /api/jobs/``.

    Parameters
    ----------
    plan
        What runs.
    run
        Files of the run, in a folder that the nodes see, too.
    attempt
        The run's, which is part of the job's name: Ray takes each name once.
    """
    options = plan.job["backend"]
    # Ray's names of jobs become names of files, and parts of addresses.
    job = f"{re.sub(r'[^A-Za-z0-9_.-]', '-', run.id)}-{attempt}"
    argv = ["-P", "-m", "ai4sdk.backends.ray", str(run.root), str(attempt), job]
    python = options["python"] or shlex.quote(sys.executable)
    gpus = max(task.gpus for task in plan.tasks)
    resources = dict(options["resources"])
    if gpus and (model := plan.job["hardware"]["gpu_model"]):
        resources[f"accelerator_type:{model}"] = 0.001  # as Ray has it: any share of the one that a node has
    request = {
        "submission_id": job,
        "entrypoint": f"exec {python} {shlex.join(argv)}",
        "entrypoint_num_cpus": max(task.cpus for task in plan.tasks),
        "entrypoint_num_gpus": gpus,
        "entrypoint_memory": max(task.memory or 0 for task in plan.tasks),
        "entrypoint_resources": resources,
        # What Ray's own stop leaves between SIGTERM and SIGKILL.
        "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(options["grace"]) + _AFTER_GRACE)}},
        "metadata": {"name": plan.name, "run": str(run.root), "plan": plan.digest},
    }
    return {name: value for name, value in request.items() if value}
