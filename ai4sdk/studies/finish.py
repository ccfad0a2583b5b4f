"""What a study leaves when it has ended: the best point as a config and with a whole report, and its own report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ai4sdk.config.yaml_files import dump_yaml
from ai4sdk.runs.files import read_json, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.studies.importance import find_importances
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.point import Result, StudyView
from ai4sdk.studies.report import render
from ai4sdk.studies.results import best

__all__ = ["finish"]


def finish(view: StudyView, paths: StudyPaths) -> None:
    """Write ``best.yaml`` and ``report.html``; raises OSError if they cannot be written."""
    text: str | None = None
    drawing: subprocess.Popen[bytes] | None = None
    winner = best(view)
    if winner is not None and winner.run is not None:
        text = _config_of(winner, view)
        write_text(paths.best, text, durable=False)
        drawing = _draw(RunPaths(winner.run), paths)
    importances = [find_importances(view, index) for index in range(len(view.objectives))]
    write_text(paths.report, render(view, importances, text, folder=paths.root), durable=False)
    if drawing is not None:
        drawing.wait()


def _draw(run: RunPaths, paths: StudyPaths) -> subprocess.Popen[bytes] | None:
    """Start to draw the pictures that a point leaves out, while the study's own report is made."""
    if not run.membership.exists() or not run.scores.exists():
        return None
    with open(paths.log("report"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ai4sdk.worker.report", str(run.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _config_of(winner: Result, view: StudyView) -> str:
    assert winner.run is not None
    job = read_json(RunPaths(Path(winner.run)).plan)["job"]
    job.pop("sweep", None)
    values = ", ".join(
        f"{objective.name} {value:.6g}" for objective, value in zip(view.objectives, winner.values or (), strict=False)
    )
    head = f"# Point {winner.point.number} of {view.id}: {values}\n"
    return head + dump_yaml(job)
