"""Data made by code of the user's, in any of the forms that torch, Lightning and scikit-learn know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset
from torch.utils.data import Dataset as TorchDataset

from ai4sdk.data.columns import Column, Kind, Labels, read_labels
from ai4sdk.data.loaders import Data, SplitData, check_batches, label_tensor, prepared
from ai4sdk.data.preprocessing import Preprocessing
from ai4sdk.data.readers import Samples
from ai4sdk.data.source import SPLITS
from ai4sdk.data.splits import divide
from ai4sdk.errors import DataError
from ai4sdk.spec import Loader, Splits, TargetDataset

__all__ = ["from_target"]


def from_target(made: Any, dataset: TargetDataset, task: str) -> Data:
    """Take what a target made for what it is.

    Parameters
    ----------
    made
        A LightningDataModule; a torch Dataset; Datasets or DataLoaders as a mapping by ``train``, ``val`` and ``test``
        or in this order; arrays (X, y) or a scikit-learn Bunch.
    dataset
        How to divide and load it, as far as that is not decided.
    task
        ``auto``, ``classification``, ``regression`` or ``other``.

    Returns
    -------
    Data
        What a module trains on.

    Raises
    ------
    DataError
        If it is nothing of these, or ``splits`` or ``loader`` cannot have an effect.
    """
    if isinstance(made, LightningDataModule):
        _refuse(dataset, "a LightningDataModule, which divides and loads by itself", splits=True, loader=True)
        return _as_made(made, task, _class_names(made))
    if isinstance(made, DataLoader):
        made = {"train": made}
    if (arrays := _as_arrays(made)) is not None:
        return _from_arrays(*arrays, made, dataset, task)
    if isinstance(made, tuple | list) and 1 <= len(made) <= len(SPLITS) and all(map(_is_part, made)):
        made = dict(zip(SPLITS, made, strict=False))
    if isinstance(made, Mapping) and "train" in made and set(made) <= set(SPLITS):
        return _from_parts({name: part for name, part in made.items() if part is not None}, dataset, task)
    if isinstance(made, IterableDataset):
        _refuse(dataset, "an IterableDataset, which cannot be divided", splits=True, loader=False)
        return _from_parts({"train": made}, dataset, task)
    if isinstance(made, TorchDataset) or (hasattr(made, "__getitem__") and hasattr(made, "__len__") and _is_pair(made)):
        return _from_dataset(made, dataset, task)
    raise DataError(
        f"{dataset.target} made a {type(made).__name__}, which is no data to train on",
        hint="return a LightningDataModule, a torch Dataset, loaders or datasets under train, val and test, "
        "or arrays (X, y)",
    )


def _refuse(dataset: TargetDataset, what: str, *, splits: bool, loader: bool) -> None:
    for key, refused in (("splits", splits), ("loader", loader)):
        if refused and getattr(dataset, key) is not None:
            raise DataError(f"dataset.{key} has no effect: {dataset.target} made {what}", hint=f"remove dataset.{key}")


def _as_made(datamodule: LightningDataModule, task: str, class_names: list[str] | None) -> Data:
    return Data(datamodule, None, task, class_names, None)


def _is_part(value: Any) -> bool:
    return value is None or isinstance(value, DataLoader | TorchDataset)


def _is_pair(made: Any) -> bool:
    return len(made) > 0 and not isinstance(made, Mapping | str | bytes) and isinstance(made[0], tuple)


def _from_parts(parts: dict[str, Any], dataset: TargetDataset, task: str) -> Data:
    _refuse(dataset, "splits of its own", splits=True, loader=False)
    for name, part in parts.items():
        if not _is_part(part):
            raise DataError(
                f"{dataset.target} made a {type(part).__name__} for {name}", hint="make a DataLoader or a torch Dataset"
            )
    if all(isinstance(part, DataLoader) for part in parts.values()):
        _refuse(dataset, "loaders of its own", splits=False, loader=True)
    training = parts["train"]
    given = training.dataset if isinstance(training, DataLoader) else training
    loader = dataset.loader or Loader()
    if not isinstance(training, DataLoader):
        check_batches(parts, loader)
    return _as_made(SplitData(parts, loader), _told_by_sample(given, task), _class_names(given))


def _from_dataset(made: Any, dataset: TargetDataset, task: str) -> Data:
    """Divide a dataset of the user's."""
    splits = dataset.splits or Splits()
    if splits.method not in ("fraction", "stratified") or splits.column is not None:
        raise DataError(
            f"splits.method: {splits.method} reads a column, but {dataset.target} made a dataset without columns",
            hint="set splits.method: fraction or stratified, or return the splits under train, val and test",
        )
    labels = _labels_of(made, dataset) if splits.method == "stratified" else None
    loader = dataset.loader or Loader()
    parts = {name: Subset(made, chosen) for name, chosen in divide(splits, len(made), labels).items()}
    check_batches(parts, loader)
    return _as_made(SplitData(parts, loader), _told_by_sample(made, task), _class_names(made))


def _labels_of(made: Any, dataset: TargetDataset) -> list[int]:
    """Return the class of each sample: from the dataset's own list if it has one, else by reading all samples."""
    labels = getattr(made, "targets", None)
    if labels is None and isinstance(made, torch.utils.data.TensorDataset) and len(made.tensors) > 1:
        labels = made.tensors[-1]
    try:
        if labels is None or len(labels) != len(made):
            labels = [made[index][1] for index in range(len(made))]
        values = [label.item() if hasattr(label, "item") else label for label in labels]
    except (TypeError, IndexError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"splits.method: stratified needs samples (input, class), which {dataset.target} does not make: {error}",
            hint="set splits.method: fraction",
        ) from error
    if odd := next((value for value in values if isinstance(value, float) and not value.is_integer()), None):
        raise DataError(
            f"splits.method: stratified needs classes, but {dataset.target} gives the target {odd}",
            hint="set splits.method: fraction",
        )
    return values


