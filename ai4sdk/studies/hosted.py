"""The engine of a study inside a small Slurm job, for a study whose points depend on how others ended."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

from ai4sdk.backends.job import refuse
from ai4sdk.backends.slurm import client, submissions
from ai4sdk.backends.slurm.supervisor import own_job, wait_for_the_end
from ai4sdk.errors import Ai4Error
from ai4sdk.runs.state import State, hold_lock, read_state, write_last, write_state
from ai4sdk.studies.engine import execute
from ai4sdk.studies.layout import StudyPaths

__all__ = ["execute_in_job"]

_PREDECESSOR = 30.0
"""Longest time, in seconds, that an engine on a lost node, or whoever submitted this one, holds the study's lock."""


def execute_in_job(paths: StudyPaths, number: int, *, failed_too: bool = False) -> int:
    """Execute a study as the job that this process is in, and return the status it should end with.

    Parameters
    ----------
    paths
        Files of the study.
    number
        Of the submission.
    failed_too
        Whether to try points again that failed by their own code.
    """
    restart = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    newest, state = submissions.latest(paths), read_state(paths)
    if newest is None or newest.number != number:
        return refuse("another job was submitted for the study after this one")
    if state.state.ended and not (restart and state.state is State.INTERRUPTED):
        return refuse(f"the study has ended: it is {state.state}")
    # An engine on a node that was given up for lost sees that it was replaced, and lets go of the lock.
    write_state(paths, replace(state, state=State.QUEUED, scheduler="slurm", job=own_job(), started=time.time()))
    lock = hold_lock(paths, patience=_PREDECESSOR)
    if lock is None:
        return refuse("somebody else holds the lock of the study")
    execute(paths, lock, failed_too=failed_too and not restart)
    newest, state = submissions.latest(paths), read_state(paths)
    if newest is None or newest.number != number or state.job != own_job():
        return refuse("another job executes the study by now")
    if state.state.ended:
        return state.exit_code or 0
    return _put_back(paths, restart, terminated=state.extra.get("stopping") == "terminated")


def _put_back(paths: StudyPaths, restart: int, *, terminated: bool) -> int:
    """Have Slurm queue the job again, unless it does so or ends it for good, and wait for it to end this process."""
    ended = terminated

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    cause = "Slurm ended the job of its engine; its points go on"
    try:
        if not terminated:
            client.requeue(own_job())
            lost = False
        else:
            lost = client.restarts(own_job()) <= restart
    except Ai4Error as error:
        cause, lost = f"its engine could not be queued again: {error.message}", True
    if lost:
        last = replace(read_state(paths), state=State.INTERRUPTED, cause=cause, exit_code=5, ended=time.time())
        write_last(paths, last)
        return 5
    return wait_for_the_end(lambda: ended)
