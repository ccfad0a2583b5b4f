"""What the worker hangs into Lightning: the logger and the one callback of ours.

There is only one callback, and none of its hooks is called at every step: Lightning spends about 20 microseconds on
each hook, even on an empty one.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint as CheckpointCallback
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.model_helpers import is_overridden

from ai4sdk.errors import RunFailed
from ai4sdk.spec import Checkpoint
from ai4sdk.worker.checkpoint import checkpoint_due, write_checkpoint
from ai4sdk.worker.group import Group
from ai4sdk.worker.records import Records
from ai4sdk.worker.reporting import Reporter
from ai4sdk.worker.resume import STATE_KEY, ExactState

__all__ = ["BestWeights", "Monitors", "RunLogger", "WorkerCallback"]

log = logging.getLogger(__name__)


class RunLogger(Logger):
    """Lightning's way to the run's records.

    Parameters
    ----------
    records
        Where metrics go.
    """

    def __init__(self, records: Records) -> None:
        super().__init__()
        self._records = records

    @property
    def name(self) -> str:
        """Folder under the run directory that other callbacks write into; ``checkpoints`` is ours."""
        return "callbacks"

    @property
    def version(self) -> str:
        """No further folder."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self._records.paths.root)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics."""
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if values:
            self._records.metrics(values, step=step or 0, epoch=int(metrics.get("epoch", 0)))

    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the plan has them all."""


class BestWeights:
    """Keeps the weights with the best value of a metric.

    On disk they are never older than the state of a checkpoint that follows: call `flush` before taking one.

    Parameters
    ----------
    path
        File of the weights.
    settings
        Metric and direction.
    clock
        Tells the time in seconds.
    writes
        Whether weights are kept; of several processes only rank 0 does.
    """

    def __init__(
        self,
        path: Path,
        settings: Checkpoint,
        *,
        clock: Callable[[], float] = time.monotonic,
        writes: bool = True,
    ) -> None:
        self._path, self._settings, self._clock, self._writes = path, settings, clock, writes
        self._value: float | None = None
        self._held: dict[str, Any] | None = None
        self._written, self._cost = clock(), 0.0

    @property
    def monitor(self) -> str | None:
        """The metric, ``None`` if none is watched."""
        return self._settings.monitor

    @property
    def value(self) -> float | None:
        """The best value so far."""
        return self._value

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"monitor": self.monitor, "value": self._value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it back."""
        if state.get("monitor") == self.monitor:
            self._value = state["value"]

    def consider(self, value: float, trainer: pl.Trainer) -> None:
        """Keep the weights if the metric has never been better; a value that is not a number never is."""
        if not self._settings.better(value, self._value):
            return
        self._value = value
        weights = trainer.strategy.lightning_module_state_dict()  # all have to ask where each has a part
        if not self._writes:
            return
        self._held = {
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
            "pytorch-lightning_version": pl.__version__,  # type: ignore[attr-defined] # not in its __all__
            "monitor": self.monitor,
            "value": value,
            "state_dict": weights,
        }
        if checkpoint_due(since=self._clock() - self._written, cost=self._cost, every=60.0, epoch_begins=True):
            self.flush()
        else:  # a small model that improves many times a second: copy now, write later
            self._held["state_dict"] = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}

    def flush(self) -> None:
        """Write what is held back."""
        if self._held is None:
            return
        began = self._clock()
        write_checkpoint(self._held, self._path)
        self._held = None
        self._written = self._clock()
        self._cost = self._written - began


class Monitors:
    """Sees to it that the metrics a job watches are logged at all, as early as that can be known.

    Parameters
    ----------
    watched
        Key in the job → name of the metric.
    """

    def __init__(self, watched: Mapping[str, str]) -> None:
        self._watched = dict(watched)
        self._settled = not watched

    def after_validation(self, trainer: pl.Trainer) -> None:
        """Check once all names are known: those of the validation and those that the epoch so far has gathered."""
        if self._settled or _logs_at_epoch_end(trainer):
            return
        self._check(_names(trainer))

    def after_epoch(self, trainer: pl.Trainer, *, validated: bool) -> None:
        """Check at the end of an epoch, when every metric has been logged, unless validation is still to come."""
        if self._settled or (_validates(trainer) and not validated):
            return
        self._check(_names(trainer))

    def _check(self, logged: set[str]) -> None:
        require_logged(self._watched, logged)
        self._settled = True


