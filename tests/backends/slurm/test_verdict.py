"""What the end of a job means that left no last word: honest states, whatever Slurm calls it."""

from __future__ import annotations

import pytest

from ai4sdk.backends.slurm.client import Job
from ai4sdk.backends.slurm.verdict import verdict
from ai4sdk.runs.state import State


@pytest.mark.parametrize(
    ("job", "requested", "state", "exit_code"),
    [
        ("CANCELLED", True, State.CANCELLED, 130),
        ("CANCELLED", False, State.CANCELLED, 130),
        (None, True, State.CANCELLED, 130),
        (None, False, State.INTERRUPTED, 5),
        ("TIMEOUT", False, State.INTERRUPTED, 5),
        ("TIMEOUT", True, State.INTERRUPTED, 5),
        ("NODE_FAIL", False, State.INTERRUPTED, 5),
        ("OUT_OF_MEMORY", False, State.INTERRUPTED, 5),
        ("PREEMPTED", False, State.INTERRUPTED, 5),
        ("FAILED", False, State.FAILED, 7),
        ("COMPLETED", False, State.INTERRUPTED, 5),
    ],
)
def test_a_job_without_a_last_word_never_succeeded(job, requested, state, exit_code):
    ended = verdict(Job("17", job) if job else None, requested=requested)
    assert (ended.state, ended.exit_code) == (state, exit_code)
    assert ended.cause


def test_a_run_that_never_began_says_what_it_waited_for():
    ended = verdict(Job("7", "CANCELLED"), requested=False, never="it never ran: a is failed")
    assert (ended.state, ended.cause, ended.exit_code) == (State.INTERRUPTED, "it never ran: a is failed", 5)
    assert verdict(Job("7", "CANCELLED"), requested=True, never="it never ran").state is State.CANCELLED


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED", "RUNNING", "COMPLETING", "SUSPENDED", "SOMETHING_NEW"])
def test_only_states_that_are_known_to_be_final_end_a_run(state):
    assert not Job("17", state).over
