"""Plan → one Job, and how its run stands."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ai4sdk.backends.base import Pool, Standing, Submission
from ai4sdk.backends.kubernetes.client import Cluster
from ai4sdk.backends.kubernetes.commands import commands
from ai4sdk.backends.kubernetes.manifests import manifests, pod_project, pod_run, to_yaml
from ai4sdk.backends.kubernetes.observed import Job, last_state, verdict
from ai4sdk.backends.kubernetes.refusals import Exists, NotAnswering
from ai4sdk.backends.kubernetes.results import bring
from ai4sdk.backends.local.task import stop_request
from ai4sdk.backends.scheduled import AlreadySubmitted, handing_over, write_end
from ai4sdk.errors import Ai4Error, EnvironmentFault, UsageError
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.files import read_json, write_json, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, add_event, read_state

__all__ = ["KubernetesBackend"]

_SUBMITTING = 60.0
"""Longest time, in seconds, from saying that a run is submitted to its Job being there."""


@dataclass(frozen=True)
class _Place:
    """Where a run was handed to: the way there, the namespace, and name and kind of its Job."""

    context: str | None
    namespace: str | None
    job: str
    kind: str

    @classmethod
    def of(cls, run: RunPaths, state: RunState) -> _Place:
        options = read_json(run.plan)["job"]["backend"]
        namespace, _, job = (state.job or "").rpartition("/")
        kind = "TrainJob" if options.get("workload") == "trainjob" else "Job"
        return cls(options["context"], namespace or options["namespace"], job, kind)


class KubernetesBackend:
    """Hands a run to Kubernetes as one Job; inside of its pod the run is supervised as it is on any machine."""

    def render(self, plan: Plan, run: RunPaths, project: Path) -> Submission:
        """Say what would be created, and which processes the pod would start."""
        inside = RunPaths(Path(pod_run(plan, run)))
        there = commands(plan, inside, Path(pod_project(plan, project))).with_python("python")
        return replace(there, project=str(project), script=to_yaml(manifests(plan, run, project)))

    def submit(self, submission: Submission, run: RunPaths, lock: int) -> None:
        """Create the Job and what belongs to it.

        Raises
        ------
        UsageError
            If the run is in the cluster already, or Kubernetes refuses it.
        EnvironmentFault
            If the cluster cannot be reached or does not allow it, or the run's folder cannot be written.
        """
        with handing_over(run, lock):
            plan, before = read_plan_file(run.root), read_state(run)
            objects = manifests(plan, run, Path(submission.project), attempt=before.attempt)
            options = plan.job["backend"]
            cluster = Cluster(options["context"], options["namespace"])
            write_json(run.submission, submission.to_json())
            run.kubernetes.mkdir(exist_ok=True)
            write_text(run.kubernetes / f"{before.attempt}.yaml", to_yaml(objects))
            name = objects[-1]["metadata"]["name"]
            told: dict[str, Any] = {"submission": before.attempt, "submitted": time.time(), "cluster": cluster.server}
            if not _seen_here(run):
                told["results"] = f"{pod_run(plan, run)} on the claim {options['claim']}"
            kept = {key: value for key, value in before.extra.items() if key not in ("pod", "restarts")}
            state = replace(before, scheduler="kubernetes", job=f"{cluster.namespace}/{name}", extra={**kept, **told})
            write_json(run.state, asdict(state))  # from here on the lock says nothing
            _create(cluster, objects, run)

    def cancel(self, run: RunPaths, *, now: bool = False) -> None:
        """Have Kubernetes delete the Job: its pod stops with a checkpoint, or with ``now`` at once."""
        write_text(run.cancel_request, "now" if now else "stop", durable=False)
        state = read_state(run)
        if state.scheduler is None:  # it is being submitted, or made
            return
        place = _Place.of(run, state)
        cluster = _cluster(place.context, place.namespace, state)
        job = cluster.jobs(place.job, [place.kind]).get(place.job)
        if job is None:
            return
        _bring_log(cluster, run, state, job)
        cluster.delete(job.kind, job.name, propagation_policy="Foreground")
        for pod in job.pods if now else ():
            cluster.delete("Pod", pod.name, grace_period_seconds=0)

    def check_study(self, plan: Plan, runs: Path) -> None:
        """Refuse a study whose points would leave their figures where this machine does not see them.

        Raises
        ------
        UsageError
            If the runs folder is not on the claim.
        """
        mount = plan.job["backend"]["mount_path"]
        if not _below(runs, mount):
            raise UsageError(
                f"a study needs the figures of its points, and {runs} is not on the claim, which pods see at {mount}",
                hint="work where the claim is mounted, with its path there as backend.mount_path; or backend=local",
            )

    def pool(self, plan: Plan, folder: Path, project: Path, *, parallel: int | None = None) -> Pool:
        """Open a pool that has so many Jobs at once; this process must stay, as nobody else starts the next."""
        from ai4sdk.backends.kubernetes.queue import SLOTS, JobQueue
        from ai4sdk.backends.scheduled_pool import ScheduledPool

        return ScheduledPool(JobQueue(self), parallel or SLOTS)

    def stand(self, runs: Sequence[tuple[RunPaths, RunState]]) -> list[Standing]:
        """Ask Kubernetes how runs stand that have not ended."""
        places = [_Place.of(run, state) for run, state in runs]
        clusters: dict[tuple[str | None, str | None], tuple[Cluster, dict[str, Job]] | Ai4Error] = {}
        found = []
        for (run, state), place in zip(runs, places, strict=True):
            key = (place.context, place.namespace)
            try:
                if key not in clusters:
                    only = place.job if len(runs) == 1 else None
                    kinds = sorted({other.kind for other in places if (other.context, other.namespace) == key})
                    clusters[key] = _looked_at(key, only, kinds)
                answer = clusters[key]
                if isinstance(answer, Ai4Error):
                    raise answer
                _same_cluster(answer[0], state)
                found.append(_standing(run, state, place, *answer))
            except Ai4Error as error:
                found.append(Standing(state, f"this is how it stood; {error.message}"))
        return found

    def bring_log(self, run: RunPaths, state: RunState) -> None:
        """Bring what a run has printed to its log here, if the run directory here is not the pod's own.

        Raises
        ------
        Ai4Error
            If the cluster cannot be asked.
        """
        place = _Place.of(run, state)
        if not place.job or _seen_here(run):
            return
        cluster = _cluster(place.context, place.namespace, state)
        if job := cluster.jobs(place.job, [place.kind]).get(place.job):
            _bring_log(cluster, run, state, job)

    def bring_results(self, run: RunPaths, state: RunState) -> int:
        """Bring what a run left to its folder here, and return how many files were not here yet.

        Raises
        ------
        UsageError
            If they are where this machine cannot reach.
        Ai4Error
            If they cannot be had, now or at all.
        """
        if _seen_here(run):
            return 0
        plan = read_plan_file(run.root)
        options = plan.job["backend"]
        if not options["results"]:
            raise UsageError(
                f"what {run.id} left is {pod_run(plan, run)} on the claim {options['claim']}, which is not seen here",
                hint="kubectl cp from a pod that mounts it; for the next runs: backend.results=s3://BUCKET/FOLDER",
            )
        project = Path(read_json(run.submission)["project"])
        new = bring(plan, run, project)
        fresh = read_state(run)
        brought = f"here, as they were copied to {options['results']}"
        write_json(run.state, asdict(replace(fresh, extra={**fresh.extra, "results": brought})))
        return new


def _create(cluster: Cluster, objects: Sequence[dict[str, Any]], run: RunPaths) -> None:
    """Create the objects of a run, the Job last, and let it own the others. What is no use without it is removed."""
    *others, job = objects
    made = []
    try:
        for object_ in others:
            try:
                cluster.create(object_)
                made.append(object_)
            except Exists:  # of a submission whose answer was lost; names are those of one attempt of one run
                pass
        uid = _created(cluster, job, run)
    except Ai4Error as error:
        for object_ in made if not isinstance(error, NotAnswering) else ():
            cluster.delete(object_["kind"], object_["metadata"]["name"])
        raise
    for object_ in others:
        kind, name = object_["kind"], object_["metadata"]["name"]
        try:
            cluster.own(kind, name, job, uid)
        except Ai4Error as error:  # the run is under way; what stays behind one day does no harm
            add_event(run, "left in the cluster", kind=kind, name=name, why=error.message)


def _created(cluster: Cluster, job: dict[str, Any], run: RunPaths) -> str:
    """Create the Job. Where the answer is lost it may be there nevertheless: it is looked for."""
    name = job["metadata"]["name"]
    try:
        return cluster.create(job)
    except Exists as error:
        raise AlreadySubmitted(
            f"{run.id} is in the cluster already, as job {name}", hint=f"ai4sdk status {run.id}"
        ) from error
    except NotAnswering as error:
        try:
            there = cluster.read(job["kind"], name)
        except Ai4Error:
            raise error from None
        if there is None:
            raise
        return str(there["metadata"]["uid"])


def _cluster(context: str | None, namespace: str | None, state: RunState) -> Cluster:
    cluster = Cluster(context, namespace)
    _same_cluster(cluster, state)
    return cluster


def _same_cluster(cluster: Cluster, state: RunState) -> None:
    """Refuse to judge a run by what another cluster knows; the kubeconfig may have been switched to one."""
    known = state.extra.get("cluster")
    if known and known != cluster.server:
        raise EnvironmentFault(
            f"it was submitted to {known}, and the kubeconfig leads to {cluster.server}",
            hint="kubectl config use-context NAME, or backend.context for the next runs",
        )


def _looked_at(
    key: tuple[str | None, str | None], only: str | None, kinds: Sequence[str]
) -> tuple[Cluster, dict[str, Job]] | Ai4Error:
    try:
        cluster = Cluster(*key)
        return cluster, cluster.jobs(only, kinds)
    except Ai4Error as error:
        return error


def _standing(run: RunPaths, state: RunState, place: _Place, cluster: Cluster, jobs: Mapping[str, Job]) -> Standing:
    job = jobs.get(place.job)
    requested = bool(stop_request(run))
    if job is None:
        submitted = float(state.extra.get("submitted", 0.0))
        if time.time() - submitted < _SUBMITTING and not requested:
            return Standing(state, "it is being submitted")
        return _write_end(run, state, verdict(None, requested=requested), None)
    if job.complete or job.failed:
        _bring_log(cluster, run, state, job)
        return _write_end(run, state, last_state(job) or verdict(job, requested=requested), job)
    if job.deleted:
        return Standing(state, f"job {job.name} is being deleted")
    if job.kind == "TrainJob" and (word := last_state(job)) and word.state is State.FAILED:
        # Its runtime may start a container again and again whose code is wrong; the run has ended the first time.
        _bring_log(cluster, run, state, job)
        return _write_end(run, state, word, job)
    if job.runs:
        return Standing(replace(state, state=State.RUNNING), f"job {job.name} is running")
    return Standing(replace(state, state=State.QUEUED, ended=None), f"job {job.name} is waiting ({job.waits})")


def _write_end(run: RunPaths, state: RunState, ended: RunState, job: Job | None) -> Standing:
    """Write down the end of a run whose Job is over, unless it has done so itself, or was resumed, by now."""
    fresh = read_state(run)
    if fresh != state:
        return Standing(fresh)
    last = replace(
        fresh,
        state=ended.state,
        cause=ended.cause,
        exit_code=ended.exit_code,
        attempt=max(fresh.attempt, ended.attempt),
        started=ended.started or fresh.started,
        ended=ended.ended or (job.ended if job else None) or time.time(),
        extra={**fresh.extra, **_whereabouts(run, fresh, ended)},
    )
    return write_end(run, state, last)


def _whereabouts(run: RunPaths, state: RunState, ended: RunState) -> dict[str, str]:
    """Say where the results of a run are, given the last word of its pod."""
    if copied := ended.extra.get("copied"):
        return {"results": f"at {copied}; ai4sdk fetch {run.id} brings them here"}
    if reason := ended.extra.get("not_copied"):
        return {"results": f"{state.extra.get('results', 'on the claim')}, which could not be copied: {reason}"}
    return {}


def _seen_here(run: RunPaths) -> bool:
    """Tell whether the run directory here is the one that pods see."""
    return _below(run.root, read_json(run.plan)["job"]["backend"]["mount_path"])


def _below(path: Path, mount: str) -> bool:
    return str(path).startswith(mount + "/")


def _bring_log(cluster: Cluster, run: RunPaths, state: RunState, job: Job) -> None:
    """Write what the pods of a Job have printed into the run's logs; a pod that is gone takes none of it away."""
    if _seen_here(run):
        return
    task = read_json(run.plan)["tasks"][0]["name"]
    for index in range(job.nodes):
        text = "".join(cluster.log(pod.name, job.kind) for pod in job.pods if pod.index == index)
        folder = run.kubernetes / f"node{index}" if index else run.kubernetes
        kept = folder / f"{state.extra.get('submission', 1)}.log"
        if kept.exists() and kept.stat().st_size >= len(text.encode()):
            continue
        folder.mkdir(exist_ok=True)
        write_text(kept, text, durable=False)
        logs = sorted(folder.glob("*.log"), key=lambda path: int(path.stem))
        log = run.logs / f"{task}.node{index}.log" if index else run.log(task)
        write_text(log, "".join(one.read_text(encoding="utf-8") for one in logs), durable=False)
