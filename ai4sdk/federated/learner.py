"""What a site does with the global weights: train them on its own data, or judge them by it.

Every training starts from a fresh copy of the module, so that nothing but the weights goes from one site or round to
the next, and draws random numbers that follow from the job's seed, the site and the round alone: a round that is done
again after a crash gives the same weights, in whatever process.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ai4sdk.data.module import SplitData
from ai4sdk.federated.weights import State, load_state, state_of
from ai4sdk.spec import Job
from ai4sdk.worker.callbacks import plain_metrics
from ai4sdk.worker.optimizers import configure_optimizers
from ai4sdk.worker.randomness import find_generators, random_state, reseed, set_random_state
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.train import trainer_of, trainer_options

__all__ = ["Learner", "Pull", "Trained"]

_TRAIN, _VALIDATE = 0, 1


@dataclass(frozen=True)
class Pull:
    """A pull towards the weights that a round began with, as FedProx has it (Li et al. 2020, arXiv:1812.06127).

    Parameters
    ----------
    strength
        The factor mu of ``mu / 2 * ||w - w_global||²`` in the loss; 0 for none.
    """

    strength: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What a site gives back.

    Parameters
    ----------
    state
        Its weights.
    samples
        How many it trained on.
    metrics
        What the module logged, at the end.
    """

    state: State
    samples: int
    metrics: dict[str, float]


class Learner:
    """Trains and judges for any of the sites whose data it has.

    Parameters
    ----------
    job
        How a site trains.
    module
        The module as every training begins with it, but for the weights. It is not changed.
    sites
        Site → its loaders, in an order that is the same everywhere.
    stop
        Asked before each batch.
    threads
        How many a site computes with. Sums of large layers depend on it in their last digits, so it must not depend on
        where a site happens to be trained.
    """

    def __init__(
        self,
        job: Job,
        module: pl.LightningModule,
        sites: Mapping[str, SplitData],
        stop: StopRequest,
        threads: int,
    ) -> None:
        self._job, self._module, self._sites, self._stop, self._threads = job, module, dict(sites), stop, threads
        self._numbers = {name: number for number, name in enumerate(self._sites)}
        self._began_with = random_state()

    def train(self, site: str, round_number: int, state: State, pull: Pull) -> Trained:
        """Train a site's part of a round.

        Parameters
        ----------
        site
            Whose data.
        round_number
            From 1.
        state
            The global weights.
        pull
            Towards them.
        """
        torch.set_num_threads(self._threads)
        module, data = copy.deepcopy(self._module), self._sites[site]
        load_state(module, state)
        configure_optimizers(module, self._job.optimizer, self._job.scheduler)
        federation = self._job.federation
        length = {
            "max_epochs": -1 if federation.local_epochs is None else federation.local_epochs,
            "max_steps": -1 if federation.local_steps is None else federation.local_steps,
            "limit_val_batches": 0,
        }
        trainer = self._trainer(length, [_LocalTraining(self._stop, module, round_number, pull)])
        self._seed(site, round_number, _TRAIN, module, data)
        trainer.fit(module, train_dataloaders=data.train_dataloader())
        return Trained(state_of(module), _size(data, "train"), _of_epochs(plain_metrics(trainer)))

    def validate(self, site: str, round_number: int, state: State) -> Trained:
        """Judge the global weights by a site's validation samples; without any the answer counts no samples."""
        torch.set_num_threads(self._threads)
        data = self._sites[site]
        samples = _size(data, "val")
        if not samples:
            return Trained(State({}, {}), 0, {})
        module = copy.deepcopy(self._module)
        load_state(module, state)
        trainer = self._trainer({}, [])
        self._seed(site, round_number, _VALIDATE, module, data)
        trainer.validate(module, dataloaders=data.val_dataloader(), verbose=False)
        self._stop.check()
        return Trained(State({}, {}), samples, plain_metrics(trainer))

    def _trainer(self, length: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        options = trainer_options(self._job)
        options["callbacks"] = [*options["callbacks"], *callbacks]
        options["plugins"] = [*options["plugins"], LightningEnvironment()]
        quiet = {"logger": False, "enable_checkpointing": False, "max_epochs": 1, "max_steps": -1}
        return trainer_of({**options, **quiet, **length})

    def _seed(self, site: str, round_number: int, purpose: int, module: pl.LightningModule, data: SplitData) -> None:
        """Seed everything random; the first site's first round draws what a training in one place would draw."""
        number = self._numbers[site]
        if (number, round_number, purpose) == (0, 1, _TRAIN):
            set_random_state(self._began_with)
            return
        words = np.random.SeedSequence([self._job.seed, number, round_number, purpose]).generate_state(2)
        pl.seed_everything(int(words[0]), workers=True, verbose=False)
        reseed(find_generators({"module": module, "data": data}), int(words[1]))


def _of_epochs(metrics: dict[str, float]) -> dict[str, float]:
    """Leave out what Lightning keeps twice: the last step's value of a metric, and the epoch's under a second name."""
    twins = {f"{name}_{kind}" for name in metrics for kind in ("step", "epoch")}
    return {name: value for name, value in metrics.items() if name not in twins}


def _size(data: SplitData, split: str) -> int:
    part: Any = data.parts.get(split)
    return 0 if part is None else len(part)


class _LocalTraining(Callback):
    """Stops when asked to, lets schedules go on from the round before, and pulls towards the global weights."""

    def __init__(self, stop: StopRequest, module: pl.LightningModule, round_number: int, pull: Pull) -> None:
        self._stop, self._rounds_before, self._strength = stop, round_number - 1, pull.strength
        self._global: dict[str, Tensor] = {}
        if self._strength:
            self._global = {name: value.detach().clone() for name, value in module.named_parameters()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._rounds_before:
            return
        epochs, steps = trainer.max_epochs or 0, trainer.max_steps
        if steps < 0:
            steps = epochs * -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                continue  # refused at planning where YAML says it
            passed = max(epochs, 0) if config.interval == "epoch" else steps
            for _ in range(self._rounds_before * passed // config.frequency):
                _step(config.scheduler)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._stop.check()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        # The gradient of the pull, once a step, whatever is accumulated; it is before clipping, like the loss's own.
        if not self._strength:
            return
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                origin = self._global[name] = self._global[name].to(parameter.device)
                parameter.grad.add_(parameter.detach() - origin, alpha=self._strength)


def _step(scheduler: Any) -> None:
    """Step a schedule ahead of its optimizer, which torch warns of where it looks like a mistake."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        scheduler.step()
