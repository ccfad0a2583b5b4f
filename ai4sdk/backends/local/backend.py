"""Plan → command lines of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ai4sdk.backends.base import Command, Pool, Submission
from ai4sdk.backends.local.orphans import kill_orphan
from ai4sdk.backends.local.spare import FROM_THE_START
from ai4sdk.errors import EnvironmentFault
from ai4sdk.planning.plan import Plan, TaskPlan
from ai4sdk.runs.files import write_json, write_text
from ai4sdk.runs.layout import RunPaths

__all__ = ["LocalBackend"]


class LocalBackend:
    """Runs a plan's tasks one after the other on this machine."""

    def render(self, plan: Plan, run: RunPaths, project: Path) -> Submission:
        """Say which processes would be started.

        ``-P`` keeps the current folder off the import path: a worker sees the plan's snapshot, not the files as they
        are by then. OpenMP threads that wait are put to sleep: where they spin, runs side by side slow each other down
        many times over. Processes of one task share its cores. The hash seed is the same for all plans: a process
        forked for a plan could not change it, and results must not depend on how a plan is started.
        """
        backend = plan.job["backend"]
        tasks = [
            Command(
                name=task.name,
                argv=_argv(task, run),
                env={
                    "OMP_NUM_THREADS": str(task.threads),
                    "OMP_WAIT_POLICY": "passive",
                    **FROM_THE_START,
                    **backend["env"],
                },
                log=str(run.log(task.name)),
            )
            for task in plan.tasks
        ]
        sidecars = []
        if plan.job["tracking"]["kind"] != "none":
            argv = [sys.executable, "-P", "-m", "ai4sdk.tracking", str(run.root)]
            sidecars.append(Command("tracking", argv, {"OMP_NUM_THREADS": "1"}, str(run.log("tracking"))))
        return Submission("local", str(project), tasks, sidecars, float(backend["grace"]))

    def submit(self, submission: Submission, run: RunPaths, lock: int) -> None:
        """Start the run's supervisor in a session of its own, and hand it the lock."""
        try:
            write_json(run.submission, submission.to_json())
            with open(run.log("supervisor"), "ab") as log:
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "ai4sdk.backends.local", str(run.root), str(lock)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=submission.project,
                    start_new_session=True,
                    pass_fds=[lock],
                )
        except OSError as error:
            raise EnvironmentFault(f"the run cannot be started: {error.strerror or error}") from error
        finally:
            os.close(lock)

    def cancel(self, run: RunPaths, *, now: bool = False) -> None:
        """Leave a request that the supervisor reads within a fraction of a second; with ``now`` there need be none."""
        write_text(run.cancel_request, "now" if now else "stop", durable=False)
        if now:
            kill_orphan(run)

    def pool(self, plan: Plan, folder: Path, project: Path, *, parallel: int | None = None) -> Pool:
        """Open a pool that runs plans side by side, in processes that need not import anything any more."""
        from ai4sdk.backends.local.pool import LocalPool

        return LocalPool(plan, folder, project, parallel=parallel)


def _argv(task: TaskPlan, run: RunPaths) -> list[str]:
    arguments = [str(run.root), task.name]
    if task.processes == 1:
        return [sys.executable, "-P", "-m", "ai4sdk.worker", *arguments]
    return [sys.executable, "-P", "-m", "ai4sdk.backends.agent", *arguments, str(task.processes)]
