"""The training of a job: one module, one Trainer, checkpoints that a resume continues from exactly."""

from __future__ import annotations

import inspect
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

from ai4sdk.errors import EnvironmentFault, RunFailed
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import Hardware, Job
from ai4sdk.spec.scale import scale_of
from ai4sdk.worker.callbacks import BestWeights, Monitors, RunLogger, WorkerCallback, plain_metrics
from ai4sdk.worker.checkpoint import AtomicCheckpointIO, checkpoint_due, find_last, read_checkpoint, remove_half_written
from ai4sdk.worker.ddp import Ddp, log_over_ranks
from ai4sdk.worker.fsdp import Fsdp
from ai4sdk.worker.group import Group
from ai4sdk.worker.instantiate import instantiate, instantiate_all
from ai4sdk.worker.optimizers import configure_optimizers
from ai4sdk.worker.records import Records
from ai4sdk.worker.reporting import Reporter
from ai4sdk.worker.resume import STATE_KEY, ExactState, ResumableEpochLoop
from ai4sdk.worker.sharding import Divided
from ai4sdk.worker.signals import Reason, StopRequest, StopTraining

__all__ = ["Fitted", "devices", "fit", "make_module", "quiet_lightning", "trained_weights"]

log = logging.getLogger(__name__)

_NOISE = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*module\\(s\\) in eval mode at the start of training.*",
    ".*your dataloader is not resumable.*",
    ".*Trainer was signaled to stop.*",
    ".*litlogger.*",
    ".*litmodels.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*`srun` command is available.*",
)
"""Warnings of Lightning that are about our own doing, or advertise."""


@dataclass(frozen=True)
class Fitted:
    """How a training ended.

    Parameters
    ----------
    reason
        Why it ended, such as ``early stopping``.
    epochs, steps
        Epochs begun and optimizer steps made.
    best
        The best value of ``training.checkpoint.monitor``.
    monitor
        Which metric that is.
    """

    reason: str
    epochs: int
    steps: int
    best: float | None = None
    monitor: str | None = None


