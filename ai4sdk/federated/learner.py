"""What a site does with the global weights: train them on its own data, or judge them by it.

Every training starts from a fresh copy of the module, so that nothing but the weights goes from one site or round to
the next, and draws random numbers that follow from the job's seed, the site and the round alone: a round that is done
again after a crash gives the same weights, in whatever process.
"""

from __future__ import annotations

import copy
from collections import Counter
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
from ai4sdk.federated.dp_sgd import PrivateRecords, private_loader, require_mean_loss
from ai4sdk.federated.memory import Memory
from ai4sdk.federated.sharing import Sharing
from ai4sdk.federated.weights import Arrays, State, digest_of, load_state, state_of
from ai4sdk.spec import Job
from ai4sdk.worker.callbacks import plain_metrics
from ai4sdk.worker.optimizers import configure_optimizers
from ai4sdk.worker.randomness import find_generators, random_state, reseed, set_random_state
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.train import trainer_of, trainer_options

__all__ = ["Learner", "Order", "Trained", "own_part"]

_TRAIN, _VALIDATE, _TRAIN_PERSONAL = 0, 1, 2
"""What random numbers are drawn for."""

_OWN, _CONTROL, _PERSONAL = "own", "control", "personal"
"""Kinds of what a site keeps: parts that are not shared, its control variate, a module of its own."""


