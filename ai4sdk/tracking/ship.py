"""The process beside a worker that ships what stands in the run directory."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from ai4sdk.errors import Ai4Error
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state
from ai4sdk.tracking.faults import RunGone, explain, known_faults, verdict_on
from ai4sdk.tracking.ledger import Ledger, ending_of, read_ledger, write_ledger
from ai4sdk.tracking.life import Life
from ai4sdk.tracking.machine import MachineLoad
from ai4sdk.tracking.outcome import files_at_end, files_at_start, scores_of
from ai4sdk.tracking.settings import Redactor, Settings, read_settings
from ai4sdk.tracking.tail import Batch, MetricsTail

__all__ = ["PATIENCE", "Shipper", "main"]

log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds without progress after which the records of a run that ended are left for `ai4sdk sync`."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_NICENESS = 5  # the training goes first where cores are few


def main(run_dir: Path, *, once: bool = False, patience: float = PATIENCE) -> int:
    """Ship a run until it ends, or what there is of it.

    Never fails: what does not arrive is noted in tracking.json and logs/tracking.log, and `ai4sdk sync` sends it.

    Parameters
    ----------
    run_dir
        The run directory.
    once
        Ship what there is and stop, even if the run goes on.
    patience
        Seconds to keep trying after the run's end without anything arriving.

    Returns
    -------
    int
        Exit code, 0.
    """
    if not once:
        os.nice(_NICENESS)
    paths = RunPaths(run_dir.absolute())
    life = Life(paths, once=once)
    life.listen()
    redact = Redactor()
    if not paths.root.is_dir():
        sys.stderr.write(f"there is no run directory {paths.root}\n")
        return 0
    lock = _log_to(paths, redact)
    try:
        if lock is not None and not _taken(lock, life):
            log.info("another process ships this run")
            return 0
        settings = read_settings(paths.root)
        if settings.enabled:
            Shipper(paths, settings, life, redact, patience).run()
    except Ai4Error as error:
        _refuse(paths, redact(explain(error, "")))
    return 0


def _refuse(paths: RunPaths, text: str) -> None:
    """Note why a run cannot be recorded at all."""
    log.error("%s", text)
    ledger = read_ledger(paths.tracking)
    ledger.last_error = text
    try:
        write_ledger(paths.tracking, ledger)
    except OSError as error:
        log.error("%s cannot be written: %s", paths.tracking, error)


class _Redacted(logging.Formatter):
    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def _log_to(paths: RunPaths, redact: Redactor) -> int | None:
    """Log to logs/tracking.log (and to stderr where that is another place); return the log's descriptor.

    The log doubles as a lock: whoever ships the run holds it.
    """
    handlers: list[logging.Handler] = []
    descriptor = None
    try:
        paths.logs.mkdir(exist_ok=True)
        descriptor = os.open(paths.log("tracking"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        handlers.append(logging.StreamHandler(os.fdopen(descriptor, "a", encoding="utf-8", closefd=False)))
        same = os.path.sameopenfile(descriptor, 2)
    except OSError:
        same = False  # a full disk or a folder that is not ours must not keep records from travelling
    if not same:
        handlers.append(logging.StreamHandler())
    root = logging.getLogger()
    root.handlers.clear()
    for handler in handlers:
        handler.setFormatter(_Redacted(redact))
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("ai4sdk").setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=False)
    return descriptor


def _taken(descriptor: int, life: Life) -> bool:
    """Take the lock, waiting while another shipper finishes and the run goes on."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not life.wait(1.0):
                return False
        except OSError:
            return True  # a file system without locks
        else:
            return True


def _ending(state: RunState | None) -> str | None:
    return ending_of(state) if state is not None else None


