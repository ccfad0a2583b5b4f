"""A federation's task: rounds, then evaluation and package of the global module, as after any training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from ai4sdk.data.module import SplitData
from ai4sdk.errors import DataError
from ai4sdk.federated.app import make_app
from ai4sdk.federated.inline import InlineGrid
from ai4sdk.federated.learner import Learner
from ai4sdk.federated.ledger import Ledger, Round
from ai4sdk.federated.rounds import Server
from ai4sdk.federated.strategies import make_strategy
from ai4sdk.federated.weights import State, load_state, state_of
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec.training import Checkpoint, EarlyStopping
from ai4sdk.worker.checkpoint import write_checkpoint
from ai4sdk.worker.phases import Work
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.task import open_task
from ai4sdk.worker.train import fit_marker, quiet_lightning

__all__ = ["execute"]

log = logging.getLogger(__name__)

ALL = "server"
"""Stands among the sites for the server's own validation, on the samples of all."""


def execute(plan: Plan, paths: RunPaths, task: str, stop: StopRequest) -> None:
    """Execute the task of a federation; see `ai4sdk.worker.phases.execute`."""
    quiet_lightning()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    with open_task(plan, paths, task, stop) as opened:
        _Federated(opened).do()


class _Federated(Work):
    """The phases of a federation that is rehearsed on this machine."""

    def fit(self) -> None:
        """Do the rounds that are left."""
        if fit_marker(self.paths).is_file():
            return
        job, federation = self.job, self.job.federation
        sites = self._sites()
        splits = self._splits
        every = SplitData(
            {name: part for name, part in splits.parts.items() if name == "val"}, splits.loader, splits.collate
        )
        learner = Learner(job, self.module, {**sites, ALL: every}, self.stop)
        grid = InlineGrid(make_app(learner), sites)
        server = Server(
            federation,
            job.seed,
            make_strategy(federation.strategy),
            grid,
            Ledger(self.paths.federation),
            lambda number, state: learner.validate(ALL, number, state).metrics,
        )
        server.begin(state_of(self.module))
        if len(server.done) > 1:
            self.records.event("resumed", round=server.done[-1].number)
        best = _Best(job.training.checkpoint)
        assert federation.rounds is not None  # planning writes it out
        reason = "all rounds made"
        for record in server.done:
            newest_is_best = best.consider(record)
        if newest_is_best:  # it may have been written down, and its weights not
            self._save(self.paths.best_checkpoint, server.state, server.done[-1])
        while len(server.done) <= federation.rounds:
            if job.training.early_stopping and stopped_early(server.done, job.training.early_stopping):
                reason = "early stopping"
                break
            self.stop.check()
            record = server.round()
            self._tell(record, federation.rounds)
            if best.consider(record):
                self._save(self.paths.best_checkpoint, server.state, record)
        self._save(self.paths.last_checkpoint, server.state, server.done[-1])
        ended = {"reason": reason, "rounds": len(server.done) - 1, "best": best.value, "monitor": best.monitor}
        write_json(fit_marker(self.paths), {"finished": True, **ended})
        self.records.event("fit ended", **ended)

    @property
    def _splits(self) -> SplitData:
        datamodule = self.data.datamodule
        if not isinstance(datamodule, SplitData):
            raise DataError(
                f"a {type(datamodule).__name__} divides and loads by itself, so that it cannot be shared among sites",
                hint="let dataset make a torch Dataset, arrays, or name files",
            )
        return datamodule

    def _sites(self) -> dict[str, SplitData]:
        """Divide training and validation samples among the sites."""
        from ai4sdk.data.partition import partition

        how, splits = self.job.federation.partition, self._splits
        sites: dict[str, dict[str, Any]] = {}
        assert how is not None  # planning sees to it
        for split in ("train", "val"):
            part = splits.parts.get(split)
            if part is None:
                continue
            for site, positions in partition(
                how, len(part), _labels(part) if how.method in _BY_CLASS else None
            ).items():
                sites.setdefault(site, {})[split] = Subset(part, positions)  # type: ignore[arg-type]
        return {site: SplitData(parts, splits.loader, splits.collate) for site, parts in sites.items()}

    def _tell(self, record: Round, rounds: int) -> None:
        self.records.metrics(record.metrics, step=record.number, epoch=record.number)
        self.records.event("round", number=record.number, sites=len(record.answered), refused=record.refused)
        self.records.progress.update(step=record.number, steps=rounds, metrics=record.metrics)

    def _save(self, path: Path, state: State, record: Round) -> None:
        load_state(self.module, state)
        write_checkpoint({"state_dict": self.module.state_dict(), "round": record.number}, path)


_BY_CLASS = ("dirichlet", "label")


def _labels(part: Any) -> list[Any]:
    """Return the class of each sample of a dataset of ours or of torch's."""
    targets = getattr(part, "targets", None)
    if targets is None and isinstance(part, Subset):
        inner = _labels(part.dataset)
        return [inner[position] for position in part.indices]
    if targets is None:
        targets = [target for _, target in (part[index] for index in range(len(part)))]
    return [target.item() if hasattr(target, "item") else target for target in targets]


class _Best:
    """The best value of ``training.checkpoint.monitor`` over the rounds."""

    def __init__(self, settings: Checkpoint) -> None:
        self.monitor, self._mode = settings.monitor, settings.mode
        self.value: float | None = None

    def consider(self, record: Round) -> bool:
        """Tell whether a round is the best so far."""
        value = record.metrics.get(self.monitor) if self.monitor else None
        if value is None or value != value:
            return False
        if self.value is not None and not (value < self.value if self._mode == "min" else value > self.value):
            return False
        self.value = value
        return True


def stopped_early(rounds: Sequence[Round], how: EarlyStopping) -> bool:
    """Tell whether the metric has not become better for as many rounds as there is patience for."""
    best: float | None = None
    waited = 0
    for record in rounds:
        value = record.metrics.get(how.monitor)
        if value is None:
            continue
        better = best is None or (value < best - how.min_delta if how.mode == "min" else value > best + how.min_delta)
        best, waited = (value, 0) if better else (best, waited + 1)
    return best is not None and waited > 0 and waited >= how.patience
