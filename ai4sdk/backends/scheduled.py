"""What backends share that hand runs to a scheduler: handing one over, and the end of one that left no last word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ai4sdk.backends.base import Standing
from ai4sdk.errors import Ai4Error, EnvironmentFault, UsageError
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, hold_lock, read_state, write_last, write_state

__all__ = ["AlreadySubmitted", "handing_over", "write_end"]


class AlreadySubmitted(UsageError):
    """Somebody else submitted the run, and how it stands is theirs to say."""


@contextmanager
def handing_over(run: RunPaths, lock: int) -> Iterator[None]:
    """Free a run's lock after the block that hands it over; if that fails, leave it interrupted with the reason.

    Raises
    ------
    EnvironmentFault
        If the block could not write the run's folder.
    """
    try:
        yield
    except AlreadySubmitted:
        raise
    except Ai4Error as error:
        state = replace(read_state(run), state=State.INTERRUPTED, cause=error.message, exit_code=5)
        write_state(run, state)
        raise
    except OSError as error:
        raise EnvironmentFault(f"the run cannot be submitted: {error.strerror or error}") from error
    finally:
        os.close(lock)


def write_end(run: RunPaths, state: RunState, last: RunState) -> Standing:
    """Write down how a run ended, unless somebody holds its lock: then it stands as it did.

    Parameters
    ----------
    run
        The run.
    state, last
        How it stood, and how it ended.
    """
    lock = hold_lock(run)
    if lock is None:
        return Standing(state, "somebody still holds its lock")
    try:
        write_last(run, last)
    finally:
        os.close(lock)
    return Standing(last)
