"""What a run that ended leaves to be shipped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import is_run
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.tracking.describe import figures_of
from ai4sdk.tracking.names import ValidNames
from ai4sdk.tracking.settings import Settings
from ai4sdk.tracking.tail import Point

__all__ = ["files_at_end", "files_at_start", "points_of", "scores_of"]


def files_at_start(paths: RunPaths) -> Iterator[tuple[Path, str]]:
    """Yield files that are known from the start, and their paths in the run directory."""
    for file in (paths.study,) if isinstance(paths, StudyPaths) else (paths.plan, paths.config):
        if file.is_file():
            yield file, file.name


def files_at_end(paths: RunPaths) -> Iterator[tuple[Path, str]]:
    """Yield files that a run leaves: report, evaluation, logs and events; a study its points and the best one, too."""
    yield from files_at_start(paths)
    of_study = (paths.ledger, paths.best) if isinstance(paths, StudyPaths) else ()
    for file in (paths.report, paths.events, *of_study):
        if file.is_file():
            yield file, file.name
    own = paths.log("tracking")
    for folder in (paths.evaluation, paths.logs):
        for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
            # Our own log goes on while it is being sent.
            if file.is_file() and file != own and not file.name.startswith("."):
                yield file, file.relative_to(paths.root).as_posix()


def points_of(study: StudyPaths) -> list[RunPaths]:
    """Return the points that ran in a study, by number."""
    try:
        folders = sorted(folder for folder in study.points.iterdir() if folder.name.isdecimal() and is_run(folder))
    except OSError:
        return []
    return [RunPaths(folder) for folder in folders]


def scores_of(paths: RunPaths, settings: Settings, step: int) -> tuple[str, list[Point]] | None:
    """Read the evaluation's figures.

    Parameters
    ----------
    paths, settings
        The run.
    step
        Step of the training that they are recorded at.

    Returns
    -------
    digest
        Digest of the file, which tells one evaluation from another.
    points
        The figures, as of the time when the file was written.
    None
        If there are none.
    """
    try:
        text = paths.scores.read_bytes()
        time = int(paths.scores.stat().st_mtime * 1000)
        scores: Any = read_json(paths.scores)
    except (OSError, ValueError):
        return None
    if not isinstance(scores, dict):
        return None
    names = ValidNames()
    figures = figures_of(scores, None if settings.job.get("function") else _split(scores, settings))
    points = [Point(names(name), value, time, step) for name, value in figures.items()]
    return hashlib.sha256(text).hexdigest(), points


def _split(scores: Mapping[str, Any], settings: Settings) -> str:
    evaluation = settings.job.get("evaluation")
    split = evaluation.get("split") if isinstance(evaluation, dict) else None
    return str(scores.get("split") or split or "test")
