"""Watching a run in the foreground: progress, Ctrl-C, and the closing words."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from ai4sdk.backends.base import Standing
from ai4sdk.backends.registry import get_backend
from ai4sdk.backends.standing import Watch, is_queued
from ai4sdk.cli.closing import closing_lines
from ai4sdk.cli.interrupts import interrupts_stop
from ai4sdk.errors import RunFailed
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState
from ai4sdk.runs.store import read_progress
from ai4sdk.tracking.ledger import read_ledger

__all__ = ["round_text", "watch"]

INTERVAL = 0.1
"""Seconds between two looks at the run."""
PHASES = {
    "start": "starting",
    "call": "calling",
    "fit": "training",
    "evaluate": "evaluating",
    "package": "packaging",
    "done": "finishing",
}


def watch(run: RunPaths, plan: Plan) -> int:
    """Show a run until it ends, and return the status the command should end with.

    Ctrl-C once asks it to stop with a checkpoint, twice at once; a third time leaves it and returns.
    """
    backend = get_backend(plan.job["backend"]["kind"])
    display = _Live(run) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else _Lines(run)
    looking = Watch(run)
    said = ""
    # A connection that is lost must not end what runs on a cluster.
    signals = (signal.SIGINT,) if is_queued(plan) else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with display, interrupts_stop(lambda now: backend.cancel(run, now=now), display.note, signals):
        while True:
            standing = _standing(run, looking)
            state = standing.state
            if standing.note != said:
                said = standing.note
                display.note(said or f"{state.state}")
            display.show(read_progress(run), state)
            if state.state.ended:
                break
            time.sleep(INTERVAL)
        _wait_for_records(run, display)
    for line in closing_lines(run, state):
        print(line, file=sys.stderr if state.exit_code else sys.stdout)
    return state.exit_code or 0


def _wait_for_records(run: RunPaths, display: _Live | _Lines) -> None:
    """Give the last records a moment to reach MLflow; a dead server must not hold the user."""
    if not run.tracking.exists() and not _is_recorded(run):
        return
    since = time.monotonic()
    # A short run may end before what sends its records has begun to.
    while time.monotonic() < since + (10.0 if run.tracking.exists() else 5.0):
        ledger = read_ledger(run.tracking)
        if ledger.finished or ledger.last_error:
            return
        display.note_once("sending the last records")
        time.sleep(INTERVAL)


def _is_recorded(run: RunPaths) -> bool:
    """Tell whether this machine sends the run's records."""
    try:
        return bool(read_json(run.submission).get("sidecars"))
    except (OSError, ValueError, AttributeError):
        return False


def _standing(run: RunPaths, looking: Watch) -> Standing:
    try:
        return looking.look()
    except (OSError, ValueError, KeyError) as error:
        if run.root.exists():
            time.sleep(INTERVAL)
            return looking.look()
        raise RunFailed(f"the folder of {run.id} was deleted while it ran; it was stopped") from error


def _figures(progress: dict[str, Any], most: int = 4) -> str:
    """Return the few metrics that matter most as text: validation first, each once though logged by step and epoch."""
    latest: dict[str, float] = {}
    metrics = progress.get("metrics") or {}
    for name in sorted(metrics, key=lambda name: not name.endswith("_step")):  # an epoch's value replaces a step's
        if isinstance(metrics[name], int | float):
            latest[name.removesuffix("_step").removesuffix("_epoch")] = metrics[name]
    chosen = sorted(latest, key=lambda name: (not name.startswith("val"), name))[:most]
    return "  ".join(f"{name} {latest[name]:.4g}" for name in chosen)


def round_text(progress: Mapping[str, Any]) -> str:
    """Say how far a federation is."""
    waits, rounds = progress.get("waits_for"), progress["rounds"]
    if waits:
        return f"round {progress['round'] + 1} of {rounds} waits for sites: {_there(waits)}"
    if not progress["round"]:
        return f"round 1 of {rounds}"
    return f"round {progress['round']} of {rounds}, {_sites(progress)}"


def _there(waits: Mapping[str, Any]) -> str:
    there = ", ".join(waits["there"])
    return f"{len(waits['there'])} of {waits['needed']} are there" + (f" ({there})" if there else "")


def _sites(progress: Mapping[str, Any]) -> str:
    answered, every = progress["sites"], progress["of_sites"]
    return f"{answered} of {every} site{'' if every == 1 else 's'}"


class _Lines:
    """For files and pipes: a line for each phase and epoch."""

    def __init__(self, run: RunPaths) -> None:
        self.run = run
        self.last: tuple[Any, ...] = ()

    def __enter__(self) -> _Lines:
        self.note(f"{self.run.id}")
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def note_once(self, text: str) -> None:
        if self.last != (text,):
            self.last = (text,)
            self.note(text)

    def show(self, progress: dict[str, Any], state: RunState) -> None:
        phase, epoch, rounds = progress.get("phase"), progress.get("epoch"), progress.get("rounds")
        now = (phase, progress.get("round"), progress.get("waits_for")) if rounds else (phase, epoch)
        if phase is None or now == self.last:
            return
        self.last = now
        if phase == "fit" and rounds:
            self.note(f"training  {round_text(progress)}  {_figures(progress)}".rstrip())
        elif phase == "fit":
            of = f" of {progress['epochs']}" if progress.get("epochs") else ""
            self.note(f"training  epoch {(epoch or 0) + 1}{of}  {_figures(progress)}".rstrip())
        elif phase in PHASES:
            self.note(PHASES[phase])


class _Live:
    """For terminals: a bar that moves."""

    def __init__(self, run: RunPaths) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.run = run
        self.noted = ""
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:11}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}", style="cyan"),
            console=Console(stderr=True),
            transient=False,
        )
        self.task = self.progress.add_task("starting", total=None, figures="")
        self.phase: str | None = None

    def __enter__(self) -> _Live:
        self.progress.console.print(f"[bold]{self.run.id}[/]", highlight=False)
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def note(self, text: str) -> None:
        self.progress.console.print(text, style="yellow", highlight=False)

    def note_once(self, text: str) -> None:
        if self.noted != text:
            self.noted = text
            self.progress.update(self.task, description=text)

    def show(self, progress: dict[str, Any], state: RunState) -> None:
        phase = progress.get("phase") or "start"
        if phase == "fit" and progress.get("rounds"):
            done, total = progress["round"], progress["rounds"]
            waits = progress.get("waits_for")
            sites = f"waits for sites: {_there(waits)}" if waits else _sites(progress) if done else ""
            figures = f"{sites}  {_figures(progress)}"
            self.progress.update(self.task, description="rounds", completed=done, total=total, figures=figures)
        elif phase == "fit":
            batches, batch, epochs = progress.get("batches"), progress.get("batch") or 0, progress.get("epochs")
            epoch = progress.get("epoch") or 0
            known = isinstance(batches, int) and isinstance(epochs, int)
            done = epoch * batches + batch if isinstance(batches, int) else progress.get("step") or 0
            total = epochs * batches if known else None  # type: ignore[operator]
            label = f"epoch {epoch + 1}/{epochs}" if epochs else f"epoch {epoch + 1}"
            self.progress.update(self.task, description=label, completed=done, total=total, figures=_figures(progress))
        elif phase != self.phase:
            total = self.progress.tasks[0].total if self.phase == "fit" else None
            self.progress.update(self.task, description=PHASES.get(phase, phase), completed=total)
        self.phase = phase
