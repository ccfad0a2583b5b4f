"""What the API's answers mean for a run; they are written here as its documentation has them."""

from __future__ import annotations

from typing import Any

import pytest

from ai4sdk.backends.kubernetes.observed import last_state, observe, verdict
from ai4sdk.runs.state import State

WORD = '{"state": "interrupted", "cause": "told to stop", "exit_code": 5, "attempt": 2, "started": 1.0, "ended": 2.0}'


def job(*conditions: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    held = [{"status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z", **one} for one in conditions]
    return {"metadata": {"name": "ai4-pond-1", **metadata}, "spec": {}, "status": {"conditions": held}}


def pod(name: str = "ai4-pond-1-abcde", created: str = "2026-01-02T03:00:00Z", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": created}, "status": {"phase": "Failed", **status}}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {"containerStatuses": [{"name": "worker", "state": state}]}


FAILED = {"type": "Failed", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (ended(137, "OOMKilled"), State.INTERRUPTED, "it took more memory than it had asked for; see hardware.memory"),
        (ended(137), State.INTERRUPTED, "job ai4-pond-1: BackoffLimitExceeded"),
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            State.INTERRUPTED,
            "Evicted: The node was low on resource: memory.",
        ),
        ({"reason": "DeadlineExceeded", **ended(137)}, State.INTERRUPTED, "see hardware.wall_time"),
        (
            {
                "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
                **ended(1),
            },
            State.INTERRUPTED,
            "a pod of higher priority took its place",
        ),
        (ended(1), State.FAILED, "ended with status 1 before or beside the work"),
        (ended(128, "StartError", "exec: python: not found"), State.FAILED, "StartError"),
    ],
)
def test_an_end_without_a_last_word(status: dict[str, Any], state: State, words: str) -> None:
    found = verdict(observe(job(FAILED), [pod(**status)]), requested=False)
    assert found.state is state
    assert words in str(found.cause)


def test_a_pod_that_was_told_to_stop_does_not_know_why() -> None:
    disrupted = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    state = last_state(observe(job(FAILED), [pod(conditions=disrupted, **ended(5, message=WORD))]))
    assert state is not None
    assert (state.state, state.attempt, state.exit_code) == (State.INTERRUPTED, 2, 5)
    assert "it was evicted from its node" in str(state.cause)


def test_the_last_pod_has_the_last_word() -> None:
    early = pod("early", "2026-01-02T03:00:00Z", **ended(5, message=WORD))
    late = pod("late", "2026-01-02T03:00:01Z", **ended(4, message=WORD.replace("interrupted", "failed")))
    state = last_state(observe(job(FAILED), [late, early]))
    assert state is not None
    assert state.state is State.FAILED


@pytest.mark.parametrize("word", ["", "Traceback (most recent call last):", "{}", '{"state": "odd"}', "[1]"])
def test_a_word_that_is_none_is_passed_over(word: str) -> None:
    assert last_state(observe(job(FAILED), [pod(**ended(1, message=word))])) is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            "Unschedulable: 0/3",
        ),
        (
            {
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "pond"'}}}
                ]
            },
            'ImagePullBackOff: Back-off pulling image "pond"',
        ),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, "its pod starts"),
        ({}, "its pod starts"),
    ],
)
def test_what_a_job_waits_for(status: dict[str, Any], words: str) -> None:
    found = observe(job(), [pod(**{"phase": "Pending", **status})])
    assert not found.runs
    assert found.waits == words


def test_of_a_job_without_pods_kubectl_knows_more() -> None:
    assert observe(job(), []).waits == "for pods; if none comes: kubectl describe job ai4-pond-1"


def numbered(index: int, **status: Any) -> dict[str, Any]:
    found = pod(f"ai4-pond-1-{index}-abcde", **status)
    found["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": str(index)}
    return found


def test_a_job_of_several_pods_runs_once_all_of_them_do() -> None:
    several = job() | {"spec": {"completions": 3}}
    first, second = numbered(0, phase="Running"), numbered(1, phase="Running")
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}
    third = numbered(2, phase="Pending", conditions=[waiting])
    assert observe(several, [first, second]).waits == "for pod 2 of 3; if none comes: kubectl describe job ai4-pond-1"
    assert observe(several, [first, second, third]).waits == "pod 2 of 3: Unschedulable: 0/3"
    assert observe(several, [first, second, numbered(2, phase="Running")]).runs
    assert not observe(several, [first, second, third]).runs


def test_a_failure_counts_more_than_what_others_say_of_losing_each_other() -> None:
    several = job(FAILED) | {"spec": {"completions": 2}}
    lost = numbered(0, **ended(5, message=WORD))
    failed = numbered(1, **ended(4, message=WORD.replace("interrupted", "failed")))
    state = last_state(observe(several, [lost, failed]))
    assert state is not None
    assert state.state is State.FAILED


def test_of_several_pods_the_one_that_was_lost_is_named() -> None:
    several = job(FAILED) | {"spec": {"completions": 2}}
    disrupted = [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]
    found = [numbered(0, **ended(5, message=WORD)), numbered(1, conditions=disrupted, **ended(137))]
    state = last_state(observe(several, found))
    assert state is not None
    assert state.cause == "pod ai4-pond-1-1-abcde: disrupted: its node was lost"


def test_a_suspended_job_waits_for_its_queue() -> None:
    suspended = job() | {"spec": {"suspend": True}}
    assert "its queue" in observe(suspended, []).waits


def test_how_a_job_stands() -> None:
    complete = observe(job({"type": "Complete"}), [])
    assert (complete.complete, complete.failed, complete.ended) == (True, False, 1767323045.0)
    assert observe(job(deletionTimestamp="2026-01-02T03:04:05Z"), []).deleted
    assert not observe(job({"type": "FailureTarget"}), []).failed, "its pods still end"
    assert verdict(None, requested=True).state is State.CANCELLED
    assert verdict(None, requested=False).exit_code == 5
