"""Plan → one batch job, and how its run stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ai4sdk.backends.base import Command, Pool, Standing, Submission
from ai4sdk.backends.local.backend import LocalBackend
from ai4sdk.backends.local.task import stop_request
from ai4sdk.backends.scheduled import handing_over, write_end
from ai4sdk.backends.slurm import client, cluster, dependencies, submissions
from ai4sdk.backends.slurm.script import STOP, batch_script, engine_script
from ai4sdk.backends.slurm.verdict import verdict
from ai4sdk.errors import Ai4Error, ConfigError, Problem, UsageError
from ai4sdk.planning.plan import Plan, TaskPlan, read_plan_file
from ai4sdk.runs.files import write_json, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state

__all__ = ["SlurmBackend"]

_SUBMITTING = 120.0
"""Longest time, in seconds, from claiming a submission to knowing its job's number."""
_PLANNING = 5.0
"""Longest time, in seconds, that a plan waits for what the cluster reports."""
SLOTS = 4
"""Points at once of a search that learns, if nobody says how many: the more there are, the less it learns of each."""
_LAST_WORD = 15.0
"""Longest time, in seconds, until what a job wrote at its end is seen on another machine."""


class SlurmBackend:
    """Hands a run to Slurm as one job; inside of it the run is supervised as it is on any machine."""

    follows = True
    """Whether a run can wait for others; see `ai4sdk.backends.launch.start_run`."""
    unattended = True
    """Whether the points of a study that are known beforehand need nobody who hands them over one by one."""

    def render(self, plan: Plan, run: RunPaths, project: Path) -> Submission:
        """Say what would be submitted, and which processes the job would start."""
        there = LocalBackend().render(plan, run, project).with_python(plan.job["backend"]["python"] or sys.executable)
        tasks = [
            replace(command, argv=_argv(command, task, run))
            for command, task in zip(there.tasks, plan.tasks, strict=True)
        ]
        return replace(there, backend="slurm", tasks=tasks, script=batch_script(plan, run, project))

    def submit(self, submission: Submission, run: RunPaths, lock: int) -> None:
        """Submit the job.

        Raises
        ------
        ConfigError
            With everything the plan asks for that the cluster does not have.
        UsageError
            If the run is in the queue already, or Slurm refuses it.
        EnvironmentFault
            If Slurm does not answer, or the run's folder cannot be written.
        """
        with handing_over(run, lock):
            _hand_over(run, submission.script, read_plan_file(run.root), submission)

    def compare(self, plan: Plan) -> tuple[list[Problem], str]:
        """Compare a plan with what the cluster reports, before anything is submitted.

        Returns
        -------
        problems
            Everything that it can never have there.
        said
            What was compared, or why nothing was.
        """
        try:
            there = cluster.ask(plan, patience=_PLANNING)
        except Ai4Error as error:
            return [], f"nothing was checked: {error.message}"
        if not there.asked:
            return [], "nothing was checked: there is no answer from sinfo on this machine"
        said = f"checked with {there.asked}"
        names = [f"backend.{key}" for key in ("account", "qos") if plan.job["backend"][key] is not None]
        if names and not there.accounting_enforced:
            said += f"; {' and '.join(names)} unchecked, as the cluster tells of no accounting that it enforces"
        return there.problems(plan), said

    def check_study(self, plan: Plan, runs: Path) -> None:
        """Refuse a study whose first point the cluster can never run; raises as `submit` does."""
        _refuse_impossible(plan)

    def host(self, plan: Plan, study: RunPaths, project: Path, lock: int, options: Sequence[str] = ()) -> None:
        """Submit the engine of a study as a small job; raises as `submit` does.

        Parameters
        ----------
        plan
            Plan of a point.
        study
            Files of the study.
        project
            Folder the engine starts in.
        lock
            Descriptor that holds the study's lock, which is closed.
        options
            Words for the engine.
        """
        with handing_over(study, lock):
            _hand_over(study, engine_script(plan, study, project, options), plan)

    def cancel(self, run: RunPaths, *, now: bool = False) -> None:
        """Take the job from the queue, or tell it to stop with a checkpoint, or with ``now`` have Slurm end it."""
        write_text(run.cancel_request, "now" if now else "stop", durable=False)
        submission = submissions.latest(run)
        job = _job_of(run, submission) if submission else None
        if job is None:
            return
        client.cancel(job, waiting=True)
        client.tell(job, signal=STOP)  # the request is a file, which other machines may see late
        if now:
            client.cancel(job)

    def pool(self, plan: Plan, folder: Path, project: Path, *, parallel: int | None = None) -> Pool:
        """Open a pool that submits what is started together as one array job."""
        from ai4sdk.backends.scheduled_pool import ScheduledPool
        from ai4sdk.backends.slurm.arrays import ArrayQueue

        return ScheduledPool(ArrayQueue(self, folder, project, parallel), parallel or SLOTS)

    def stand(self, runs: Sequence[tuple[RunPaths, RunState]]) -> list[Standing]:
        """Ask Slurm how runs stand that have not ended."""
        return self.stand_of(runs)

    def stand_of(self, runs: Sequence[tuple[RunPaths, RunState]], *, submitting: float = _SUBMITTING) -> list[Standing]:
        """Do the same where whoever submits is known to take no longer than so many seconds."""
        handed = [(run, state, submissions.latest(run)) for run, state in runs]
        found: dict[str, list[str]] = {}
        try:
            ids = [_job_of(run, submission, submitting, found) if submission else None for run, _, submission in handed]
            known = client.jobs([job for job in ids if job])
        except Ai4Error as error:
            note = f"this is how it stood; {error.message}"
            return [Standing(state, note) for _, state, _ in handed]
        return [
            _standing(run, state, submission, job, known, submitting)
            for (run, state, submission), job in zip(handed, ids, strict=True)
        ]


