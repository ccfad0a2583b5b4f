"""Plan → one Ray job, and how its run stands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ai4sdk.backends.base import Standing, Submission
from ai4sdk.backends.local.backend import LocalBackend
from ai4sdk.backends.local.task import stop_request
from ai4sdk.backends.ray.client import Cluster, Exists, Job, NotAnswering, address_of
from ai4sdk.backends.ray.request import job_request
from ai4sdk.backends.ray.verdict import NO_PROGRAM, verdict
from ai4sdk.backends.scheduled import AlreadySubmitted, handing_over, write_end
from ai4sdk.errors import Ai4Error
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.files import write_json, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state

__all__ = ["RayBackend"]

_SUBMITTING = 120.0
"""Longest time, in seconds, from saying that a run is submitted to its job being there."""
_LAST_WORD = 15.0
"""Longest time, in seconds, until what a job wrote at its end is seen on another machine."""


class RayBackend:
    """Hands a run to Ray as one job; inside of it the run is supervised as it is on any machine."""

    def render(self, plan: Plan, run: RunPaths, project: Path) -> Submission:
        """Say what would be submitted, and which processes the job would start."""
        there = LocalBackend().render(plan, run, project).with_python(plan.job["backend"]["python"] or sys.executable)
        return replace(there, backend="ray", script=json.dumps(job_request(plan, run, attempt=1), indent=2) + "\n")

    def submit(self, submission: Submission, run: RunPaths, lock: int) -> None:
        """Submit the job.

        Raises
        ------
        UsageError
            If Ray has the run already, or refuses it.
        EnvironmentFault
            If the cluster does not answer, or the run's folder cannot be written.
        """
        with handing_over(run, lock):
            plan, before = read_plan_file(run.root), read_state(run)
            request = job_request(plan, run, before.attempt)
            cluster = Cluster(address_of(plan.job["backend"]["address"]))
            write_json(run.submission, submission.to_json())
            told = {"cluster": cluster.address, "submitted": time.time()}
            state = replace(before, scheduler="ray", job=request["submission_id"], extra={**before.extra, **told})
            write_json(run.state, asdict(state))  # from here on the lock says nothing
            try:
                cluster.submit(request)
            except Exists as error:
                raise AlreadySubmitted(
                    f"Ray has {run.id} already, as job {state.job}", hint=f"ai4sdk status {run.id}"
                ) from error
            except NotAnswering as error:
                _look_for(cluster, request["submission_id"], error)

    def cancel(self, run: RunPaths, *, now: bool = False) -> None:
        """Leave a request that the job reads; one that has not begun is given up, and with ``now`` Ray ends it."""
        write_text(run.cancel_request, "now" if now else "stop", durable=False)
        state = read_state(run)
        if state.scheduler is None or state.job is None:  # it is being submitted, or made
            return
        waits = state.state is State.QUEUED
        if not (now or waits):
            return
        cluster = Cluster(state.extra["cluster"])
        job = cluster.job(state.job)
        if job is None or job.over:
            return
        if now or job.status == "PENDING":
            cluster.stop(job.id)
        if job.status == "PENDING":
            # Ray stops it once it could begin; the run need not wait for that, as the job leaves a run that has ended.
            _write_end(run, state, RunState(State.CANCELLED, "stopped on request", 130))

    def stand(self, runs: Sequence[tuple[RunPaths, RunState]]) -> list[Standing]:
        """Ask Ray how runs stand that have not ended: one call a cluster."""
        clusters: dict[str, Mapping[str, Job] | Ai4Error] = {}
        for address in {str(state.extra.get("cluster")) for _, state in runs}:
            names = [state.job for _, state in runs if state.extra.get("cluster") == address and state.job]
            clusters[address] = _looked_at(Cluster(address), names)
        found = []
        for run, state in runs:
            known = clusters[str(state.extra.get("cluster"))]
            if isinstance(known, Ai4Error):
                found.append(Standing(state, f"this is how it stood; {known.message}"))
            else:
                found.append(_standing(run, state, known.get(state.job or "")))
        return found


def _look_for(cluster: Cluster, name: str, lost: NotAnswering) -> None:
    """Look whether a job is there although the answer to its submission got lost; raise that loss if not."""
    try:
        there = cluster.job(name)
    except Ai4Error:
        raise lost from None
    if there is None:
        raise lost


def _looked_at(cluster: Cluster, names: Sequence[str]) -> Mapping[str, Job] | Ai4Error:
    try:
        if len(names) > 1:
            return cluster.jobs()
        return {name: job for name in names if (job := cluster.job(name))}
    except Ai4Error as error:
        return error


def _standing(run: RunPaths, state: RunState, job: Job | None) -> Standing:
    submitted = float(state.extra.get("submitted", 0.0))
    if job is None and state.started is None and time.time() - submitted < _SUBMITTING:
        return Standing(state, "it is being submitted")
    if job and job.status == "PENDING":
        return Standing(replace(state, state=State.QUEUED), f"job {job.id} is waiting for resources")
    if job and not job.over:
        return Standing(state, f"job {job.id} is {job.status.lower()}")
    fresh = read_state(run)
    if fresh != state:
        return Standing(fresh)
    if job and job.ended and _speaks(job) and time.time() - job.ended < _LAST_WORD:
        return Standing(state, f"job {job.id} has ended; its last word is on its way")
    if job and job.message:
        write_text(run.log("ray"), job.message + "\n", durable=False)
    last = verdict(job, requested=bool(stop_request(run)))
    return _write_end(run, state, replace(last, ended=job.ended if job else None))


def _speaks(job: Job) -> bool:
    """Tell whether a job's entrypoint came to its end, before which it writes a last word."""
    return job.exit_code is not None and job.exit_code not in NO_PROGRAM


def _write_end(run: RunPaths, state: RunState, ended: RunState) -> Standing:
    last = replace(
        state, state=ended.state, cause=ended.cause, exit_code=ended.exit_code, ended=ended.ended or time.time()
    )
    return write_end(run, state, last)
