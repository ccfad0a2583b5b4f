"""The process beside a worker, or a study, that ships what stands in its folder."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from ai4sdk.errors import Ai4Error
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import is_study
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.tracking.faults import RunGone, explain, known_faults, verdict_on
from ai4sdk.tracking.ledger import read_ledger, write_ledger
from ai4sdk.tracking.life import Life
from ai4sdk.tracking.lock import open_log, take
from ai4sdk.tracking.settings import Redactor, Settings, read_settings
from ai4sdk.tracking.shipper import Shipper

__all__ = ["PATIENCE", "main"]

log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds without progress after which the records of a run that ended are left for `ai4sdk sync`."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_NICENESS = 5  # the training goes first where cores are few
_NICENESS_OF_STUDY = 15  # so many points are shipped while others are trained


def main(folder: Path, *, once: bool = False, patience: float = PATIENCE) -> int:
    """Ship a run or a study until it ends, or what there is of it.

    Never fails: what does not arrive is noted in tracking.json and logs/tracking.log, and `ai4sdk sync` sends it.

    Parameters
    ----------
    folder
        The run directory, or the study directory.
    once
        Ship what there is and stop, even if the run goes on.
    patience
        Seconds to keep trying after the run's end without anything arriving.

    Returns
    -------
    int
        Exit code, 0.
    """
    root = folder.absolute()
    paths = StudyPaths(root) if is_study(root) else RunPaths(root)
    if not once:
        os.nice(_NICENESS_OF_STUDY if isinstance(paths, StudyPaths) else _NICENESS)
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
            _keep_shipping(_shipper_of(paths, settings, redact), life, patience)
    except Ai4Error as error:
        _refuse(paths, redact(explain(error, "")))
    return 0


def _shipper_of(paths: RunPaths, settings: Settings, redact: Redactor) -> Shipper:
    if not isinstance(paths, StudyPaths):
        return Shipper(paths, settings, redact)
    from ai4sdk.tracking.study import StudyShipper

    return StudyShipper(paths, settings, redact)


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
        descriptor = open_log(paths)
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
    while not take(descriptor):
        if not life.wait(1.0):
            return False
    return True


def _keep_shipping(shipper: Shipper, life: Life, patience: float) -> None:
    """Ship until the run has ended and all has arrived, or nothing arrives any more."""
    pause = _FIRST_PAUSE
    noticed = False
    faults: tuple[type[BaseException], ...] = (Ai4Error, OSError)
    while True:
        going_on = life.goes_on
        if not going_on and not noticed:
            noticed, shipper.progress = True, time.monotonic()
        try:
            shipper.prepare()
            faults = known_faults()
            problems = shipper.ship(at_end=not going_on)
        except RunGone as gone:
            log.warning("%s; it is recorded anew", gone)
            shipper.begin_again()
        except faults as error:
            verdict = verdict_on(error)
            shipper.note(error)
            shipper.disconnect()
            out_of_patience = time.monotonic() - shipper.progress > patience
            if not going_on and (verdict != "later" or out_of_patience):
                shipper.leave()
                return
            pause = min(_LONGEST_PAUSE, pause * 2) if verdict == "later" else _LONGEST_PAUSE
            if going_on:
                life.wait(pause)
            else:
                time.sleep(min(pause, 2.0))
        else:
            pause = _FIRST_PAUSE
            shipper.settle(problems)
            if not going_on:
                return
            _idle(shipper, life)


def _idle(shipper: Shipper, life: Life) -> None:
    until = time.monotonic() + shipper.settings.tracking.flush_every
    while (left := until - time.monotonic()) > 0 and life.wait(min(left, 1.0)):
        shipper.sample()
