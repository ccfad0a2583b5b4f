"""What a task's end means."""

from __future__ import annotations

import signal

import pytest

from ai4sdk.backends.local.task import outcome


@pytest.mark.parametrize(
    ("code", "finished", "stop", "state", "exit_code"),
    [
        (0, True, None, "succeeded", 0),
        (0, False, None, "failed", 4),
        (0, True, "cancelled", "succeeded", 0),
        (0, False, "cancelled", "cancelled", 130),
        (130, False, "cancelled", "cancelled", 130),
        (-signal.SIGKILL, False, "cancelled", "cancelled", 130),
        (130, False, "terminated", "interrupted", 5),
        (130, False, None, "interrupted", 5),
        (-signal.SIGTERM, False, None, "interrupted", 5),
        (-signal.SIGKILL, False, None, "interrupted", 5),
        (-signal.SIGSEGV, False, None, "failed", 4),
        (3, False, None, "failed", 3),
        (4, False, None, "failed", 4),
        (5, False, None, "interrupted", 5),
        (7, False, None, "failed", 7),
        (1, False, None, "failed", 4),
        (77, False, None, "failed", 4),
    ],
)
def test_states_are_honest(code, finished, stop, state, exit_code):
    ended = outcome(code, None, finished=finished, stop=stop)
    assert (ended.state, ended.exit_code) == (state, exit_code)
    assert ended.state == "succeeded" or ended.cause


def test_the_workers_own_cause_is_shown():
    assert outcome(4, {"cause": "ValueError: no"}, finished=False, stop=None).cause == "ValueError: no"
