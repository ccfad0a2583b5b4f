"""Files to arrays and tensors: one small function a format, pictures and recordings only when they are asked for."""

from __future__ import annotations

import os
import zipfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ai4sdk.data.arrays import Array
from ai4sdk.data.audio import decoder
from ai4sdk.data.columns import Column
from ai4sdk.data.media import read_sample
from ai4sdk.data.preprocessing import Preprocessing
from ai4sdk.data.source import Source
from ai4sdk.data.study import TableStudy
from ai4sdk.errors import DataError
from ai4sdk.spec import Audio, Images

__all__ = ["Files", "Samples", "UnreadableSample", "chosen", "encoded", "read_arrays", "some_cells", "together"]

Sample = Tensor | tuple[Tensor, Tensor]


class UnreadableSample(DataError):
    """A sample cannot be read in the middle of training.

    A loading process of torch hands an error on as its class and the text of a traceback; the user is shown the
    message alone.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        if message.startswith("Caught "):
            message = message.rpartition(f"{type(self).__name__}: ")[2].strip()
            message, _, told = message.partition("\n  → ")
            hint = hint or told or None
        super().__init__(message, hint=hint)


class Samples(Dataset[Sample]):
    """Samples in memory.

    Parameters
    ----------
    inputs
        Shape (samples, ...).
    targets
        Shape (samples, ...), or nothing; then a sample is its input alone.
    """

    def __init__(self, inputs: Tensor, targets: Tensor | None) -> None:
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Sample:
        return self.inputs[index] if self.targets is None else (self.inputs[index], self.targets[index])


class Files(Dataset[Sample]):
    """Pictures or recordings that are read when they are asked for.

    Parameters
    ----------
    root
        Folder of this machine.
    names
        Files below it.
    targets
        Their classes, int64, or nothing.
    how
        What arrays they become.
    """

    def __init__(self, root: Path, names: Sequence[str], targets: Tensor | None, how: Images | Audio) -> None:
        if isinstance(how, Audio):
            decoder()  # told now, rather than by a loading process in the midst of training
        self.root = root
        # One array of bytes rather than a list of texts: small, and not copied by loading processes that only count
        # references.
        self.names = np.array([os.fsencode(name) for name in names])
        self.targets = targets
        self.how = how

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        try:
            sample = torch.from_numpy(read_sample(self.root / os.fsdecode(self.names[index]), self.how))
        except DataError as error:
            raise UnreadableSample(error.message, hint=error.hint) from None
        return sample if self.targets is None else (sample, self.targets[index])


def together(samples: Sequence[Sample]) -> Sample:
    """Gather samples into a batch: (inputs, targets), or inputs alone."""
    if isinstance(samples[0], tuple):
        pairs = cast(Sequence[tuple[Tensor, Tensor]], samples)
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])
    return torch.stack(cast(list[Tensor], list(samples)))


def _cells(found: TableStudy, names: Iterable[str]) -> dict[str, Column]:
    """Take the usable rows of a table's columns."""
    columns = found.table.columns
    if len(found.rows) == found.table.rows:
        return {name: columns[name] for name in names}
    rows = np.asarray(found.rows)
    return {name: _taken(columns[name], rows) for name in names}


def encoded(found: TableStudy, preprocessing: Preprocessing) -> Tensor:
    """Return the inputs of the usable rows, shape (rows, inputs), float32."""
    return torch.from_numpy(preprocessing.encode(_cells(found, preprocessing.column_names or ())))


def chosen(count: int, most: int) -> NDArray[np.int64]:
    """Choose at most so many of ``count`` samples, ascending and always the same ones."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def some_cells(found: TableStudy, most: int) -> dict[str, Column]:
    """Return the cells of the features of at most so many samples of the training split, as the file has them."""
    assert found.splits is not None
    training = np.asarray(found.rows)[found.splits["train"]]
    rows = training[chosen(len(training), most)]
    cells = {feature.name: (_taken(found.table.columns[feature.name], rows), feature) for feature in found.features}
    return {name: column.as_text() if feature.kind == "text" else column for name, (column, feature) in cells.items()}


def read_arrays(source: Source, headers: Sequence[Array]) -> NDArray[Any]:
    """Read arrays, one a file, and put them one after another.

    Raises
    ------
    DataError
        If a file is cut short or holds Python objects.
    """
    read = []
    for header in headers:
        shown = source.shown(header.entry)
        with source.location.open(header.entry) as file:
            try:
                loaded = np.load(file, allow_pickle=False)
                read.append(np.asarray(loaded[header.name] if header.name else loaded))
            except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
                raise DataError(f"{shown} cannot be read: {error}", hint="fetch or write it again") from error
    return read[0] if len(read) == 1 else np.concatenate(read)


def _taken(column: Column, rows: NDArray[Any]) -> Column:
    if column.kind == "text":
        codes = np.frombuffer(column.codes, dtype=f"i{column.codes.itemsize}")[rows]
        return Column(column.name, "text", codes=array("l", codes.tobytes()), texts=column.texts)
    return Column(column.name, column.kind, numbers=array("d", np.frombuffer(column.numbers)[rows].tobytes()))