def _told_by_sample(made: Any, task: str) -> str:
    """Tell the task from the target of a first sample, where one can be had for nothing."""
    if task != "auto" or isinstance(made, IterableDataset) or not hasattr(made, "__getitem__"):
        return task
    try:
        sample = made[0]
    except (IndexError, KeyError, NotImplementedError):
        return task
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        return task
    target = sample[1]
    if isinstance(target, bool | int):
        return "classification"
    if isinstance(target, float):
        return "regression"
    kind = getattr(target, "dtype", None)
    if isinstance(target, Tensor) and target.ndim <= 1 and target.numel() == 1:
        return "regression" if target.is_floating_point() else "classification"
    return "classification" if kind is not None and getattr(target, "ndim", 1) == 0 and kind.kind in "iub" else task


def _class_names(made: Any) -> list[str] | None:
    """Return the names of classes where they are kept, as torchvision (``classes``) and others do."""
    for name in ("class_names", "classes"):
        names = getattr(made, name, None)
        if isinstance(names, list | tuple) and names and all(isinstance(each, str) for each in names):
            return list(names)
    return _class_names(made.dataset) if isinstance(made, Subset) else None


# Arrays of the user's ------------------------------------------------------------------------------------------------


def _as_arrays(made: Any) -> tuple[Any, Any] | None:
    """Return X and y of a pair of arrays or a scikit-learn Bunch."""
    if isinstance(made, Mapping) and "data" in made and "target" in made:
        return made["data"], made["target"]
    is_pair = isinstance(made, tuple | list) and len(made) == 2
    if is_pair and all(hasattr(part, "__len__") and hasattr(part, "shape") for part in made):
        return made[0], made[1]
    return None


def _from_arrays(x: Any, y: Any, made: Any, dataset: TargetDataset, task: str) -> Data:
    """Take arrays as an npz is taken, but leave their values as they are."""
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    if isinstance(y, Tensor):
        y = y.detach().cpu().numpy()
    try:
        inputs = np.ascontiguousarray(x, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{dataset.target} made inputs that are no numbers: {error}",
            hint="encode them there, or use a CSV or Parquet file, whose text columns are encoded",
        ) from error
    answers = np.asarray(y)
    if inputs.ndim == 0 or answers.ndim == 0 or len(inputs) != len(answers):
        raise DataError(
            f"{dataset.target} made arrays of shapes {inputs.shape} and {answers.shape}",
            hint="the first axis of both counts the samples",
        )
    inputs = inputs[:, None] if inputs.ndim == 1 else inputs
    if not np.isfinite(inputs).all():
        row = int(np.argwhere(~np.isfinite(inputs))[0][0])
        raise DataError(
            f"{dataset.target}: sample {row + 1} holds a value that is no finite number", hint="drop or fill it there"
        )
    splits = dataset.splits or Splits()
    if splits.method not in ("fraction", "stratified") or splits.column is not None:
        raise DataError(
            f"splits.method: {splits.method} reads a column, but {dataset.target} made arrays",
            hint="set splits.method: fraction or stratified, or return the splits under train, val and test",
        )
    labels, targets = _array_targets(answers, dataset, task)
    is_class = labels is not None and labels.kind == "class"
    if splits.method == "stratified" and not is_class:
        raise DataError(
            "splits.method: stratified needs classes, but the targets are numbers", hint="set splits.method: fraction"
        )
    found = divide(splits, len(inputs), list(labels.values) if labels is not None and is_class else None)
    decided = task if task != "auto" else "classification" if is_class else "regression"
    names = labels.names if labels is not None else None
    told = made.get("target_names") if isinstance(made, Mapping) else None
    if names is not None and told is not None and len(told) == len(names):
        names = tuple(str(name) for name in told)
    preprocessing = Preprocessing("array", inputs.shape[1:], decided, class_names=names)
    tensor = torch.from_numpy(inputs)
    parts = {name: Samples(tensor[chosen], targets[chosen]) for name, chosen in found.items()}
    loader = dataset.loader or Loader()
    check_batches(parts, loader)
    return prepared(parts, loader, preprocessing, decided)


def _array_targets(answers: Any, dataset: TargetDataset, task: str) -> tuple[Labels | None, Tensor]:
    if answers.ndim == 2 and answers.shape[1] == 1:
        answers = answers[:, 0]
    if answers.ndim > 1:
        if answers.dtype.kind not in "biuf":
            raise DataError(f"{dataset.target} made targets of type {answers.dtype}", hint="make numbers of them")
        return None, torch.from_numpy(np.ascontiguousarray(answers, dtype=np.float32))
    kinds: dict[str, Kind] = {"b": "bool", "i": "number", "u": "number", "f": "number"}
    column = Column("y", kinds.get(answers.dtype.kind, "text"))
    if column.kind == "text":
        codes: dict[str, int] = {}
        column.codes.extend(codes.setdefault(str(answer), len(codes)) for answer in answers.tolist())
        column.texts = list(codes)
    else:
        column.numbers.extend(answers.astype(np.float64).tolist())
        if column.missing():
            raise DataError(f"{dataset.target}: target {column.missing()[0] + 1} is no number", hint="drop it there")
    if task == "auto" and answers.dtype.kind in "iu":
        found = np.unique(answers)
        if found[0] in (0, 1) and found[-1] - found[0] == len(found) - 1:  # the type says more than a CSV file can
            task = "classification"
    labels = read_labels(column, range(len(answers)), task, lambda row: f"{dataset.target} sample {row + 1}")
    return labels, label_tensor(labels)
