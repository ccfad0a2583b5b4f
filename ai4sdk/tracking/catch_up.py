"""Sending later what could not be sent while a run was alive. Light: MLflow stays in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import is_study, read_state
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.tracking.ledger import Ledger, ending_of, read_ledger, unsent_records
from ai4sdk.tracking.outcome import files_at_end, points_of
from ai4sdk.tracking.settings import Settings, read_settings
from ai4sdk.tracking.sites import unsent_rounds

__all__ = ["SyncReport", "count_pending", "pending", "sync"]


@dataclass(frozen=True)
class SyncReport:
    """What a catching up came to.

    Parameters
    ----------
    run
        The run: its directory inside the runs folder.
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
    """Count the records and files of a run or a study that are not in MLflow yet.

    Parameters
    ----------
    run
        The run directory, or the study directory.

    Raises
    ------
    NotFound, EnvironmentFault
        As `ai4sdk.tracking.settings.read_settings`.
    """
    settings = read_settings(run.absolute())
    return _pending(_paths_of(run), settings) if settings.enabled else 0


def _paths_of(folder: Path) -> RunPaths:
    root = folder.absolute()
    return StudyPaths(root) if is_study(root) else RunPaths(root)


def _pending(paths: RunPaths, settings: Settings) -> int:
    return count_pending(paths, _ledger_of(paths, settings.shown_uri), settings.parent)


def _ledger_of(paths: RunPaths, uri: str) -> Ledger:
    ledger = read_ledger(paths.tracking)
    return ledger if ledger.uri == uri else Ledger()


def count_pending(paths: RunPaths, ledger: Ledger, parent: str | None = None) -> int:
    """Count lines of metrics.jsonl and, once a run has ended, files and the end itself that have not arrived.

    Of a study, lines of points.jsonl and all that its points have pending count.

    Parameters
    ----------
    paths, ledger
        The run or study, and what was shipped of it.
    parent
        MLflow's id of the study's run that it belongs under; a run that was shipped without it has one more thing
        pending.
    """
    count = unsent_records(paths, ledger.offset) + int(ledger.described and ledger.parent != parent)
    count += unsent_rounds(paths.federation, ledger)
    if isinstance(paths, StudyPaths):
        for point in points_of(paths):
            count += count_pending(point, _ledger_of(point, ledger.uri), ledger.run_id)
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
    """Send what is not in MLflow yet, of a study also what its points have.

    Parameters
    ----------
    run
        The run directory, or the study directory.
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
    paths = _paths_of(run)
    settings = read_settings(paths.root)
    if not settings.enabled:
        return SyncReport(settings.identity, "", 0, 0)
    before = _pending(paths, settings)
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
    left = _pending(paths, read_settings(paths.root))
    problem = ledger.last_error
    if left and problem is None:
        problem = "another process ships this run"
    return SyncReport(settings.identity, settings.shown_uri, max(0, before - left), left, problem, ledger.run_id)
