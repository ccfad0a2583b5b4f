"""Sending later what could not be sent while a run was alive. Light: MLflow stays in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import read_state
from ai4sdk.tracking.ledger import Ledger, ending_of, read_ledger, unsent_records
from ai4sdk.tracking.outcome import files_at_end
from ai4sdk.tracking.settings import read_settings

__all__ = ["SyncReport", "count_pending", "pending", "sync"]


@dataclass(frozen=True)
class SyncReport:
    """What a catching up came to.

    Parameters
    ----------
    run
        The run's id.
    uri
        Where it is recorded; empty for ``tracking=none``.
    sent
        Records and files that arrived.
    pending
        Records and files that did not.
    problem
        Why not.
    mlflow_run_id
        MLflow's id of the run, once it has one.
    """

    run: str
    uri: str
    sent: int
    pending: int
    problem: str | None = None
    mlflow_run_id: str | None = None


def pending(run: Path) -> int:
    """Count the records and files of a run that are not in MLflow yet.

    Parameters
    ----------
    run
        The run directory.

    Raises
    ------
    NotFound, EnvironmentFault
        As `ai4sdk.tracking.settings.read_settings`.
    """
    paths = RunPaths(run.absolute())
    settings = read_settings(paths.root)
    if not settings.enabled:
        return 0
    ledger = read_ledger(paths.tracking)
    return count_pending(paths, ledger if ledger.uri == settings.shown_uri else Ledger())


def count_pending(paths: RunPaths, ledger: Ledger) -> int:
    """Count lines of metrics.jsonl and, once a run has ended, files and the end itself that have not arrived."""
    count = unsent_records(paths, ledger.offset)
    try:
        ending = ending_of(read_state(paths))
    except (OSError, ValueError, KeyError, TypeError):
        ending = None
    if ending is None or ledger.ending == ending:
        return count
    missing = 0
    for file, name in files_at_end(paths):
        found = file.stat()
        missing += ledger.files.get(name) != [found.st_size, found.st_mtime_ns]
    package = (paths.package / "MLmodel").is_file() and not (ledger.model or {}).get("ready")
    return count + missing + int(package) + 1


def sync(run: Path, *, patience: float = 20.0) -> SyncReport:
    """Send what is not in MLflow yet.

    Parameters
    ----------
    run
        The run directory.
    patience
        Seconds to keep trying while nothing arrives.

    Returns
    -------
    SyncReport
        What arrived, and what did not and why. A run that another process is shipping is left to it.

    Raises
    ------
    NotFound, EnvironmentFault
        As `ai4sdk.tracking.settings.read_settings`.
    """
    paths = RunPaths(run.absolute())
    settings = read_settings(paths.root)
    if not settings.enabled:
        return SyncReport(paths.id, "", 0, 0)
    before = pending(paths.root)
    if before:
        command = [
            sys.executable,
            "-P",
            "-m",
            "ai4sdk.tracking",
            str(paths.root),
            "--once",
            "--patience",
            str(patience),
        ]
        subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    ledger = read_ledger(paths.tracking)
    left = pending(paths.root)
    problem = ledger.last_error
    if left and problem is None:
        problem = "another process ships this run"
    return SyncReport(paths.id, settings.shown_uri, max(0, before - left), left, problem, ledger.run_id)