@dataclass(frozen=True)
class Order:
    """What a server asks a site to train.

    Parameters
    ----------
    site
        Whose data.
    round_number
        From 1.
    since
        The round in which the site's answer last counted, which it goes on from; 0 for never.
    state
        The global weights.
    pull
        Strength of a pull towards them, as FedProx has it (Li et al. 2020, arXiv:1812.06127): the factor mu of
        ``mu / 2 * ||w - w_global||²`` in the loss; 0 for none.
    control
        The server's control variate, where the strategy is SCAFFOLD.
    """

    site: str
    round_number: int
    since: int
    state: State
    pull: float = 0.0
    control: Arrays | None = None

    @property
    def question(self) -> str:
        """What tells this order from others to the same site: noise must be another one for each."""
        return f"{self.round_number}\0{self.pull}\0{digest_of(self.state)}"


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
    control
        How its control variate changed, where the order had one.
    """

    state: State
    samples: int
    metrics: dict[str, float]
    control: Arrays | None = None


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
    memory
        What sites keep.
    threads
        How many a site computes with. Sums of large layers depend on it in their last digits, so it must not depend on
        where a site happens to be trained.
    private
        How the records of a site are protected, where they are.
    numbers
        Site → its number, which its random numbers follow from; by default its place among ``sites``. It may be filled
        later, before the first training.
    """

    def __init__(
        self,
        job: Job,
        module: pl.LightningModule,
        sites: Mapping[str, SplitData],
        stop: StopRequest,
        memory: Memory,
        threads: int,
        private: PrivateRecords | None = None,
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        self._private, self._tried = private, False
        self._job, self._module, self._sites, self._stop, self._threads = job, module, dict(sites), stop, threads
        self._memory, self._sharing = memory, Sharing(module, job.federation.share, job.federation.batchnorm)
        self._numbers = numbers if numbers is not None else {name: i for i, name in enumerate(self._sites)}
        self._began_with = random_state()

    def train(self, order: Order) -> Trained:
        """Train a site's part of a round, and keep what the site keeps."""
        torch.set_num_threads(self._threads)
        kept = self._kept(order.site, order.since, control=order.control is not None)
        module, data = self._module_of(order.state, kept), self._sites[order.site]
        callback = _LocalTraining(self._stop, order.round_number)
        if order.pull:
            callback.origin, callback.pull = order.state.parameters, order.pull
        control = _part(kept, _CONTROL)
        if order.control is not None:
            none = {name: np.zeros_like(array) for name, array in order.control.items()}
            control = control or none
            callback.correction = {name: order.control[name] - control[name] for name in order.control}
        metrics = self._fit(order, module, _TRAIN, callback)
        keep = _named(_OWN, self._sharing.own_of(module))
        change: Arrays | None = None
        if order.control is not None:
            new = callback.mean_gradients()
            change = {name: new[name] - control[name] for name in order.control}
            keep |= _named(_CONTROL, new)
        if self._job.federation.personal is not None:
            keep |= _named(_PERSONAL, self._train_personal(order, kept))
        if keep:
            self._memory.save(order.site, order.round_number, keep, since=order.since)
        return Trained(self._sharing.shared_of(module), _size(data, "train"), metrics, change)

    def _kept(self, site: str, since: int, *, control: bool = False) -> Arrays:
        """Return what a site kept; where sites keep nothing, nothing is looked for."""
        keeps = control or bool(self._sharing.own) or self._job.federation.personal is not None
        return self._memory.load(site, since if keeps else 0)

    def _train_personal(self, order: Order, kept: Arrays) -> Arrays:
        """Train the site's own module, pulled towards the global weights that it was sent."""
        how = self._job.federation.personal
        assert how is not None
        module = self._personal_of(order.state, kept)
        callback = _LocalTraining(self._stop, order.round_number)
        callback.origin, callback.pull = order.state.parameters, how.strength
        self._fit(order, module, _TRAIN_PERSONAL, callback)
        return _all_of(state_of(module))

    def _fit(
        self, order: Order, module: pl.LightningModule, purpose: int, callback: _LocalTraining
    ) -> dict[str, float]:
        """Train a module for a part of the whole training; return what it logged."""
        job, data = self._job.at(order.site), self._sites[order.site]
        configure_optimizers(module, job.optimizer, job.scheduler)
        federation = job.federation
        length = {
            "max_epochs": -1 if federation.local_epochs is None else federation.local_epochs,
            "max_steps": -1 if federation.local_steps is None else federation.local_steps,
            "limit_val_batches": 0,
        }
        loader: Any = data.train_dataloader()
        callbacks: list[Callback] = [callback]
        if self._private is not None and purpose == _TRAIN:  # a module of the site's own does not leave it
            if not self._tried:
                require_mean_loss(copy.deepcopy(self._module), data)
                self._tried = True
            size = data.loader.batch_size
            private = self._private.of_training(order.site, order.question, _size(data, "train"), size)
            loader = private_loader(data, private.batches)
            callbacks.insert(0, private)  # what strategies add to gradients is not made of data
        trainer = self._trainer(length, callbacks)
        self._seed(order.site, order.round_number, purpose, module, data)
        trainer.fit(module, train_dataloaders=loader)
        return _of_epochs(plain_metrics(trainer))

    def validate(self, site: str, round_number: int, since: int, state: State) -> Trained:
        """Judge the global weights by a site's validation samples; without any the answer counts no samples.

        What a site's own module comes to is told beside it, under names that begin with ``personal/``.
        """
        torch.set_num_threads(self._threads)
        samples = _size(self._sites[site], "val")
        if not samples:
            return Trained(State({}, {}), 0, {})
        kept = self._kept(site, since)
        metrics = self._judge(site, round_number, self._module_of(state, kept))
        if self._job.federation.personal is not None and since:
            own = self._judge(site, round_number, self._personal_of(state, kept))
            metrics |= {f"personal/{name}": value for name, value in own.items()}
        return Trained(State({}, {}), samples, metrics)

    def _judge(self, site: str, round_number: int, module: pl.LightningModule) -> dict[str, float]:
        data, trainer = self._sites[site], self._trainer({}, [])
        self._seed(site, round_number, _VALIDATE, module, data)
        trainer.validate(module, dataloaders=data.val_dataloader(), verbose=False)
        self._stop.check()
        return plain_metrics(trainer)

    def _module_of(self, state: State, kept: Arrays) -> pl.LightningModule:
        """Return the global module, with the parts that are the site's own."""
        module = copy.deepcopy(self._module)
        load_state(module, state)
        load_state(module, State(_part(kept, _OWN), {}))
        return module

    def _personal_of(self, state: State, kept: Arrays) -> pl.LightningModule:
        """Return the site's own module, which begins as the global one."""
        module = self._module_of(state, kept)
        load_state(module, State(_part(kept, _PERSONAL), {}))
        return module

    def _trainer(self, length: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        options = trainer_options(self._job)
        options["callbacks"] = [*options["callbacks"], *callbacks]
        options["plugins"] = [*options["plugins"], LightningEnvironment()]
        quiet = {"logger": False, "enable_checkpointing": False, "max_epochs": 1, "max_steps": -1}
        return trainer_of({**options, **quiet, **length})

    @property
    def seed(self) -> int:
        """The job's seed."""
        return self._job.seed

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


def own_part(kept: Arrays) -> Arrays:
    """Return, of what a site keeps, the parts of the module that do not travel."""
    return _part(kept, _OWN)


def _named(kind: str, arrays: Arrays) -> Arrays:
    return {f"{kind}/{name}": array for name, array in arrays.items()}


def _part(kept: Arrays, kind: str) -> Arrays:
    return {name.removeprefix(f"{kind}/"): array for name, array in kept.items() if name.startswith(f"{kind}/")}


def _all_of(state: State) -> Arrays:
    return {**state.parameters, **state.buffers}


class _LocalTraining(Callback):
    """Stops when asked to, lets schedules go on from the round before, and changes gradients as a strategy wants it."""

    def __init__(self, stop: StopRequest, round_number: int) -> None:
        self._stop, self._rounds_before = stop, round_number - 1
        self.origin: Arrays = {}
        self.pull = 0.0
        """Pulls towards the origin, so strongly."""
        self.correction: Arrays | None = None
        """Added to each gradient, where it is given."""
        self._here: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._steps: Counter[str] = Counter()

    def mean_gradients(self) -> Arrays:
        """Return the mean over the steps of what the gradients were before they were corrected."""
        assert self.correction is not None
        return {
            name: (self._sums[name] / self._steps[name]).cpu().numpy().astype(like.dtype)
            if name in self._sums
            else np.zeros_like(like)
            for name, like in self.correction.items()
        }

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
        # Once a step, whatever is accumulated; before clipping, like the loss's own gradient.
        if not self.pull and self.correction is None:
            return
        stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in pl_module.named_parameters():
            if id(parameter) not in stepped:
                continue  # another optimizer's
            self._steps[name] += 1
            if parameter.grad is None:
                continue
            if self.correction is not None and name in self.correction:
                total = self._sums.get(name)
                self._sums[name] = parameter.grad.detach().clone() if total is None else total.add_(parameter.grad)
                parameter.grad.add_(self._tensor("correction", name, self.correction, parameter))
            if self.pull and name in self.origin:
                origin = self._tensor("origin", name, self.origin, parameter)
                parameter.grad.add_(parameter.detach() - origin, alpha=self.pull)

    def _tensor(self, kind: str, name: str, arrays: Arrays, like: Tensor) -> Tensor:
        """Return an array as a tensor where a parameter is; it is brought there once."""
        key = f"{kind}/{name}"
        if key not in self._here:
            self._here[key] = torch.from_numpy(np.asarray(arrays[name], order="C")).to(like.device, like.dtype)
        return self._here[key]


def _step(scheduler: Any) -> None:
    """Step a schedule ahead of its optimizer, which torch warns of where it looks like a mistake."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        scheduler.step()