def require_logged(watched: Mapping[str, str], logged: Collection[str]) -> None:
    """Refuse to go on where a metric that the job watches is not logged.

    Raises
    ------
    RunFailed
        With the names that are.
    """
    for key, name in watched.items():
        if name not in logged:
            near = difflib.get_close_matches(name, sorted(logged), n=1)
            names = ", ".join(sorted(logged)) or "nothing"
            hint = f"{key}={near[0]}" if near else f"log it with self.log({name!r}, ...) in the module"
            raise RunFailed(f"{key} is {name!r}, which the module does not log; it logs: {names}", hint=hint)


def _validates(trainer: pl.Trainer) -> bool:
    """Tell whether a validation will come; its loaders may turn out to be empty."""
    return trainer.enable_validation and (trainer.val_dataloaders is None or sum(trainer.num_val_batches) > 0)


def _logs_at_epoch_end(trainer: pl.Trainer) -> bool:
    hooks: list[Any] = [trainer.lightning_module, *trainer.callbacks]  # type: ignore[attr-defined] # set by a mixin
    return any(is_overridden("on_train_epoch_end", hook) for hook in hooks if not _ours(hook))


def _ours(hook: object) -> bool:
    return isinstance(hook, WorkerCallback | EarlyStopping)


def _names(trainer: pl.Trainer) -> set[str]:
    names = set(trainer.callback_metrics)
    for metric in trainer.fit_loop.epoch_loop._results.values():
        meta = metric.meta
        if meta.on_epoch or meta.on_step:
            names |= {meta.name, meta.forked_name(False)} if meta.on_epoch else {meta.name, meta.forked_name(True)}
    return names


class WorkerCallback(CheckpointCallback):
    """Our one callback. As a checkpoint callback it comes after all others.

    What is done at every step is done between two batches, see `ai4sdk.worker.resume.ResumableEpochLoop`.

    Parameters
    ----------
    state
        Rides in the checkpoints.
    records
        Where progress and events go.
    best
        Chooses the best weights.
    monitors
        Checks the names of metrics.
    reporter
        Tells a study how the training stands.
    group
        The processes that train together.
    """

    def __init__(
        self,
        state: ExactState,
        records: Records,
        best: BestWeights,
        monitors: Monitors,
        reporter: Reporter | None = None,
        group: Group | None = None,
    ) -> None:
        self._state, self._records, self._best, self._monitors = state, records, best, monitors
        self._reporter = reporter
        self._group = group if group is not None else Group()
        self.ended: dict[str, Any] | None = None
        self._validated = False
        self._from_validation = False

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return "ai4sdk.WorkerCallback"

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"best": self._best.state_dict(), "validated": self._validated, "from_val": self._from_validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the state back."""
        self._best.load_state_dict(state_dict["best"])
        self._validated, self._from_validation = state_dict["validated"], state_dict["from_val"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add our part: what a training continues from, or how it ended."""
        checkpoint[STATE_KEY] = self._state.gather(trainer) if self.ended is None else {"ended": self.ended}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take our part."""
        if trainer.state.fn == "fit":
            self._state.load(checkpoint)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have all processes judge the same module: what batch normalisation gathered since the last step differs."""
        self._group.share(pl_module.buffers())

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *rest: Any
    ) -> None:
        """Show that validation moves on."""
        progress = self._records.progress
        if progress.due:
            total = sum(trainer.num_val_batches)
            progress.update(validation={"batch": batch_idx + 1, "batches": _count(total)})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the metrics of a validation."""
        if trainer.sanity_checking:
            return
        self._validated = True
        self._records.progress.forget("validation")
        self._monitors.after_validation(trainer)
        monitor = self._best.monitor
        results = trainer.fit_loop.epoch_loop.val_loop._results
        if monitor is not None and any(
            monitor in results._forked_name(metric, on_step=False)
            for metric in results.values()
            if not metric.has_reset
        ):
            self._from_validation = True
            self._best.consider(float(trainer.callback_metrics[monitor]), trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the metrics of an epoch."""
        self._monitors.after_epoch(trainer, validated=self._validated)
        monitor = self._best.monitor
        if monitor is not None and not self._from_validation and monitor in trainer.callback_metrics:
            self._best.consider(float(trainer.callback_metrics[monitor]), trainer)
        if self._reporter is not None and self._reporter.metric in trainer.callback_metrics:
            value = float(trainer.callback_metrics[self._reporter.metric])
            self._reporter.report(trainer.current_epoch, value)


for _hook in (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_batch_start",
):
    setattr(WorkerCallback, _hook, None)  # Lightning passes over what cannot be called


def _count(value: float) -> int | None:
    return int(value) if value != float("inf") else None


def plain_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the latest metrics as numbers; reading them from a GPU waits for it."""
    return {
        name: float(value)
        for name, value in trainer._logger_connector._callback_metrics.items()
        if not isinstance(value, torch.Tensor) or value.numel() == 1
    }