class Shipper:
    """Ships one run, again and again until all has arrived.

    Parameters
    ----------
    paths, settings
        The run, and where it is recorded.
    life
        Whether the run goes on.
    redact
        Takes secrets out of what is written.
    patience
        Seconds to keep trying after the run's end without anything arriving.
    """

    def __init__(self, paths: RunPaths, settings: Settings, life: Life, redact: Redactor, patience: float) -> None:
        self._paths = paths
        self._settings = settings
        self._life = life
        self._redact = redact
        self._patience = patience
        self._ledger = read_ledger(paths.tracking)
        if self._ledger.uri != settings.shown_uri or self._ledger.experiment not in ("", settings.experiment):
            self._ledger = Ledger(uri=settings.shown_uri, experiment=settings.experiment)
        self._tail = MetricsTail(paths.metrics, self._ledger.offset)
        self._waiting: Batch | None = None
        self._recorder: Any = None
        self._load: MachineLoad | None = None
        self._said = ""
        self._progress = time.monotonic()

    def run(self) -> None:
        """Ship until the run has ended and all has arrived, or nothing arrives any more."""
        from ai4sdk.tracking.store import set_environment

        pause = _FIRST_PAUSE
        noticed = False
        faults: tuple[type[BaseException], ...] = (Ai4Error, OSError)
        while True:
            going_on = self._life.goes_on
            if not going_on and not noticed:
                noticed, self._progress = True, time.monotonic()
            try:
                set_environment(self._settings, self._redact)
                faults = known_faults()
                problems = self._ship(at_end=not going_on)
            except RunGone as gone:
                log.warning("%s; it is recorded anew", gone)
                self._begin_again()
            except faults as error:
                verdict = verdict_on(error)
                text = self._redact(explain(error, self._settings.shown_uri))
                self._note(text)
                self._recorder = None
                out_of_patience = time.monotonic() - self._progress > self._patience
                if not going_on and (verdict != "later" or out_of_patience):
                    self._leave(text)
                    return
                pause = min(_LONGEST_PAUSE, pause * 2) if verdict == "later" else _LONGEST_PAUSE
                if going_on:
                    self._life.wait(pause)
                else:
                    time.sleep(min(pause, 2.0))
            else:
                pause = _FIRST_PAUSE
                self._settle(problems)
                if not going_on:
                    return
                self._idle(self._settings.tracking.flush_every)

    def _begin_again(self) -> None:
        self._ledger.forget()
        self._tail = MetricsTail(self._paths.metrics)
        self._waiting = None
        self._recorder = None

    def _idle(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self._life.wait(min(left, 1.0)):
            if self._load is not None:
                self._load.sample()

    # -- one round

    def _ship(self, *, at_end: bool) -> list[str]:
        """Send what is due; return what MLflow refused for good."""
        state = self._state()
        if self._recorder is None:
            from ai4sdk.tracking.recorder import Recorder
            from ai4sdk.tracking.store import connect

            recorder = Recorder(connect(self._settings), self._paths, self._settings, self._ledger)
            recorder.open(state)
            self._ledger.finished = self._ledger.finished and self._ledger.ending == _ending(state)
            self._save()
            self._recorder = recorder
            self._load = self._load or MachineLoad(recorder.started)
            log.info(
                "recording in %s, experiment %s, run %s", self._ledger.uri, self._ledger.experiment, recorder.run_id
            )
        problems: list[str] = []
        self._try(problems, self._describe)
        self._send_metrics()
        if self._load is not None and not at_end:
            self._load.sample()
        self._send_load()
        if at_end and state is not None and state.state.ended and self._ledger.ending != ending_of(state):
            self._send_outcome(state, problems)
            self._recorder.end(state)
            if not problems:
                self._ledger.ending, self._ledger.finished = ending_of(state), True
            self._save()
            log.info("recorded the end of the run: %s", state.state)
        elif at_end and not self._paths.root.is_dir():
            self._recorder.abandon()
        return problems

    def _try(self, problems: list[str], step: Any, *arguments: Any) -> Any:
        """Take a step; if MLflow refuses it for good, note that and let the others have their turn."""
        try:
            result = step(*arguments)
        except known_faults() as error:
            if isinstance(error, RunGone) or verdict_on(error) != "refused":
                raise
            problems.append(self._redact(explain(error, self._settings.shown_uri)))
            return None
        self._progress = time.monotonic()
        self._save()
        return result

    def _describe(self) -> None:
        self._recorder.describe()
        for file, name in files_at_start(self._paths):
            self._recorder.upload(file, name)

    def _send_metrics(self) -> None:
        while True:
            batch = self._waiting or self._tail.next_batch()
            if batch is None:
                return
            self._waiting = batch
            self._recorder.send(batch.points)
            self._waiting = None
            self._ledger.offset = batch.end
            self._progress = time.monotonic()
            self._save()

    def _send_load(self) -> None:
        if self._load is None:
            return
        points = self._load.waiting()
        if points:
            self._recorder.send(points)
            self._load.confirm(len(points))

    def _send_outcome(self, state: RunState, problems: list[str]) -> None:
        from ai4sdk.tracking.model import register, send_model

        model_id = self._try(problems, send_model, self._recorder, self._tail.last_step)
        self._try(problems, self._send_scores, model_id)
        for file, name in files_at_end(self._paths):
            self._try(problems, self._recorder.upload, file, name)
        if model_id is not None and state.state is State.SUCCEEDED:
            self._try(problems, register, self._recorder, model_id)

    def _send_scores(self, model_id: str | None) -> None:
        found = scores_of(self._paths, self._settings, self._tail.last_step)
        if found is None or found[0] == self._ledger.scores:
            return
        digest, points = found
        self._recorder.send(points, model_id=model_id)
        self._ledger.scores = digest

    def _state(self) -> RunState | None:
        try:
            return read_state(self._paths)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # -- keeping books

    def _save(self) -> None:
        if self._paths.root.is_dir():  # somebody may delete a run while it is being shipped
            write_ledger(self._paths.tracking, self._ledger)

    def _note(self, text: str) -> None:
        """Say once what stands in the way."""
        if text != self._said:
            log.warning("%s", text)
            self._said = text
        self._ledger.last_error = text
        self._count()

    def _settle(self, problems: list[str]) -> None:
        text = "; ".join(problems)
        if text and text != self._said:
            log.error("%s", text)
        elif self._said and not text:
            log.info("%s takes records again", self._ledger.uri)
        self._said = text
        if self._ledger.last_error != (text or None) or self._ledger.pending:
            self._ledger.last_error = text or None
            self._count()

    def _leave(self, text: str) -> None:
        pending = self._count()
        log.warning(
            "%d records and files of %s are not in MLflow (%s); `ai4sdk sync %s` sends them",
            pending,
            self._paths.id,
            text,
            self._paths.id,
        )

    def _count(self) -> int:
        from ai4sdk.tracking.catch_up import count_pending

        self._ledger.pending = count_pending(self._paths, self._ledger)
        try:
            self._save()
        except OSError as error:
            log.warning("%s cannot be written: %s", self._paths.tracking, error.strerror or error)
        return self._ledger.pending
