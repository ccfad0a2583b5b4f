"""What Kubernetes tells of a Job and its pods, and what that means for a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ai4sdk.runs.state import RunState, State

__all__ = ["Job", "Pod", "last_state", "observe", "verdict"]

_STARTING = ("ContainerCreating", "PodInitializing")
_DISRUPTIONS = {
    "PreemptionByScheduler": "a pod of higher priority took its place",
    "DeletionByTaintManager": "its node was lost or is drained",
    "DeletionByPodGC": "its node was lost",
    "EvictionByEvictionAPI": "it was evicted from its node, as is done before maintenance",
    "TerminationByKubelet": "its node ended it: the node is short of something, or shuts down",
}
_INDEX = "batch.kubernetes.io/job-completion-index"
CONTAINERS = ("worker", "node")
"""Names of the container that works: in a Job, and in a TrainJob, beside which a runtime may have others."""
_MOST = 200
"""Characters of a message of Kubernetes that are shown."""


@dataclass(frozen=True)
class Pod:
    """A pod.

    Parameters
    ----------
    name
        Its name.
    phase
        ``Pending``, ``Running``, ``Succeeded``, ``Failed`` or ``Unknown``.
    waits
        Why it has not begun; empty if nothing is in the way.
    exit_code
        Status that its container ended with.
    reason
        Why it ended, in words of Kubernetes or ours.
    word
        What it wrote at its end.
    index
        Which of several pods it is; those that take the place of another one have its number.
    """

    name: str
    phase: str
    waits: str = ""
    exit_code: int | None = None
    reason: str = ""
    word: str = ""
    index: int = 0

    def state(self) -> RunState | None:
        """Return the state that its last word tells; ``None`` if it left none."""
        try:
            values = json.loads(self.word)
            return RunState(**{**values, "state": State(values["state"])})
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True)
class Job:
    """A Job and its pods, in the order they were made.

    Parameters
    ----------
    name
        Its name.
    complete, failed
        Whether it has ended, and how.
    deleted
        Whether it is being deleted.
    suspended
        Whether it must not start yet.
    reason
        Why it failed, in words of Kubernetes.
    ended
        Unix time in seconds, if it has ended.
    pods
        Its pods that are still there.
    nodes
        How many of them work at once.
    kind
        ``Job``, or ``TrainJob``.
    """

    name: str
    complete: bool = False
    failed: bool = False
    deleted: bool = False
    suspended: bool = False
    reason: str = ""
    ended: float | None = None
    pods: tuple[Pod, ...] = ()
    nodes: int = 1
    kind: str = "Job"

    def last(self, index: int = 0) -> Pod | None:
        """Return the last pod with a number; pod 0 executes the run, and others follow it."""
        return next((pod for pod in reversed(self.pods) if pod.index == index), None)

    @property
    def runs(self) -> bool:
        """Whether all of its pods run that there should be; some may have ended before others."""
        last = [self.last(index) for index in range(self.nodes)]
        working = all(pod is not None and pod.phase in ("Running", "Succeeded") for pod in last)
        return working and any(pod is not None and pod.phase == "Running" for pod in last)

    @property
    def waits(self) -> str:
        """Why it does not run."""
        if self.suspended:
            return "suspended until its queue admits it"
        for index in range(self.nodes):
            last = self.last(index)
            if last is None or last.phase not in ("Running", "Succeeded"):
                told = f" {index} of {self.nodes}" if self.nodes > 1 else ""
                return (
                    _missing(last, told)
                    or f"for pod{told or 's'}; if none comes: kubectl describe {self.kind.lower()} {self.name}"
                )
        return "its pods end"

    @property
    def loss(self) -> Pod | None:
        """The last pod that was taken away or ended badly for a reason that Kubernetes tells; pod 0 before others."""
        lost = [pod for index in range(self.nodes) if (pod := self.last(index)) and pod.reason]
        return lost[0] if lost else None


def _missing(last: Pod | None, told: str) -> str:
    """Say why a pod does not run; nothing of one that was not made, as a quota or a security standard may be why."""
    if last is None:
        return ""
    if last.phase == "Failed":
        return f"for another pod{told}, as {last.name} ended: {last.reason or f'status {last.exit_code}'}"
    if told and last.waits:
        return f"pod{told}: {last.waits}"
    return last.waits or (f"pod{told} starts" if told else "its pod starts")


def observe(job: dict[str, Any], pods: list[dict[str, Any]]) -> Job:
    """Return what the API's answers tell.

    Parameters
    ----------
    job
        A Job or TrainJob.
    pods
        Its pods.
    """
    status, spec = job.get("status") or {}, job.get("spec") or {}
    conditions = _conditions(status)
    end = conditions.get("Complete") or conditions.get("Failed")
    ordered = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
    return Job(
        name=job["metadata"]["name"],
        complete="Complete" in conditions,
        failed="Failed" in conditions,
        deleted=bool(job["metadata"].get("deletionTimestamp")),
        suspended=bool(spec.get("suspend")),
        reason=_said(conditions.get("Failed", {})),
        ended=_time((end or {}).get("lastTransitionTime")),
        pods=tuple(_pod(pod) for pod in ordered),
        nodes=spec.get("completions") or (spec.get("trainer") or {}).get("numNodes") or 1,
        kind=job.get("kind") or "Job",  # objects in lists of the built-in ones do not say
    )


def last_state(job: Job) -> RunState | None:
    """Return the state that the pods of a Job tell; ``None`` if they left no word.

    Kubernetes deletes all other pods once one has failed, and what those said with them.
    """
    words = [state for index in range(job.nodes) if (pod := job.last(index)) and (state := pod.state())]
    state = next((word for word in words if word.state is not State.INTERRUPTED), words[0] if words else None)
    if state and state.state is State.INTERRUPTED and (lost := job.loss):
        return replace(state, cause=f"pod {lost.name}: {lost.reason}")  # it was told to stop, but not why
    return state


def verdict(job: Job | None, *, requested: bool) -> RunState:
    """Return state, cause and exit code of a run whose Job is gone, or has ended without a last word of its pod.

    Parameters
    ----------
    job
        What is known of the Job; ``None`` if it is not there any more.
    requested
        Whether somebody asked the run to stop.
    """
    if requested:
        return RunState(State.CANCELLED, "stopped on request", 130)
    if job is None:
        cause = "its job is not in the cluster any more; a resume goes on, or finds that the run has succeeded"
        return RunState(State.INTERRUPTED, cause, 5)
    last = job.loss or job.last()
    told = f": {last.reason}" if last and last.reason else ""
    if job.complete:
        return RunState(State.FAILED, f"job {job.name} ended before the work was done", 4)
    if last and last.exit_code not in (None, 0, 5, 137, 143) and "disrupted" not in last.reason:
        cause = f"pod {last.name} ended with status {last.exit_code} before or beside the work{told}"
        return RunState(State.FAILED, cause, 7)
    if last and last.reason:
        return RunState(State.INTERRUPTED, f"pod {last.name}{told}", 5)
    return RunState(State.INTERRUPTED, f"job {job.name}: {job.reason or 'it failed'}", 5)


def _pod(pod: dict[str, Any]) -> Pod:
    status = pod.get("status") or {}
    conditions = _conditions(status)
    containers = status.get("containerStatuses") or [{}]
    ours = next((one for one in containers if one.get("name") in CONTAINERS), containers[0])
    container = ours.get("state") or {}
    ended = container.get("terminated") or {}
    before = (ours.get("lastState") or {}).get("terminated") or {}  # of a container that is started again
    phase = status.get("phase", "Unknown")
    return Pod(
        name=pod["metadata"]["name"],
        phase=phase,
        waits=_waits(status, container) if phase == "Pending" else "",
        exit_code=ended.get("exitCode"),
        reason=_why(status, conditions, ended) if phase == "Failed" else "",
        word=ended.get("message") or before.get("message") or "",
        index=int((pod["metadata"].get("annotations") or {}).get(_INDEX, 0)),
    )


def _waits(status: dict[str, Any], container: dict[str, Any]) -> str:
    waiting = container.get("waiting") or {}
    if waiting and waiting.get("reason") not in _STARTING:
        return _said(waiting)
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _said(condition)
    return ""


def _why(status: dict[str, Any], conditions: dict[str, Any], ended: dict[str, Any]) -> str:
    if disruption := conditions.get("DisruptionTarget"):
        known = _DISRUPTIONS.get(disruption.get("reason", ""))
        return f"disrupted: {known or _said(disruption)}"
    if ended.get("reason") == "OOMKilled":
        return "it took more memory than it had asked for; see hardware.memory"
    if status.get("reason") == "DeadlineExceeded":
        return "its time limit was over before it had stopped; see hardware.wall_time and backend.grace"
    if status.get("reason"):
        return _said(status)
    return str(ended.get("reason") or "") if ended.get("reason") not in ("Error", "Completed") else ""


def _conditions(status: dict[str, Any]) -> dict[str, Any]:
    """Return the conditions that hold, by type."""
    return {one["type"]: one for one in status.get("conditions") or [] if one.get("status") == "True"}


def _said(told: dict[str, Any]) -> str:
    text = ": ".join(str(told[key]) for key in ("reason", "message") if told.get(key))
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def _time(text: Any) -> float | None:
    if isinstance(text, datetime):
        return text.timestamp()
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
