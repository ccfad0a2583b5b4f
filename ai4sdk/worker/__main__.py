"""``python -m ai4sdk.worker RUN_DIR TASK``: execute one task of a run's plan.

Nothing but the plan is needed: no Hydra is composed, nothing is unpickled. How it ended is told by the exit code (see
`ai4sdk.errors`) and, if it failed, by ``failure.json``.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.errors import EnvironmentFault
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.allocation import keep_memory
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.startup import quick_imports

if TYPE_CHECKING:
    from ai4sdk.planning.plan import Plan

log = logging.getLogger("ai4sdk.worker")


def main(arguments: Sequence[str]) -> int:
    """Execute a task and return its exit code.

    Parameters
    ----------
    arguments
        The run directory and the name of the task.
    """
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m ai4sdk.worker RUN_DIR TASK\n")
        return 2
    stop = StopRequest()
    stop.listen()
    faulthandler.enable()
    keep_memory()
    paths = RunPaths(Path(arguments[0]).resolve())
    start_logging()
    log.info("task %s of %s, process %d", arguments[1], paths.id, os.getpid())
    several = False
    try:
        from ai4sdk.worker.failures import failure_of
        from ai4sdk.worker.task import read_task
    except ImportError as error:
        cause = f"ai4sdk cannot work here: {error}"
        return _fail(paths, {"cause": cause, "kind": "environment", "traceback": traceback.format_exc()}, 7)
    try:
        plan, planned = read_task(paths, arguments[1])
        several = planned is not None and planned.world_size > 1
        if several:  # read as torch is imported; else each run is told that it looks for unused parameters
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        _executor(planned.kind if planned is not None else "")(plan, paths, arguments[1], stop)
    except BaseException as error:  # noqa: BLE001 - whatever ends a task is told to the one who reads about it
        failure = failure_of(error, phase=_phase(paths))
        if several:
            from ai4sdk.worker.parting import fail_among_others

            fail_among_others(paths, error, failure)
        return _fail(paths, failure.to_json(), failure.exit_code)
    log.info("task %s is done", arguments[1])
    if several and os.environ["RANK"] != "0":  # it has just left the others
        from ai4sdk.worker.parting import end_at_once

        end_at_once(0)
    return 0


def start_logging() -> None:
    """Send log records and warnings to stderr; done before the long imports, some of which look whether it was."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%F %T"
    )
    logging.captureWarnings(True)


def _executor(kind: str) -> Callable[[Plan, RunPaths, str, StopRequest], None]:
    """Return what executes a kind of task; a call needs none of the libraries that trainings do."""
    try:
        if kind == "call":
            from ai4sdk.worker.call import execute

            return execute
        with quick_imports():
            if kind == "federate":
                from ai4sdk.federated.task import execute
            else:
                from ai4sdk.worker.phases import execute
    except ImportError as error:
        raise EnvironmentFault(f"ai4sdk cannot work here: {error}") from error
    return execute


def _phase(paths: RunPaths) -> str:
    try:
        return str(read_json(paths.progress).get("phase") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _fail(paths: RunPaths, failure: dict[str, Any], code: int) -> int:
    if failure["traceback"]:
        log.error("%s", failure["traceback"].rstrip())
    log.error("%s", failure["cause"])
    try:
        write_json(paths.failure, failure)
    except OSError as error:
        log.error("failure.json could not be written: %s", error)
    return code


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Python looks for garbage several times as it ends: almost a second among all that torch and Lightning have made.
    gc.freeze()
    sys.exit(status)
