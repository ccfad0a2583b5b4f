"""Datasets by split, and the loaders Lightning asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from ai4sdk.data.columns import Column, Labels
from ai4sdk.data.preprocessing import Preprocessing
from ai4sdk.data.readers import together
from ai4sdk.errors import DataError
from ai4sdk.spec import Loader

__all__ = ["RAW_BYTES", "RAW_SAMPLES", "Data", "SplitData", "check_batches", "label_tensor", "prepared"]


RAW_SAMPLES = 10_000
RAW_BYTES = 64 * 2**20
"""Of large arrays fewer samples are kept, a hundred at least."""


@dataclass(frozen=True)
class Data:
    """What a module trains on.

    Parameters
    ----------
    datamodule
        The loaders. Ours give batches (inputs, targets), or inputs alone where there is nothing to predict; a
        split that does not exist has no loaders.
    preprocessing
        From raw samples to inputs; nothing for data made by code, except arrays.
    task
        ``classification``, ``regression`` or ``other``; ``auto`` where the job does not say and the data does not
        tell.
    class_names
        Names of the classes, in the order of their numbers.
    column_names
        Columns that a raw sample has, where samples are records.
    sites
        Split → the value of the column of sites, one a sample, if it was asked for.
    raw
        Of tables and arrays in files, at most `RAW_SAMPLES` samples of the training split as the files have them,
        features alone.
    """

    datamodule: LightningDataModule
    preprocessing: Preprocessing | None
    task: str
    class_names: list[str] | None
    column_names: list[str] | None
    sites: dict[str, list[Any]] | None = None
    raw: Mapping[str, Column] | NDArray[Any] | None = None

    @property
    def input_names(self) -> list[str] | None:
        """Names of the module's inputs, which tell columns and the texts in them, where samples are records."""
        return self.preprocessing.input_names if self.preprocessing is not None else None


class SplitData(LightningDataModule):
    """Datasets or loaders by split.

    Parameters
    ----------
    parts
        Datasets or ready loaders, by ``train``, ``val`` and ``test``.
    loader
        How datasets are gathered into batches.
    collate
        Makes a batch of samples; torch's own way without it.
    """

    def __init__(
        self,
        parts: Mapping[str, TorchDataset[Any] | DataLoader[Any]],
        loader: Loader,
        collate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.parts = dict(parts)
        self.loader = loader
        self.collate = collate

    def train_dataloader(self) -> Any:
        """Return the loader of the training split; shuffled, unless the job says otherwise."""
        return self.dataloader("train")

    def val_dataloader(self) -> Any:
        """Return the loader of the validation split, or an empty list."""
        return self.dataloader("val")

    def test_dataloader(self) -> Any:
        """Return the loader of the test split, or an empty list."""
        return self.dataloader("test")

    def dataloader(self, split: str) -> Any:
        """Return the loader of a split, or an empty list where there is none."""
        part = self.parts.get(split)
        if part is None:
            return []
        if isinstance(part, DataLoader):
            return part
        how = self.loader
        is_training = split == "train"
        return DataLoader(
            part,
            batch_size=how.batch_size,
            shuffle=(is_training and how.shuffle) if not isinstance(part, IterableDataset) else None,
            drop_last=is_training and how.drop_last,
            num_workers=how.num_workers,
            persistent_workers=how.num_workers > 0,
            pin_memory=torch.cuda.is_available() if how.pin_memory is None else how.pin_memory,
            collate_fn=self.collate,
        )


def prepared(parts: Mapping[str, TorchDataset[Any]], loader: Loader, preprocessing: Preprocessing, task: str) -> Data:
    """Put samples of ours and what was done to them together."""
    names = preprocessing.class_names
    return Data(
        datamodule=SplitData(parts, loader, together),
        preprocessing=preprocessing,
        task=task,
        class_names=list(names) if names else None,
        column_names=preprocessing.column_names,
    )


def label_tensor(labels: Labels) -> Tensor:
    """Return labels as int64 classes or float32 numbers."""
    is_class = labels.kind == "class"
    return torch.from_numpy(np.array(labels.values, dtype=np.int64 if is_class else np.float32))


def check_batches(parts: Mapping[str, TorchDataset[Any]], loader: Loader) -> None:
    """Refuse options that leave no training batch.

    Raises
    ------
    DataError
        If the last, smaller batch that is left out is the only one.
    """
    training = parts["train"]
    size = len(training) if hasattr(training, "__len__") else None
    if loader.drop_last and size is not None and size < loader.batch_size:
        raise DataError(
            f"loader.drop_last leaves no training batch: {size} samples are fewer than batch_size {loader.batch_size}",
            hint="set dataset.loader.drop_last: false, or a smaller dataset.loader.batch_size",
        )