def quiet_lightning() -> None:
    """Silence Lightning's tips and what it says of our own settings; its other warnings go to the log."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)


def make_module(job: Job) -> pl.LightningModule:
    """Make the module a job names.

    Raises
    ------
    RunFailed
        If it is no LightningModule, or making it raised.
    """
    target = job.learner.module
    module = instantiate(target.as_config(), key="module")
    if isinstance(module, pl.LightningModule):
        return module
    kinds = [kind.__module__ for kind in type(module).__mro__]
    if any(kind.startswith("lightning.") for kind in kinds):
        raise RunFailed(
            f"{target.target} is a LightningModule of the package lightning; here pytorch_lightning trains",
            hint="in its code write: import pytorch_lightning as pl, and class ...(pl.LightningModule)",
        )
    raise RunFailed(
        f"module: {target.target} gives a {type(module).__name__}, which is no LightningModule",
        hint="name a class that derives from pytorch_lightning.LightningModule",
    )


def fit(
    job: Job,
    module: pl.LightningModule,
    datamodule: pl.LightningDataModule | None,
    *,
    paths: RunPaths,
    records: Records,
    stop: StopRequest,
    due: Callable[..., bool] = checkpoint_due,
    group: Group | None = None,
) -> Fitted:
    """Train a module, from its last checkpoint if the run has one.

    Parameters
    ----------
    job
        How it is trained.
    module, datamodule
        What is trained, and on what; without a datamodule on the module's own loaders. Some of their methods are
        replaced on these instances.
    paths
        Files of the run. The weights that the training ends with are in ``checkpoints/last.ckpt``, the best ones in
        ``checkpoints/best.ckpt``, and ``checkpoints/fit.json`` says that it is finished.
    records
        Where metrics, progress and events go.
    stop
        Asked before each batch.
    due
        Decides when a checkpoint is taken; see `checkpoint_due`.
    group
        The processes that train together; each calls this. Rank 0 writes.

    Raises
    ------
    StopTraining
        If it was asked to stop; a checkpoint was taken.
    RunFailed, EnvironmentFault
        If the training cannot be set up, or a checkpoint not be written.
    """
    group = group if group is not None else Group()
    finished, last = _where_to_begin(paths, group)
    if finished is not None:
        return finished
    training, scale = job.training, scale_of(job)
    rate = None if training.scale_learning_rate == "none" else scale.learning_rate
    configure_optimizers(module, job.optimizer, job.scheduler, learning_rate=rate)
    divided = Divided(group, training.global_batch_size, training.accumulate_grad_batches)
    state = ExactState(module, datamodule, group, divided)
    best = BestWeights(paths.best_checkpoint, training.checkpoint, writes=group.is_first)
    ours = WorkerCallback(state, records, best, Monitors(_watched(job)), Reporter.of(paths), group)
    trainer = make_trainer(job, paths, records, ours, AtomicCheckpointIO(paths.last_checkpoint, last), group)
    pause = _Pause(job, paths, records, best, stop, due, group=group)
    ResumableEpochLoop(trainer, state, pause)
    if last is not None:
        records.event("resumed", epoch=last["epoch"], step=last["global_step"])
    resume_from = str(paths.last_checkpoint) if last is not None else None
    del last  # it is as large as the training itself
    if group.size > 1:
        log_over_ranks(module)
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume_from, weights_only=False)
    finally:
        divided.undo()
        module.__dict__.pop("log", None)
    if divided.left_out:
        records.event("samples left out", samples=divided.left_out, why="they cannot be divided evenly", each="epoch")
    records.progress.update(step=trainer.global_step, metrics=plain_metrics(trainer))
    best.flush()
    fitted = Fitted(_reason(trainer), trainer.current_epoch, trainer.global_step, best.value, best.monitor)
    ours.ended = vars(fitted)
    trainer.save_checkpoint(paths.last_checkpoint)
    records.event("fit ended", **vars(fitted))
    return _note_end(paths, fitted, group)


def _where_to_begin(paths: RunPaths, group: Group) -> tuple[Fitted | None, dict[str, Any] | None]:
    """Return how the training ended, if it has, or else the checkpoint to go on from, if there is one.

    Rank 0 looks, and the others do as it says: what one sees on the disk another may not see yet, or no more.
    """
    finished: Fitted | None = None
    path, last = None, None
    if group.is_first and (finished := read_finished(paths)) is None:
        remove_half_written(paths.checkpoints)
        path, last = find_last(paths.last_checkpoint)
        if last is not None and "ended" in last[STATE_KEY]:
            finished, last = _note_end(paths, Fitted(**last[STATE_KEY]["ended"]), group), None
    finished, path = group.broadcast((finished, path))
    if not group.is_first and finished is None and path is not None:
        last = read_checkpoint(path, trusted=True)
    return finished, last


def _note_end(paths: RunPaths, fitted: Fitted, group: Group) -> Fitted:
    if group.is_first:
        write_json(fit_marker(paths), {"finished": True, **vars(fitted)})
    return fitted


def fit_marker(paths: RunPaths) -> Any:
    """Return the file that says that the training is finished."""
    return paths.checkpoints / "fit.json"


def read_finished(paths: RunPaths) -> Fitted | None:
    """Return how the training of a run ended, ``None`` if it has not."""
    try:
        values = read_json(fit_marker(paths))
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("%s is unreadable (%s); it is made again from the last checkpoint", fit_marker(paths), error)
        return None
    values.pop("finished")
    return Fitted(**values)


def make_trainer(
    job: Job,
    paths: RunPaths,
    records: Records,
    ours: WorkerCallback,
    checkpoint_io: AtomicCheckpointIO,
    group: Group | None = None,
) -> pl.Trainer:
    """Make the Trainer of a job, of one process unless a group is given.

    Raises
    ------
    RunFailed
        If an option of ``training.trainer`` is unknown, or several do not fit together.
    EnvironmentFault
        If a GPU is asked for and none is there.
    """
    training = job.training
    extra = instantiate_all(training.trainer, key="training.trainer")
    callbacks = [
        instantiate(callback.as_config(), key=f"training.callbacks.{index}")
        for index, callback in enumerate(training.callbacks)
    ]
    if stopping := training.early_stopping:
        # Not strict: a metric that is never logged is reported by Monitors, with the names that are.
        callbacks.append(EarlyStopping(**stopping.model_dump(), strict=False))
    plugins = extra.pop("plugins", None) or []
    options: dict[str, Any] = {
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        **extra,
        "default_root_dir": str(paths.root),
        "logger": RunLogger(records),
        "callbacks": [*callbacks, ours],
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "max_epochs": -1 if training.max_epochs is None else training.max_epochs,
        "max_steps": -1 if training.max_steps is None else training.max_steps,
        "max_time": None if training.max_time is None else {"seconds": training.max_time},
        "precision": training.precision,
        "accumulate_grad_batches": training.accumulate_grad_batches,
        "gradient_clip_val": training.gradient_clip_val,
        "gradient_clip_algorithm": training.gradient_clip_algorithm if training.gradient_clip_val else None,
        "deterministic": training.deterministic,
        "log_every_n_steps": training.log_every_n_steps,
        **devices(job.hardware),
        "plugins": [*(plugins if isinstance(plugins, list) else [plugins]), checkpoint_io],
    }
    if group is not None and group.size > 1:
        options |= {
            "devices": group.rank.local_world_size,
            "num_nodes": job.hardware.nodes,
            "strategy": (
                Fsdp(group)
                if training.mode == "fsdp"
                else Ddp(group, find_unused_parameters=training.find_unused_parameters)
            ),
            "use_distributed_sampler": False,
            "sync_batchnorm": training.sync_batchnorm,
        }
    else:  # nothing is to be guessed from a scheduler's variables
        options["plugins"].append(LightningEnvironment())
    known = inspect.signature(pl.Trainer.__init__).parameters
    if unknown := [name for name in extra if name not in known]:
        raise RunFailed(f"training.trainer: Lightning's Trainer has no option {unknown[0]!r}")
    try:
        trainer = pl.Trainer(**options)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise RunFailed(f"training: Lightning refuses these options: {error}") from error
    trainer._signal_connector = _NoSignals(trainer)
    return trainer


class _NoSignals(_SignalConnector):
    """Leaves signals to the worker: Lightning would stop after a SIGTERM without a checkpoint."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False
        self._original_handlers = {}


