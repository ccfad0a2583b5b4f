"""Ships one run in rounds, and keeps books on what has arrived."""

from __future__ import annotations

import logging
import time
from typing import Any

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state
from ai4sdk.tracking.faults import RunGone, explain, known_faults, verdict_on
from ai4sdk.tracking.ledger import Ledger, ending_of, read_ledger, write_ledger
from ai4sdk.tracking.machine import MachineLoad
from ai4sdk.tracking.outcome import files_at_end, files_at_start, scores_of
from ai4sdk.tracking.settings import Redactor, Settings
from ai4sdk.tracking.sites import SitesShipper, unsent_rounds
from ai4sdk.tracking.tail import Batch, MetricsTail, Tail

__all__ = ["Shipper"]

log = logging.getLogger(__name__)


class Shipper:
    """Ships one run, round by round; every round may be repeated.

    Parameters
    ----------
    paths, settings
        The run, and where it is recorded.
    redact
        Takes secrets out of what is written.
    """

    watches_machine = True
    """Whether the machine's load is recorded with the run."""

    def __init__(self, paths: RunPaths, settings: Settings, redact: Redactor) -> None:
        self.settings = settings
        self.progress = time.monotonic()
        """When something arrived last."""
        self._paths = paths
        self._redact = redact
        self._ledger = read_ledger(paths.tracking)
        if self._ledger.uri != settings.shown_uri or self._ledger.experiment not in ("", settings.experiment):
            self._ledger = Ledger(uri=settings.shown_uri, experiment=settings.experiment)
        self._tail = self._tail_from(self._ledger.offset)
        self._waiting: Batch | None = None
        self._recorder: Any = None
        self._load: MachineLoad | None = None
        self._said = ""

    def _tail_from(self, offset: int) -> Tail:
        return MetricsTail(self._paths.metrics, offset)

    # -- the connection

    def prepare(self) -> None:
        """Set what MLflow reads from the environment; for a process of its own only."""
        from ai4sdk.tracking.store import set_environment

        set_environment(self.settings, self._redact)

    def disconnect(self) -> None:
        """Connect anew in the next round."""
        self._recorder = None

    def begin_again(self) -> None:
        """Forget what was shipped: MLflow no longer has it."""
        self._ledger.forget()
        self._tail = self._tail_from(0)
        self._waiting = None
        self._recorder = None

    def _connect(self) -> Any:
        from ai4sdk.tracking.store import connect

        return connect(self.settings)

    def _open(self, state: RunState | None) -> None:
        from ai4sdk.tracking.recorder import Recorder

        recorder = Recorder(self._connect(), self._paths, self.settings, self._ledger)
        recorder.open(state)
        ending = ending_of(state) if state is not None else None
        self._ledger.finished = self._ledger.finished and self._ledger.ending == ending
        self._save()
        self._recorder = recorder
        if self.watches_machine:
            self._load = self._load or MachineLoad(recorder.started)
        log.info(
            "recording %s in %s, experiment %s, run %s",
            self.settings.identity,
            self._ledger.uri,
            self._ledger.experiment,
            recorder.run_id,
        )

    # -- one round

    def ship(self, *, at_end: bool) -> list[str]:
        """Send what is due; return what MLflow refused for good.

        Parameters
        ----------
        at_end
            Whether nothing more is to come, so that the run's end is due.
        """
        state = self._state()
        if self._recorder is None:
            self._open(state)
        problems: list[str] = []
        self._try(problems, self._describe)
        self._send_records(problems, at_end=at_end)
        if at_end and state is not None and state.state.ended and self._ledger.ending != ending_of(state):
            self._send_outcome(state, problems)
            self._recorder.end(state)
            if self._ledger.sites:
                self._try(problems, self._sites().end, state)
            if not problems:
                self._ledger.ending, self._ledger.finished = ending_of(state), True
            self._save()
            log.info("recorded the end of %s: %s", self.settings.identity, state.state)
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
            problems.append(self._explain(error))
            return None
        self.progress = time.monotonic()
        self._save()
        return result

    def _explain(self, error: BaseException) -> str:
        return self._redact(explain(error, self.settings.shown_uri))

    def _describe(self) -> None:
        self._recorder.describe()
        for file, name in files_at_start(self._paths):
            self._recorder.upload(file, name)

    def _send_records(self, problems: list[str], *, at_end: bool) -> None:
        """Send what the run appended since the last round."""
        self._send_metrics()
        if unsent_rounds(self._paths.federation, self._ledger):
            self._try(problems, self._sites().send)
        if not at_end:
            self.sample()
        self._send_load()

    def _send_metrics(self) -> None:
        while True:
            batch = self._waiting or self._tail.next_batch()
            if batch is None:
                return
            self._waiting = batch
            self._recorder.send(batch.points)
            self._waiting = None
            self._ledger.offset = batch.end
            self.progress = time.monotonic()
            self._save()

    def _sites(self) -> SitesShipper:
        return SitesShipper(self._recorder, self._ledger, self._paths.federation)

    def sample(self) -> None:
        """Take the machine's load if it is time to."""
        if self._load is not None:
            self._load.sample()

    def _send_load(self) -> None:
        if self._load is None:
            return
        points = self._load.waiting()
        if points:
            self._recorder.send(points)
            self._load.confirm(len(points))

    def _send_outcome(self, state: RunState, problems: list[str]) -> None:
        """Send what the run leaves."""
        from ai4sdk.tracking.model import register, send_model

        model_id = self._try(problems, send_model, self._recorder, self._tail.last_step)
        self._try(problems, self._send_scores, model_id)
        self._send_files(problems)
        if model_id is not None and state.state is State.SUCCEEDED:
            self._try(problems, register, self._recorder, model_id, self._recorder.run_id)

    def _send_files(self, problems: list[str]) -> None:
        for file, name in files_at_end(self._paths):
            self._try(problems, self._recorder.upload, file, name)

    def _send_scores(self, model_id: str | None) -> None:
        found = scores_of(self._paths, self.settings, self._tail.last_step)
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

    def note(self, error: BaseException) -> None:
        """Say once what stands in the way."""
        text = self._explain(error)
        if text != self._said:
            log.warning("%s", text)
            self._said = text
        self._ledger.last_error = text
        self._count()

    def settle(self, problems: list[str]) -> None:
        """Say what a round that came to its end could not send, if anything."""
        text = "; ".join(problems)
        if text and text != self._said:
            log.error("%s", text)
        elif self._said and not text:
            log.info("%s takes records again", self._ledger.uri)
        self._said = text
        if self._ledger.last_error != (text or None) or self._ledger.pending:
            self._ledger.last_error = text or None
            self._count()

    def leave(self) -> None:
        """Say what is left for `ai4sdk sync`."""
        log.warning(
            "%d records and files of %s are not in MLflow (%s); `ai4sdk sync %s` sends them",
            self._count(),
            self.settings.identity,
            self._said,
            self.settings.to_sync,
        )

    def _count(self) -> int:
        from ai4sdk.tracking.catch_up import count_pending

        self._ledger.pending = count_pending(self._paths, self._ledger, self.settings.parent)
        try:
            self._save()
        except OSError as error:
            log.warning("%s cannot be written: %s", self._paths.tracking, error.strerror or error)
        return self._ledger.pending