def _argv(command: Command, task: TaskPlan, run: RunPaths) -> list[str]:
    """Return what starts a task: what this machine would start or, for several nodes, srun with a worker a rank."""
    if task.nodes == 1:
        return command.argv
    step = [
        "srun",
        f"--nodes={task.nodes}",
        f"--ntasks={task.nodes * task.processes}",  # else it is that of the batch script, one a node
        f"--ntasks-per-node={task.processes}",
        f"--cpus-per-task={max(1, task.cpus // task.processes)}",
        "--kill-on-bad-exit=1",
        "--wait=0",  # rank 0 may evaluate long after the others have ended
        "--mpi=none",
    ]
    return [*step, command.argv[0], "-P", "-m", "ai4sdk.backends.slurm.rank", str(run.root), task.name]


def _hand_over(run: RunPaths, text: str, plan: Plan, submission: Submission | None = None) -> None:
    """Submit a script as the one job of a run, or of a study."""
    before = submissions.latest(run)
    options = dependencies.sbatch_options(dependencies.waits_for(read_state(run)))
    _refuse_twice(run, before)
    _refuse_impossible(plan)
    claimed = submissions.claim_or_refuse(run, before)
    if submission is not None:
        write_json(run.submission, submission.to_json())
    script = submissions.script_of(run)
    write_text(script, text)
    # From here on the lock says nothing; the job writes the state once it has begun.
    write_json(run.state, asdict(replace(read_state(run), scheduler="slurm", job=None)))
    note = partial(submissions.name_job, run, claimed)
    client.submit_and_note(script, str(claimed.number), name=run.id, note=note, options=options)


def _refuse_twice(run: RunPaths, before: submissions.Submission | None) -> None:
    """Refuse to submit a run that Slurm has put back into the queue by itself."""
    job = _job_of(run, before) if before else None
    known = client.jobs([job]).get(job) if job else None
    if known and known.waits:
        raise UsageError(
            f"{run.id} is in the queue already, as job {job}, and will go on", hint=f"ai4sdk status {run.id}"
        )


def _refuse_impossible(plan: Plan) -> None:
    """Refuse what the cluster can never run, all at once; Slurm names one mistake, or lets such a job wait for ever."""
    if found := cluster.ask(plan).problems(plan):
        raise ConfigError(found)


def _job_of(
    run: RunPaths,
    submission: submissions.Submission,
    submitting: float = _SUBMITTING,
    found: dict[str, list[str]] | None = None,
) -> str | None:
    """Return the number of a submission's job; if nobody wrote it down the job is looked for by its name.

    Parameters
    ----------
    run, submission
        The run, and how it was handed over.
    submitting
        Seconds that whoever submits may take.
    found
        Name → the jobs of that name, as far as they were looked for; elements of an array share one.
    """
    if submission.job is not None:
        return submission.job
    if time.time() - submission.time < submitting:
        return None
    name = submission.array.stem if submission.array else run.id
    found = {} if found is None else found
    if name not in found:
        found[name] = client.find(name)
    if not found[name]:
        return None
    job = found[name][-1]
    if submission.array is None:
        submissions.name_job(run, submission, job)
        return job
    submissions.name_array_job(submission.array, job)
    return f"{job}_{submission.index}"


def _standing(
    run: RunPaths,
    state: RunState,
    submission: submissions.Submission | None,
    job: str | None,
    known: Mapping[str, client.Job],
    submitting: float,
) -> Standing:
    if submission and job is None and time.time() - submission.time < submitting:
        return Standing(state, "it is being submitted")
    found = known.get(job) if job else None
    if found and found.waits:
        # One that ran before was put back: pre-empted, or its node was lost.
        waiting = replace(state, state=State.QUEUED, job=job, ended=None)
        reason = found.reason or found.state
        if reason == "Dependency":
            reason = f"for {', '.join(run.id for run in dependencies.waits_for(state))}"
        return Standing(waiting, f"job {job} is waiting ({reason})")
    if found and not found.over:
        return Standing(replace(state, job=job), f"job {job} is {found.state.lower()}")
    return _write_end(run, state, job, found)


def _write_end(run: RunPaths, state: RunState, number: str | None, job: client.Job | None) -> Standing:
    """Write down the end of a run whose job is gone, unless it has done so itself, or was resumed, by now."""
    never = dependencies.why_never(state) if state.started is None else None
    ended = verdict(job, requested=bool(stop_request(run)), never=never)
    fresh = read_state(run)
    if fresh != state:
        return Standing(fresh)
    if job and job.ended and job.state in ("COMPLETED", "FAILED") and time.time() - job.ended < _LAST_WORD:
        return Standing(state, f"job {job.id} has ended; its last word is on its way")
    last = replace(
        state,
        state=ended.state,
        cause=ended.cause,
        exit_code=ended.exit_code,
        job=number,
        ended=(job.ended if job else None) or time.time(),
    )
    return write_end(run, state, last)