def devices(hardware: Hardware) -> dict[str, Any]:
    """Return what Lightning's Trainer is to train on; raises EnvironmentFault if there are too few GPUs."""
    if not hardware.gpus:
        return {"accelerator": "cpu", "devices": 1}
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < hardware.gpus:
        raise EnvironmentFault(
            f"hardware.gpus is {hardware.gpus}, but torch sees {found} here",
            hint="hardware.gpus=0 trains on CPU; on a machine with GPUs look at nvidia-smi and at torch's CUDA version",
        )
    return {"accelerator": "gpu", "devices": hardware.gpus}


def _watched(job: Job) -> dict[str, str]:
    training = job.training
    watched = {
        "training.checkpoint.monitor": training.checkpoint.monitor,
        "training.early_stopping.monitor": training.early_stopping.monitor if training.early_stopping else None,
        "scheduler.monitor": job.scheduler.monitor if job.scheduler else None,
    }
    return {key: metric for key, metric in watched.items() if metric is not None}


def _reason(trainer: pl.Trainer) -> str:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    stopped = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
    if trainer.should_stop:
        return "early stopping" if any(callback.stopped_epoch for callback in stopped) else "asked to by the code"
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return "all steps made"
    return "all epochs made"


class _Pause:
    """What is done between two batches: tell the progress, take a checkpoint when it is due, stop when asked to."""

    def __init__(
        self,
        job: Job,
        paths: RunPaths,
        records: Records,
        best: BestWeights,
        stop: StopRequest,
        due: Callable[..., bool],
        clock: Callable[[], float] = time.monotonic,
        group: Group | None = None,
    ) -> None:
        self._epochs, self._steps = job.training.max_epochs, job.training.max_steps
        self._every = job.training.checkpoint.every
        self._path = paths.last_checkpoint
        self._records, self._best, self._stop, self._due, self._clock = records, best, stop, due, clock
        self._agreement = _Agreement(group if group is not None else Group(), clock)
        self._saved_at: tuple[int, int] | None = None
        self._last, self._cost = clock(), 0.0

    def __call__(self, trainer: pl.Trainer) -> None:
        loop = trainer.fit_loop.epoch_loop
        here = (trainer.current_epoch, loop.batch_progress.current.ready)
        if self._saved_at is None:  # the first batch of this attempt: nothing has happened that could be lost
            self._saved_at, self._last = here, self._clock()
        if self._records.progress.due:
            self._tell(trainer, here)
        if loop.gradients_pending or not self._agreement.due(epoch_begins=here[1] == 0):
            return
        is_due = here != self._saved_at and self._due(
            since=self._clock() - self._last, cost=self._cost, every=self._every, epoch_begins=here[1] == 0
        )
        reason, is_due = self._agreement.on(self._stop.reason, is_due)
        if here != self._saved_at and (reason is not None or is_due):
            self._save(trainer, here)
        if reason is not None:
            self._records.event("stopping", reason=reason, epoch=here[0], step=trainer.global_step)
            raise StopTraining(reason)

    def _save(self, trainer: pl.Trainer, here: tuple[int, int]) -> None:
        began = self._clock()
        self._best.flush()
        trainer.save_checkpoint(self._path)
        self._saved_at, self._last = here, self._clock()
        self._cost = self._last - began
        self._records.event("checkpoint", epoch=here[0], batch=here[1], step=trainer.global_step)

    def _tell(self, trainer: pl.Trainer, here: tuple[int, int]) -> None:
        batches = trainer.num_training_batches
        self._records.progress.update(
            step=trainer.global_step,
            steps=self._steps,
            epoch=here[0],
            epochs=self._epochs,
            batch=here[1],
            batches=int(batches) if batches != float("inf") else None,
            metrics=plain_metrics(trainer),
        )


