"""Studies from Python: the steps of the command line as functions, the same errors as exceptions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.errors import NotFound
from ai4sdk.runs.display import html_table
from ai4sdk.runs.ending import failure_of
from ai4sdk.runs.handle import Handle
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State
from ai4sdk.runs.store import find_study
from ai4sdk.sdk import Run, project_of
from ai4sdk.studies.launch import Looks, cancel_study, resume_study, start_study
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.plan import StudyPlan, make_study
from ai4sdk.studies.point import Result, StudyView
from ai4sdk.studies.results import best, ranked, records
from ai4sdk.studies.view import StudyReader, view_of

if TYPE_CHECKING:
    import pandas

__all__ = ["Study", "open_study", "study"]


def study(what: str | Path | StudyPlan, *overrides: str, project: str | Path | None = None, wait: bool = True) -> Study:
    """Run a study.

    Parameters
    ----------
    what
        A config's name or path, or what `ai4sdk.studies.plan.make_study` returned.
    *overrides
        Overrides in Hydra's grammar; those with several values, such as ``"seed=range(5)"``, are axes.
    project
        Folder to work in; by default the project around the current folder.
    wait
        Whether to return only when it has ended. Without it iterate over the study: points come as they end.

    Raises
    ------
    ConfigError
        With every mistake found in the config and its axes.
    RunFailed, RunInterrupted, RunCancelled
        If ``wait`` and it did not succeed; what succeeded of it is kept.
    """
    found = project_of(project)
    planned = what if isinstance(what, StudyPlan) else make_study(str(what), overrides, found)
    started = Study(start_study(planned, found.root))
    return started.wait() if wait else started


def open_study(reference: str | Path = "latest", *, project: str | Path | None = None) -> Study:
    """Open a study by id, unique prefix, job name, folder, or ``latest``; raises `NotFound`."""
    return Study(StudyPaths(find_study(str(reference), project_of(project).root / "runs").root))


class Study(Handle):
    """A study: its points and what became of them, read from its folder each time they are asked for.

    Iterating yields each point once it has ended, in that order, until the study has ended.

    Parameters
    ----------
    paths
        Files of the study.
    """

    what = "study"
    first_log = "engine"
    paths: StudyPaths

    def __init__(self, paths: StudyPaths) -> None:
        super().__init__(paths)
        self._looks = Looks(paths)

    @property
    def status(self) -> RunState:
        """How it stands. Where a scheduler has its points, asking brings it up to date, now and then."""
        if self.paths.study.exists():
            self._looks.look()
        return super().status

    @property
    def view(self) -> StudyView:
        """All that is known of it."""
        return view_of(self.paths)

    @property
    def results(self) -> list[Result]:
        """The points that succeeded, the best first."""
        return ranked(self.view)

    @property
    def best(self) -> Run | None:
        """The run of the best point, ``None`` if no point has succeeded."""
        found = best(self.view)
        return Run(RunPaths(found.run)) if found is not None and found.run is not None else None

    def __iter__(self) -> Iterator[Result]:
        reader = StudyReader(self.paths)
        seen: set[int] = set()
        while True:
            ended = self.status.state.ended
            for result in reader.read().results:
                if result.state.final and result.point.number not in seen:
                    seen.add(result.point.number)
                    yield result
            if ended:
                return
            time.sleep(0.1)

    def check(self) -> None:
        """Raise the error that fits how it ended; return if it succeeded or has not ended."""
        if error := failure_of(self.paths, self.status):
            error.hint = f"ai4sdk study show {self.id}"
            raise error

    def cancel(self, *, now: bool = False) -> State:
        """Stop it, its running points with a checkpoint, or with ``now`` without one; returns its state then."""
        cancel_study(self.paths, now=now)
        return self.wait(check=False).state

    def resume(self, *, failed_too: bool = False, wait: bool = True) -> Study:
        """Go on after a kill or a cancel; with ``failed_too`` try failed points again."""
        resume_study(self.paths, failed_too=failed_too)
        return self.wait() if wait else self

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a row a point: number, state, parameters, objectives, seconds, run folder."""
        import pandas

        return pandas.DataFrame(records(self.view))

    def __repr__(self) -> str:
        try:
            view = self.view
        except (NotFound, OSError):
            return f"<Study {self.id}: gone>"
        done = sum(result.state.final for result in view.results)
        return f"<Study {self.id}: {view.state}, {done} of {view.total} points>"

    def _repr_html_(self) -> str:
        try:
            view = self.view
        except NotFound:
            return html_table(self.id, {"state": "gone"})
        found = best(view)
        facts: dict[str, Any] = {
            "state": view.state,
            "points": f"{sum(result.state.final for result in view.results)} of {view.total}",
            "best": " ".join(found.point.overrides) if found is not None else None,
            "folder": self.folder,
            "report": self.report,
        }
        if found is not None and found.values is not None:
            facts |= {one.name: value for one, value in zip(view.objectives, found.values, strict=False)}
        return html_table(self.id, facts)
