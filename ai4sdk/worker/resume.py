"""Continuing a killed training as if it had never stopped.

Lightning saves weights, optimizers, schedulers and its counters. That is enough only at the end of an epoch, and not
always there: in mid-epoch the loader starts over, metrics forget what they gathered, plateau schedulers skip a step,
random numbers go another way. Three things make up for it.

`ResumableEpochLoop` is where everything is at rest: before a batch is fetched, after everything that follows from the
one before it (steps, schedulers, validation, logging). Checkpoints are taken there and nowhere else.

`ResumableLoader` brings the data back to where it was. It remembers the random state from which its iterator was made;
on resume it makes the same iterator again and passes over the batches already seen.

`ExactState` holds what else Lightning leaves out.

What no one but its owner can bring back is state that user code keeps in plain attributes: Lightning's own hooks
(``on_save_checkpoint``, ``state_dict``) are the place for it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.trainer import call
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ai4sdk.worker.ddp import Ddp
from ai4sdk.worker.fsdp import own_part, with_own_part
from ai4sdk.worker.group import Group
from ai4sdk.worker.metric_state import logged_state, metric_states, set_logged_state, set_metric_states
from ai4sdk.worker.randomness import (
    Stream,
    find_generators,
    generator_states,
    random_state,
    set_generator_states,
    set_random_state,
)
from ai4sdk.worker.sharding import Divided, TrainingBatches

__all__ = ["STATE_KEY", "ExactState", "ResumableEpochLoop", "ResumableLoader"]

log = logging.getLogger(__name__)

STATE_KEY = "ai4sdk"
"""Key of our part of a checkpoint."""

_FORMAT = 1
_SAMPLERS = (DistributedSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


class ResumableLoader(CombinedLoader):
    """The training loader (or several of them), able to continue an epoch where it was left.

    A single DataLoader over a map-style dataset with one of torch's own samplers takes from the global random numbers
    only when its iterator is made and its first batch fetched. It is left alone: its batches are those that it would
    give without us. Of any other loader one cannot know when it draws, so it draws from a `Stream` of its own, and
    what the training draws in between does not matter.

    Parameters
    ----------
    iterables
        What ``train_dataloader`` returned: an iterable, or a nest of them.
    mode
        How Lightning combines several; see ``CombinedLoader``.
    """

    def __init__(self, iterables: Any, mode: Any = "max_size_cycle") -> None:
        super().__init__(iterables, mode)
        self._fetched = 0
        self._origin: dict[str, Any] = {}
        self._stream: Stream | None = None
        self._to_resume: Mapping[str, Any] | None = None

    def state_dict(self, ahead: int = 0) -> dict[str, Any]:
        """Return how the current iterator was made and how far it is.

        Parameters
        ----------
        ahead
            Batches that were fetched but not yet trained on.
        """
        return {**self._origin, "seen": self._fetched - ahead}

    def _state_dicts(self) -> list[dict[str, Any]]:
        """Leave loaders that can resume by themselves out of Lightning's checkpoint: they would skip batches twice."""
        return []

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`'s result when the next iterator is made."""
        self._to_resume = state

    def __iter__(self) -> ResumableLoader:
        # Workers start anew even where they are persistent: those that live on carry random state from epoch to epoch,
        # out of reach of any checkpoint.
        self.reset()
        state, self._to_resume = self._to_resume, None
        if state is None:
            self._begin()
        else:
            self._continue(state)
        return self

    def __next__(self) -> Any:
        if self._stream is not None:
            with self._stream.use():
                item = super().__next__()
        else:
            if self._fetched == 0:
                self._origin["first"] = random_state(devices=False)
            item = super().__next__()
        self._fetched += 1
        return item

    def _begin(self) -> None:
        self._fetched = 0
        self._origin = {"generators": generator_states(self._generators())}
        if _draws_up_front(self.flattened):
            self._origin["before"] = random_state(devices=False)
            self._stream = None
            super().__iter__()
        else:
            self._origin["seed"] = int(torch.empty((), dtype=torch.int64).random_())
            self._make_in_stream()

    def _make_in_stream(self) -> None:
        self._stream = Stream(self._origin["seed"])
        with self._stream.use():
            super().__iter__()

    def _continue(self, state: Mapping[str, Any]) -> None:
        seen = int(state["seen"])
        self._origin = {key: value for key, value in state.items() if key != "seen"}
        set_generator_states(self._generators(), state["generators"])
        self._fetched = 0
        if "seed" in state:
            self._make_in_stream()
            for _ in range(seen):
                self.__next__()
            return
        self._stream = None
        set_random_state(state["before"])
        super().__iter__()
        if seen:
            set_random_state(state["first"])
            self._pass_over(seen)
        self._fetched = seen

    def _pass_over(self, count: int) -> None:
        modes = self._iterator
        assert modes is not None
        loader: DataLoader[Any] = self.flattened[0]
        iterator: Any = modes.iterators[0]
        if loader.num_workers:  # the workers' random state moves on only by making the batches
            for _ in range(count):
                super().__next__()
            return
        for _ in range(count):
            iterator._next_index()
        iterator._num_yielded += count
        modes._idx += count

    def _generators(self) -> dict[str, Any]:
        return find_generators({str(index): loader for index, loader in enumerate(self.flattened)})


def _draws_up_front(loaders: list[Any]) -> bool:
    """Tell whether the global random numbers are drawn from only to make the iterator and its first batch."""
    if len(loaders) != 1 or not isinstance(loaders[0], DataLoader):
        return False
    (loader,) = loaders
    return (
        type(loader).__iter__ is DataLoader.__iter__
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.sampler) in _SAMPLERS
        and type(loader.batch_sampler) in (BatchSampler, TrainingBatches, type(None))
    )


class ExactState:
    """What a checkpoint must hold beside Lightning's part for a resume to be exact.

    Parameters
    ----------
    module, datamodule
        What is trained, and on what. ``train_dataloader`` (of the datamodule, or of the module without one) is
        wrapped so that it returns a `ResumableLoader`.
    group
        The processes that train together: a checkpoint holds the state of each.
    divided
        Divides the loaders among them.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        datamodule: pl.LightningDataModule | None = None,
        group: Group | None = None,
        divided: Divided | None = None,
    ) -> None:
        self._module, self._datamodule = module, datamodule
        self._group = group if group is not None else Group()
        self._divided = divided if divided is not None else Divided(self._group)
        self._loader: ResumableLoader | None = None
        self._loaded: dict[str, Any] | None = None
        self._wrap(datamodule if datamodule is not None else module)

    def _wrap(self, source: pl.LightningModule | pl.LightningDataModule) -> None:
        make_training: Callable[[], Any] = source.train_dataloader

        @functools.wraps(make_training)
        def train_dataloader() -> ResumableLoader:
            loaders = make_training()
            combined = isinstance(loaders, CombinedLoader)
            arguments = (loaders.iterables, loaders._mode) if combined else (loaders,)
            self._loader = ResumableLoader(*arguments)
            for loader in self._loader.flattened:
                self._divided.training(loader)
            if self._loaded is not None:
                self._loader.load_state_dict(self._loaded["loader"])
            return self._loader

        source.train_dataloader = train_dataloader  # type: ignore[method-assign]
        make_validation: Callable[[], Any] = source.val_dataloader

        @functools.wraps(make_validation)
        def val_dataloader() -> Any:
            loaders = make_validation()
            for loader in CombinedLoader(loaders).flattened if loaders is not None else ():
                if getattr(loader, "persistent_workers", False):
                    # They draw a seed when they start, so a restart in mid-training would shift all that follows.
                    loader.__dict__["persistent_workers"] = False
                self._divided.validation(loader)
            return loaders

        source.val_dataloader = val_dataloader  # type: ignore[method-assign]

    def gather(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return the state of all processes on rank 0; only of use where `ResumableEpochLoop` is at rest."""
        own = self._gather_own(trainer)
        if self._group.size == 1:
            return own
        return {"format": _FORMAT, "ranks": self._group.gather(own)}

    def _gather_own(self, trainer: pl.Trainer) -> dict[str, Any]:
        assert self._loader is not None
        fetcher = trainer.fit_loop._data_fetcher
        manual = not self._module.automatic_optimization
        return {
            "format": _FORMAT,
            "loader": self._loader.state_dict(ahead=len(getattr(fetcher, "batches", ()))),
            "random": random_state(),
            "generators": generator_states(self._generators(trainer)),
            "logged": logged_state(trainer),
            "metrics": metric_states(self._module),
            "should_stop": trainer.should_stop,
            "looks": isinstance(trainer.strategy, Ddp) and bool(trainer.strategy.looks),
            "reloaded": [float(epoch) for epoch in _reload_epochs(trainer)],
            # With automatic optimization there are none: a checkpoint waits for the optimizer's step.
            "gradients": {
                name: own_part(weight.grad)
                for name, weight in self._module.named_parameters()
                if weight.grad is not None
            }
            if manual
            else {},
        }

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the state out of a checkpoint, to be put back once the training is set up."""
        state = checkpoint[STATE_KEY]
        self._loaded = {
            **(state["ranks"][self._group.rank.rank] if "ranks" in state else state),
            "weights": checkpoint["state_dict"],
            "callbacks": checkpoint["callbacks"],
        }

    def put_back(self, trainer: pl.Trainer) -> None:
        """Put everything back, at the very place where `gather` took it."""
        state, self._loaded = self._loaded, None
        assert state is not None
        module = self._module
        # Lightning does not repeat this hook for an epoch that had begun, though what it sets lives only in memory.
        # Whatever it changes that is part of the state is put right below.
        call._call_callback_hooks(trainer, "on_train_epoch_start")
        call._call_lightning_module_hook(trainer, "on_train_epoch_start")
        trainer.strategy.load_model_state_dict({"state_dict": state["weights"]}, strict=module.strict_loading)
        call._call_callbacks_load_state_dict(trainer, {"callbacks": state["callbacks"]})
        set_metric_states(module, state["metrics"])
        set_logged_state(trainer, state["logged"])
        for name, weight in module.named_parameters():
            gradient = state["gradients"].get(name)
            weight.grad = None if gradient is None else with_own_part(weight, gradient)
        if isinstance(trainer.strategy, Ddp) and state.get("looks"):
            trainer.strategy.keep_looking()  # in the first step after this one all parameters may be used
        trainer.should_stop = trainer.should_stop or state["should_stop"]
        fit = trainer.fit_loop
        if trainer.val_dataloaders is None and any(path.startswith("val.") for path in state["generators"]):
            trainer.validating = True  # as Lightning does it: the validation loop asks for its loaders by stage
            fit.epoch_loop.val_loop.setup_data()
            trainer.training = True
        fit._last_train_dl_reload_epoch, fit.epoch_loop.val_loop._last_val_dl_reload_epoch = state["reloaded"]
        strangers = set_generator_states(self._generators(trainer), state["generators"])
        if strangers:
            log.warning("random generators that only one side of the resume has: %s", ", ".join(strangers))
        set_random_state(state["random"])

    def _generators(self, trainer: pl.Trainer) -> dict[str, Any]:
        loaders = {"train": self._loader.flattened if self._loader is not None else (), "val": trainer.val_dataloaders}
        return find_generators({**loaders, "datamodule": self._datamodule, "module": self._module})


def _reload_epochs(trainer: pl.Trainer) -> tuple[float, float]:
    fit = trainer.fit_loop
    return fit._last_train_dl_reload_epoch, fit.epoch_loop.val_loop._last_val_dl_reload_epoch


class ResumableEpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, with a pause between two of them.

    Parameters
    ----------
    trainer
        Its trainer; the loop takes the place of the one that it has.
    state
        What to put back on resume.
    between
        Called before each batch is fetched, with everything at rest. It may take a checkpoint, or raise.
    """

    def __init__(self, trainer: pl.Trainer, state: ExactState, between: Callable[[pl.Trainer], None]) -> None:
        old = trainer.fit_loop.epoch_loop
        super().__init__(trainer, min_steps=old.min_steps, max_steps=old.max_steps)
        self._state, self._between = state, between
        trainer.fit_loop.epoch_loop = self

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Make the iterator; on resume put everything back and forget that this is one."""
        resumed = bool(self._restarting)
        super().on_run_start(data_fetcher)
        if not resumed:
            return
        # Lightning supposes that a checkpoint was taken in a callback, in the middle of things. It would step plateau
        # schedulers and counters twice here, and leave them out at the end of the epoch.
        self.restarting = False
        self.trainer.fit_loop._restarting = False
        self._state.put_back(self.trainer)

    def _broadcast_sigterm_tensor(self) -> None:
        """Ask nobody at every step whether Lightning saw a signal: it does not listen, and we agree on stopping."""

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Pause, then train on one batch."""
        self._between(self.trainer)
        super().advance(data_fetcher)

    @property
    def gradients_pending(self) -> bool:
        """Whether gradients were added up that the optimizer has not used."""
        return bool(self.batch_progress.current.ready % self.trainer.accumulate_grad_batches)
