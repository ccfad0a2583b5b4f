"""How one of several processes ends: its own fault is told before the others notice that it is gone."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import replace
from typing import NoReturn

from ai4sdk.errors import RunInterrupted
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.failures import Failure

__all__ = ["end_at_once", "fail_among_others"]

log = logging.getLogger("ai4sdk.worker")


def fail_among_others(paths: RunPaths, error: BaseException, failure: Failure) -> NoReturn:
    """Write down why this process ends, and end it at once: those that wait for it must notice.

    The first fault of a process's own stays. That another one is gone is only written where nothing else is known, and
    that all were told to stop is said by rank 0.

    Parameters
    ----------
    paths
        Files of the run.
    error
        What was raised.
    failure
        What it means.
    """
    text = os.environ.get("RANK", "")
    rank = int(text) if text.isdecimal() else 0
    group = sys.modules.get("ai4sdk.worker.group")  # not there yet if torch could not be imported
    lost = group is not None and group.lost_rank(error)
    if lost:
        cause = f"rank {rank} lost the connection to another rank"
        failure = Failure(cause, "interrupted", RunInterrupted.exit_code, failure.traceback)
    elif failure.kind not in ("interrupted", "cancelled"):
        failure = replace(failure, cause=f"rank {rank}: {failure.cause}")
    if failure.traceback:
        log.error("%s", failure.traceback.rstrip())
    log.error("%s", failure.cause)
    stopped = failure.kind in ("interrupted", "cancelled") and not lost
    try:
        if rank == 0 or not stopped:
            _write(paths, failure, rank, lost=lost)
    except OSError as problem:
        log.error("failure.json could not be written: %s", problem)
    end_at_once(failure.exit_code)


def end_at_once(status: int) -> NoReturn:
    """End this process without tidying up.

    torch's threads may still hold tensors that they sent. If they let go of them while Python tidies up, that aborts
    the process, though all has gone well.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _write(paths: RunPaths, failure: Failure, rank: int, *, lost: bool) -> None:
    """Write failure.json, unless another process has written more than this one knows."""
    values = {**failure.to_json(), "rank": rank} | ({"lost": True} if lost else {})
    scratch = paths.failure.with_name(f".{paths.failure.name}.{os.getpid()}.whole")
    write_json(scratch, values)
    try:
        os.link(scratch, paths.failure)  # unlike replacing it, this fails where there is one
    except FileExistsError:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if not lost and read_json(paths.failure).get("lost"):
                scratch.replace(paths.failure)
    finally:
        scratch.unlink(missing_ok=True)
