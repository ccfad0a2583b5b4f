"""Watching a study in the foreground: how far it is, the best so far, Ctrl-C, and the closing words."""

from __future__ import annotations

import os
import shutil
import sys
import time

from ai4sdk.cli.interrupts import interrupts_stop
from ai4sdk.cli.study_table import seed_lines, table_lines
from ai4sdk.config.project import display_path
from ai4sdk.errors import RunFailed
from ai4sdk.runs.state import RunState, read_state
from ai4sdk.spec.units import format_span
from ai4sdk.studies.launch import Looks, cancel_study
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.outcome import NOTHING_MEASURED
from ai4sdk.studies.point import PointState, StudyView
from ai4sdk.studies.results import best, estimate
from ai4sdk.studies.view import StudyReader
from ai4sdk.tracking.ledger import read_ledger

__all__ = ["closing_lines", "next_step", "standing", "watch_study"]

INTERVAL = 0.05
"""Least seconds between two looks at the study: so much later its end may be noticed."""
REST = 20
"""Times as long as a look took, which at thousands of points is long, is waited: trainings need the processors."""
PAUSE = 2.0
"""Seconds between two lines, where lines are printed."""


def watch_study(paths: StudyPaths) -> int:
    """Show a study until it ends, and return the status the command should end with."""
    display = _Live(paths) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else _Lines(paths)
    reader, looks = StudyReader(paths), Looks(paths)
    said = ""
    with display, interrupts_stop(lambda now: _stop(paths, now), display.note):
        while True:
            began = time.monotonic()
            looks.look()
            if looks.note != said:
                said = looks.note
                display.note(f"engine: {said}" if said else "engine: no news")
            state = _state(paths)
            display.show(reader.read())
            if state.state.ended:
                break
            time.sleep(max(INTERVAL, REST * (time.monotonic() - began)))
    for line in closing_lines(paths, reader.read(), state):
        print(line, file=sys.stdout)
    if state.cause:
        print(f"{paths.id} {state.state}: {state.cause}\n  → {next_step(paths, state)}", file=sys.stderr)
    return state.exit_code or 0


def _stop(paths: StudyPaths, now: bool) -> None:
    if not read_state(paths).state.ended:
        cancel_study(paths, now=now)


def _state(paths: StudyPaths) -> RunState:
    try:
        return read_state(paths)
    except (OSError, ValueError, KeyError) as error:
        raise RunFailed(f"the folder of {paths.id} was deleted while it ran; it was stopped") from error


def next_step(paths: StudyPaths, state: RunState) -> str:
    """Return what to type after a study that did not come to its end."""
    if state.cause and state.cause.startswith(NOTHING_MEASURED):  # its objective is part of it, and so is its code
        return (
            "start anew with another sweep.objective or with code that has it; points that succeeded are not run again"
        )
    if state.exit_code == 2:
        return f"mend that, then ai4sdk study resume {paths.id}, or start anew: points that succeeded are not run again"
    if state.exit_code == 4:
        return f"ai4sdk logs {paths.id}/NUMBER; ai4sdk study resume {paths.id} --failed tries them again"
    return f"ai4sdk study resume {paths.id}"


def closing_lines(paths: StudyPaths, view: StudyView, state: RunState, most: int = 20) -> list[str]:
    """Return the table of a study, and what to type next."""
    width = shutil.get_terminal_size((100, 24)).columns
    took = f" in {format_span(state.ended - state.started)}" if state.ended and state.started else ""
    lines = [f"{paths.id} {state.state}{took}", "", *table_lines(view, width, most)]
    if seeds := seed_lines(view, width):
        lines += ["", *seeds]
    if never_pruned(view):
        names = ", ".join(objective.name for objective in view.objectives)
        lines += ["", f"{view.pruner} could give up no point: none reported {names} while it trained, epoch by epoch"]
    lines.append("")
    if paths.best.exists():
        lines.append(f"  best       ai4sdk run config={display_path(paths.best)}")
    if paths.report.exists():
        lines.append(f"  report     {display_path(paths.report)}")
    ledger = read_ledger(paths.tracking)
    if ledger.last_error:
        lines.append(f"  records    not all sent ({ledger.last_error}); ai4sdk sync {paths.id}")
    elif ledger.uri:
        shown = f"mlflow ui --backend-store-uri {ledger.uri}" if ledger.uri.startswith("sqlite:") else ledger.uri
        lines.append(f"  records    {shown}")
        if reused := sum(result.reused for result in view.results):
            lines.append(
                f"             (of {reused} reused point{'s' * (reused > 1)} where they ran, not below this study)"
            )
    return lines


def never_pruned(view: StudyView) -> bool:
    """Tell whether there was a pruner, and not one of the points that trained here told it anything."""
    trained = [result for result in view.results if result.state is PointState.SUCCEEDED and not result.reused]
    return view.pruner is not None and bool(trained) and not any(result.reports for result in trained)


def standing(view: StudyView, *, short: bool = False) -> str:
    """Return in one line how far a study is and what was best."""
    done = sum(result.state.final for result in view.results)
    running = sum(result.state is PointState.RUNNING for result in view.results)
    parts = [] if short else [f"{done} of {view.total} points" if view.total else f"{done} points"]
    if failed := sum(result.state is PointState.FAILED for result in view.results):
        parts.append(f"{failed} failed")
    found = best(view)
    if found is not None and found.values:
        figures = "  ".join(
            f"{objective.name} {value:.4g}" for objective, value in zip(view.objectives, found.values, strict=False)
        )
        parts.append(f"best {figures} (point {found.point.number})")
    if running and (left := estimate(view, running)) is not None:
        parts.append(f"about {format_span(round(left))} left")
    return "  ".join(parts)


class _Lines:
    """For files and pipes: a line now and then."""

    def __init__(self, paths: StudyPaths) -> None:
        self._id = paths.id
        self._last, self._at = "", 0.0

    def __enter__(self) -> _Lines:
        self.note(self._id)
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show(self, view: StudyView) -> None:
        text, now = standing(view), time.monotonic()
        if text != self._last and now - self._at >= PAUSE:
            self._last, self._at = text, now
            self.note(text)


class _Live:
    """For terminals: a bar that moves."""

    def __init__(self, paths: StudyPaths) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._id = paths.id
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("points"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}", style="cyan"),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("points", total=None, figures="")

    def __enter__(self) -> _Live:
        self._progress.console.print(f"[bold]{self._id}[/]", highlight=False)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        self._progress.console.print(text, style="yellow", highlight=False)

    def show(self, view: StudyView) -> None:
        done = sum(result.state.final for result in view.results)
        figures = standing(view, short=True)
        self._progress.update(self._task, completed=done, total=view.total or None, figures=figures)
