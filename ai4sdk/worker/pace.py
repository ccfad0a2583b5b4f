"""How fast a training goes, by training for some seconds."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from ai4sdk.spec import Job, Training
from ai4sdk.spec.scale import scale_of
from ai4sdk.worker.train import devices, quiet_lightning

__all__ = ["Pace", "measure_pace"]

_SECONDS = 5.0
"""How long is trained."""
_WARM_UP = 2
"""Batches at the start that are slower than others."""
_AT_LEAST, _VALIDATED = 5, 5


@dataclass(frozen=True)
class Pace:
    """How fast a training went.

    Parameters
    ----------
    batch, validation
        Seconds for a batch of training and of validation; the median, and 0 without validation.
    batches, validations
        Batches of each that a process takes in an epoch; ``None`` if the data has no end.
    steps
        Batches that were tried.
    """

    batch: float
    validation: float
    batches: int | None
    validations: int
    steps: int

    def whole(self, training: Training) -> float | None:
        """Return the seconds that a training takes at this pace; ``None`` if its end is not known.

        Early stopping makes it shorter.
        """
        spans = []
        if self.batches is not None and training.max_epochs is not None:
            spans.append(training.max_epochs * (self.batches * self.batch + self.validations * self.validation))
        if training.max_steps is not None:
            epochs = training.max_steps * training.accumulate_grad_batches / self.batches if self.batches else 0.0
            batches = training.max_steps * training.accumulate_grad_batches
            spans.append(batches * self.batch + epochs * self.validations * self.validation)
        if training.max_time is not None:
            spans.append(training.max_time)
        return min(spans, default=None)


def measure_pace(job: Job, module: pl.LightningModule, datamodule: pl.LightningDataModule) -> Pace:
    """Train for some seconds; the module is changed by it.

    Parameters
    ----------
    job
        How it is trained.
    module, datamodule
        What is trained, with the job's optimizer, and on what.
    """
    quiet_lightning()
    watch = _Watch()
    trainer = pl.Trainer(
        **{**devices(job.hardware), "devices": 1},
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        max_epochs=-1,
        limit_val_batches=_VALIDATED,
        precision=job.training.precision,
        accumulate_grad_batches=job.training.accumulate_grad_batches,
        gradient_clip_val=job.training.gradient_clip_val,
        gradient_clip_algorithm=job.training.gradient_clip_algorithm if job.training.gradient_clip_val else None,
    )
    trainer.fit(module, datamodule=datamodule)
    return watch.pace(datamodule, scale_of(job).world_size)


class _Watch(pl.Callback):
    """Takes the time of batches, and ends the training when enough were seen."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.validating: list[float] = []
        self._ends = time.monotonic() + _SECONDS
        self._last: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.training.append(self._since_last())
        if time.monotonic() > self._ends and len(self.training) >= _AT_LEAST:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last = time.monotonic()

    def on_validation_batch_end(self, *_: Any) -> None:
        self.validating.append(self._since_last())

    def _since_last(self) -> float:
        """Return how long it is since the batch before: fetching one is part of its time."""
        now = time.monotonic()
        took = now - (self._last if self._last is not None else now)
        self._last = now
        return took

    def pace(self, datamodule: pl.LightningDataModule, processes: int) -> Pace:
        """Return the pace, with the batches that each of some processes takes of an epoch."""
        usual = self.training[_WARM_UP:] or self.training
        batches = _length(datamodule.train_dataloader())
        validations = _length(datamodule.val_dataloader()) if self.validating else 0
        return Pace(
            batch=statistics.median(usual),
            validation=statistics.median(self.validating) if self.validating else 0.0,
            batches=-(-batches // processes) if batches is not None else None,
            validations=-(-(validations or 0) // processes),
            steps=len(self.training),
        )


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
