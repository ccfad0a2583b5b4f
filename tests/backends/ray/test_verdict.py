"""What becomes of a run whose Ray job is over without a last word."""

from __future__ import annotations

import pytest

from ai4sdk.backends.ray.client import Job
from ai4sdk.backends.ray.verdict import verdict
from ai4sdk.runs.state import State

FAILED = "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\n{}\n"


@pytest.mark.parametrize(
    ("job", "requested", "state", "words"),
    [
        (None, False, State.INTERRUPTED, "knows nothing of its job"),
        (None, True, State.CANCELLED, "on request"),
        (Job("j", "STOPPED"), True, State.CANCELLED, "on request"),
        (Job("j", "STOPPED"), False, State.CANCELLED, "job j was stopped at Ray"),
        (Job("j", "FAILED", "dead", "JOB_SUPERVISOR_ACTOR_DIED"), False, State.INTERRUPTED, "its node was lost"),
        (
            Job("j", "FAILED", "no", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"),
            False,
            State.INTERRUPTED,
            "RAY_JOB_START_TIMEOUT_SECONDS",
        ),
        (Job("j", "FAILED", "no wheel", "RUNTIME_ENV_SETUP_FAILURE"), False, State.FAILED, "set up: no wheel"),
        (Job("j", "FAILED", FAILED.format(-9, ""), "", -9), False, State.INTERRUPTED, "killed"),
        (Job("j", "FAILED", FAILED.format(-9, ""), "", -9), True, State.CANCELLED, "on request"),
        (
            Job("j", "FAILED", FAILED.format(127, "sh: 1: python: not found\nRunning entrypoint for job j: …"), "", 127),
            False,
            State.FAILED,
            "sh: 1: python: not found; --task ray",
        ),
        (Job("j", "FAILED", FAILED.format(9, "ai4sdk: there is no run"), "", 9), False, State.FAILED, "work: there is no"),
        (Job("j", "SUCCEEDED", "fine", "", 0), False, State.INTERRUPTED, "SUCCEEDED without a last word"),
    ],
)  # fmt: skip
def test_no_job_without_a_last_word_makes_a_run_that_succeeded(
    job: Job | None, requested: bool, state: State, words: str
) -> None:
    last = verdict(job, requested=requested)
    assert last.state is state
    assert words in str(last.cause)
    assert last.exit_code == {State.CANCELLED: 130, State.INTERRUPTED: 5, State.FAILED: 7}[state]