class _Agreement:
    """What several processes stop for and save, they stop for and save at the same step.

    Asking the others takes longer than a step of a small module, so they ask every few steps only, at least ten times
    a second.

    Parameters
    ----------
    group
        The processes.
    clock
        Tells the time in seconds.
    """

    _REASONS: tuple[Reason | None, ...] = (None, "stopped on request", "wall time reached")
    _PAUSE, _MOST_STEPS = 0.1, 16

    def __init__(self, group: Group, clock: Callable[[], float]) -> None:
        self._group, self._clock = group, clock
        self._steps, self._left = 1, 0
        self._asked = clock()

    def due(self, *, epoch_begins: bool) -> bool:
        """Whether to ask the others now; the answer is the same for all."""
        if self._group.size == 1 or epoch_begins or self._left <= 0:
            return True
        self._left -= 1
        return False

    def on(self, reason: Reason | None, save: bool) -> tuple[Reason | None, bool]:
        """Return a reason to stop if anyone has one, and whether anyone wants a checkpoint."""
        if self._group.size == 1:
            return reason, save
        now = self._clock()
        step = max(now - self._asked, 1e-6) / self._steps
        steps = min(self._MOST_STEPS, max(1, int(self._PAUSE / step)))
        number, saving, fewest = self._group.largest(self._REASONS.index(reason), save, -steps)
        self._steps, self._asked = int(-fewest), now
        self._left = self._steps - 1
        return self._REASONS[int(number)], bool(saving)


def trained_weights(paths: RunPaths, which: str) -> dict[str, Any]:
    """Return the weights that a finished training left.

    Parameters
    ----------
    paths
        Files of the run.
    which
        ``best``, or ``last``; where no best ones were kept, the last ones.
    """
    from ai4sdk.worker.checkpoint import read_checkpoint

    path = paths.best_checkpoint if which == "best" and paths.best_checkpoint.is_file() else paths.last_checkpoint
    weights: dict[str, Any] = read_checkpoint(path, trusted=True)["state_dict"]
    return weights
