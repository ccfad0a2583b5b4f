"""The study directory: one object owns every file name in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import is_study

__all__ = ["FORMAT", "README", "StudyPaths", "study_of"]

FORMAT = "ai4sdk.study/1"
"""Format of study.json."""

README = """\
A study of ai4sdk: many points of one config. `ai4sdk study show {id}` tells how it stands.

study.json       what is varied, searched and optimised; what all points share; the points of a grid
points.jsonl     what became of each point, one JSON object a line
state.json       queued, running, succeeded, failed, cancelled or interrupted, and why
events.jsonl     what happened, one JSON object a line
logs/            what the study's own processes printed
points/          a run directory for each point that ran here
best.yaml        the best point as a config: `ai4sdk run config=FOLDER/best.yaml`, with this folder
report.html      table, history, importance and parallel coordinates as one page
tracking.json    the parent run in MLflow
"""


@dataclass(frozen=True)
class StudyPaths(RunPaths):
    """Names of the files of one study; state, events, lock, logs, report and tracking are named as a run's.

    Parameters
    ----------
    root
        The study directory.
    """

    @property
    def study(self) -> Path:
        """What is varied and what all points share."""
        return self.root / "study.json"

    @property
    def ledger(self) -> Path:
        """What became of each point, appended."""
        return self.root / "points.jsonl"

    @property
    def points(self) -> Path:
        """Folder of the points' run directories."""
        return self.root / "points"

    @property
    def best(self) -> Path:
        """The best point as a config."""
        return self.root / "best.yaml"

    def point(self, number: int) -> RunPaths:
        """Return the files of a point's run; their names have as many digits as sort well."""
        return RunPaths(self.points / f"{number:05d}")


def study_of(run: Path) -> StudyPaths | None:
    """Return the study that a run directory belongs to as a point, or ``None`` for a run of its own.

    Where the folder lies decides, so that a study may be moved, and a point that was taken out of it is a run.
    """
    study = StudyPaths(run.parent.parent)
    return study if run.parent == study.points and is_study(study.root) else None
