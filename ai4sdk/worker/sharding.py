"""Dividing batches among the processes of a task, so that together they see what one process would see.

Training: the batches that one process with ``world_size`` times the batch size would draw are each cut into equal
parts, one a process; rank 0 draws the order. What is left of a last batch that cannot be cut evenly (fewer samples
than processes) is left out in that epoch: averaging over processes is then averaging over samples. Nothing is padded.

Validation: each sample is seen by exactly one process, and all have the same number of batches. Loaders that cannot be
divided like that, and splits with fewer samples than processes, are seen whole by everyone, which gives the same means.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from ai4sdk.errors import DataError, RunFailed
from ai4sdk.worker.group import Group

__all__ = ["Divided", "TrainingBatches", "ValidationBatches", "divide_training", "divide_validation"]

log = logging.getLogger(__name__)


class TrainingBatches:
    """The parts of a process of the batches that all draw together.

    Parameters
    ----------
    sampler
        Gives the numbers of samples in the order of an epoch; asked on rank 0 only.
    batch_size
        Samples in a batch of one process.
    drop_last
        Whether a last, smaller batch is left out.
    group
        The processes.
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool, group: Group) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self._group = group

    def __iter__(self) -> Iterator[list[int]]:
        group = self._group
        order = group.numbers([int(index) for index in self.sampler] if group.is_first else None)
        whole = self.batch_size * group.size
        for start in range(0, len(order), whole):
            batch = order[start : start + whole]
            share = len(batch) // group.size
            if share and not (self.drop_last and len(batch) < whole):
                yield batch[group.rank.rank * share : (group.rank.rank + 1) * share]

    @property
    def left_out(self) -> int:
        """Samples of a last batch that cannot be divided evenly."""
        size, rest = self._group.size, len(self.sampler) % (self.batch_size * self._group.size)
        return 0 if self.drop_last else rest % size

    def __len__(self) -> int:
        whole = self.batch_size * self._group.size
        full, rest = divmod(len(self.sampler), whole)
        return full + (0 if self.drop_last else int(rest >= self._group.size))


class ValidationBatches:
    """The samples of a process: everyone has as many batches, and together they have each sample once.

    Parameters
    ----------
    sampler
        Gives the numbers of samples; asked on rank 0 only. At least one a process.
    batch_size
        Samples in a batch of one process; where that does not come out even, some batches have one more.
    group
        The processes.
    """

    def __init__(self, sampler: Any, batch_size: int, group: Group) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self._group = group

    def __iter__(self) -> Iterator[list[int]]:
        group = self._group
        order = group.numbers([int(index) for index in self.sampler] if group.is_first else None)
        own = order[group.rank.rank :: group.size]
        count = len(self)
        for index in range(count):
            yield own[len(own) * index // count : len(own) * (index + 1) // count]

    def __len__(self) -> int:
        samples, size = len(self.sampler), self._group.size
        return max(1, min(-(-samples // (self.batch_size * size)), samples // size))


class Divided:
    """Loaders whose batches are divided for the time of a training.

    Parameters
    ----------
    group
        The processes.
    global_batch_size, accumulate
        Samples in a step that the job asks for, if it does, and batches of a process in a step.

    Attributes
    ----------
    left_out
        Training samples that are left out in each epoch because they cannot be divided evenly.
    """

    def __init__(self, group: Group, global_batch_size: int | None = None, accumulate: int = 1) -> None:
        self._group, self._global, self._accumulate = group, global_batch_size, accumulate
        self._before: list[tuple[DataLoader[Any], Any]] = []
        self.left_out = 0

    def training(self, loader: Any) -> None:
        """Divide a training loader; raises `RunFailed` or `DataError` if that cannot be done."""
        if isinstance(loader, DataLoader):
            self._check_size(loader)
        if self._group.size > 1 and not self._is_divided(loader):
            divided = divide_training(loader, self._group)
            self.left_out = divided.left_out
            self._put(loader, divided)

    def validation(self, loader: Any) -> None:
        """Divide a validation loader, if that can be done."""
        if self._group.size > 1 and not self._is_divided(loader):
            if (divided := divide_validation(loader, self._group)) is not None:
                self._put(loader, divided)
            else:
                log.info("every process validates on the whole of a loader that cannot be divided")

    def undo(self) -> None:
        """Give the loaders back as they were."""
        for loader, batches in self._before:
            loader.__dict__["batch_sampler"] = batches
        self._before.clear()

    def _put(self, loader: DataLoader[Any], batches: Any) -> None:
        self._before.append((loader, loader.batch_sampler))
        loader.__dict__["batch_sampler"] = batches  # torch refuses to set it the plain way

    def _is_divided(self, loader: Any) -> bool:
        batches = getattr(loader, "batch_sampler", None)
        samplers = (getattr(loader, "sampler", None), getattr(batches, "sampler", None))
        return isinstance(batches, TrainingBatches | ValidationBatches) or any(
            isinstance(sampler, DistributedSampler) for sampler in samplers
        )

    def _check_size(self, loader: DataLoader[Any]) -> None:
        if self._global is None or (size := loader.batch_size) is None:
            return
        found = size * self._group.size * self._accumulate
        if found != self._global:
            raise RunFailed(
                f"training.global_batch_size is {self._global}, but the loader gives batches of {size}: with "
                f"{self._group.size} processes and {self._accumulate} accumulated batches a step has {found} samples",
                hint="let the loader's own code make batches of "
                f"{self._global / (self._group.size * self._accumulate):g}, or leave training.global_batch_size out",
            )


def divide_training(loader: Any, group: Group) -> TrainingBatches:
    """Return a training loader's batches, divided.

    Raises
    ------
    RunFailed
        If nobody can know how to divide the loader.
    DataError
        If no batch is left.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__
        raise RunFailed(
            f"a {kind} gives samples one after the other; {group.size} processes would all train on the same",
            hint="return a dataset with __len__ and __getitem__, or train with training=single",
        )
    batches = loader.batch_sampler
    if type(batches) is not BatchSampler:
        raise RunFailed(
            f"batches made by a {type(batches).__name__} cannot be divided among {group.size} processes",
            hint="give the DataLoader a batch_size and a sampler instead of a batch_sampler",
        )
    divided = TrainingBatches(batches.sampler, batches.batch_size, batches.drop_last, group)
    if len(divided) == 0:
        raise DataError(
            f"{len(batches.sampler)} samples leave no training batch for {group.size} processes "  # type: ignore[arg-type]
            f"with {batches.batch_size} samples each",
            hint="set a smaller dataset.loader.batch_size, dataset.loader.drop_last: false, or fewer processes",
        )
    return divided


def divide_validation(loader: Any, group: Group) -> ValidationBatches | None:
    """Return a validation loader's batches, divided; ``None`` where each process should see all of them."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    batches = loader.batch_sampler
    if type(batches) is not BatchSampler or batches.drop_last or len(batches.sampler) < group.size:  # type: ignore[arg-type]
        return None
    return ValidationBatches(batches.sampler, batches.batch_size, group)
