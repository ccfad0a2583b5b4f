"""What each site of a rehearsal has: its part of one dataset, or data of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Dataset, Subset

from ai4sdk.data.loaders import Data, SplitData
from ai4sdk.data.partition import class_counts, partition
from ai4sdk.data.pooling import listed, pooled, with_common_notation
from ai4sdk.data.preprocessing import Preprocessing
from ai4sdk.data.readers import Samples
from ai4sdk.errors import DataError
from ai4sdk.spec.partition import Partition

__all__ = ["divided", "gathered", "labels_of", "own_part_of", "require_alike", "samples_of", "split_data"]

_BY_CLASS = ("dirichlet", "label")
_SPLITS = ("train", "val", "test")


def split_data(data: Data) -> SplitData:
    """Return the splits of a dataset.

    Raises
    ------
    DataError
        If the data are loaded by the user's own code, which nothing can divide.
    """
    datamodule = data.datamodule
    if not isinstance(datamodule, SplitData):
        raise DataError(
            f"a {type(datamodule).__name__} divides and loads by itself, so that it cannot be shared among sites",
            hint="let dataset make a torch Dataset, arrays, or name files",
        )
    for name, part in datamodule.parts.items():
        if not (isinstance(part, Dataset) and hasattr(part, "__len__")):
            raise DataError(
                f"the {name} split is a {type(part).__name__}, whose samples cannot be shared among sites",
                hint="let dataset make a torch Dataset with a length, arrays, or name files",
            )
    return datamodule


def divided(data: Data, how: Partition) -> tuple[dict[str, SplitData], dict[str, dict[str, int]]]:
    """Divide training and validation samples among sites, together, so that both of a site are alike.

    Parameters
    ----------
    data
        The whole dataset.
    how
        The section ``federation.partition``.

    Returns
    -------
    sites : dict
        Site → its samples, in an order that is always the same. A site without validation samples has no such split.
    counts : dict
        Site → class → number of training samples; of all as one class where targets are no classes.

    Raises
    ------
    DataError
        If the samples cannot be divided like that, or a site has nothing to train on.
    """
    splits = split_data(data)
    parts = {name: splits.parts[name] for name in ("train", "val") if name in splits.parts}
    by_class = how.method in _BY_CLASS
    labels = {name: labels_of(part) for name, part in parts.items() if by_class or name == "train"}
    every = [label for of_part in labels.values() for label in of_part] if by_class else None
    column = [value for name, part in parts.items() for value in _column(data, name, part, how.column)]
    sizes = {name: _length(part) for name, part in parts.items()}
    sites: dict[str, SplitData] = {}
    trained: dict[str, Sequence[int]] = {}
    for site, positions in partition(how, sum(sizes.values()), every, column or None).items():
        own: dict[str, Any] = {}
        start = 0
        for name, part in parts.items():
            if chosen := [position - start for position in positions if start <= position < start + sizes[name]]:
                own[name] = Subset(part, chosen)  # type: ignore[arg-type] # a dataset, as was looked at
            start += sizes[name]
        if "train" not in own:
            raise DataError(
                f"{site} has {len(positions)} samples for validation, and none to train on",
                hint="set a larger federation.partition.min_samples, or fewer federation.partition.sites",
            )
        sites[site] = SplitData(own, splits.loader, splits.collate)
        trained[site] = own["train"].indices
    return sites, _samples_by_class(trained, labels["train"])


def prepared_alike(each: Mapping[str, Data]) -> Preprocessing:
    """Return what prepares the files of all sites alike, as if their training samples were in one place.

    Raises
    ------
    DataError
        If sites have other columns, categories or classes.
    """
    measured: dict[str, tuple[Preprocessing, Any]] = {}
    for site, data in each.items():
        training = split_data(data).parts.get("train")
        assert data.preprocessing is not None  # as of all files
        inputs = training.inputs.flatten(1).numpy() if isinstance(training, Samples) else np.empty((1, 0))
        measured[site] = (data.preprocessing, inputs)
    return pooled(measured)


def gathered(each: Mapping[str, Data]) -> Data:
    """Put the data of sites side by side, for what is done with the samples of all: evaluation and package.

    Parameters
    ----------
    each
        Site → its data.

    Returns
    -------
    Data
        Each sample prepared as at its site. What prepares them is known only if it is the same at all.

    Raises
    ------
    DataError
        If sites have samples of different kinds, for which one module would mean different things.
    """
    (first, one), *others = each.items()
    splits = {site: split_data(data) for site, data in each.items()}
    for site, data in others:
        whose = (site, f"those of {first}")
        require_alike("classes", one.class_names, data.class_names, *whose)
        require_alike("columns", one.column_names, data.column_names, *whose)
        require_alike("kind of task", [one.task], [data.task], *whose)
        require_alike("shape of inputs", _shape(splits[first]), _shape(splits[site]), *whose)
    parts: dict[str, Any] = {
        name: ConcatDataset([own.parts[name] for own in splits.values() if name in own.parts])  # type: ignore[misc] # datasets, as was looked at
        for name in _SPLITS
        if any(name in own.parts for own in splits.values())
    }
    rules = [data.preprocessing for data in each.values() if data.preprocessing is not None]
    alike = len(rules) == len(each) and all(other == rules[0] for other in rules)
    prepared = with_common_notation(rules) if alike else None
    whole = SplitData(parts, splits[first].loader, splits[first].collate)
    return Data(whole, prepared, one.task, one.class_names, one.column_names)


def own_part_of(data: Data, site: str) -> SplitData:
    """Return what a site with data of its own trains and validates on.

    Raises
    ------
    DataError
        If there is nothing to train on.
    """
    splits = split_data(data)
    parts = {name: part for name, part in splits.parts.items() if name in ("train", "val")}
    if "train" not in parts:
        raise DataError(f"{site} has no training samples", hint="look at dataset.splits")
    return SplitData(parts, splits.loader, splits.collate)


def samples_of(sites: Mapping[str, SplitData]) -> dict[str, dict[str, int]]:
    """Return site → class → number of training samples; see `divided`."""
    positions: dict[str, Sequence[int]] = {}
    every: list[Any] = []
    for site, data in sites.items():
        labels = labels_of(data.parts["train"])
        positions[site] = range(len(every), len(every) + len(labels))
        every += labels
    return _samples_by_class(positions, every)


def require_alike(
    what: str,
    theirs: Sequence[Any] | None,
    ours: Sequence[Any] | None,
    who: str = "this site's data",
    others: str = "the coordinator's",
) -> None:
    """Refuse data with other classes or columns than those of others, for which weights would mean other things.

    Raises
    ------
    DataError
        If both are known, and differ.
    """
    if theirs is not None and ours is not None and list(theirs) != list(ours):
        raise DataError(
            f"the {what} of {who}: {listed(ours)}; {others}: {listed(theirs)}",
            hint="bring them into the same order and under the same names; a class that this site has no sample of "
            "takes a dataset of your own code that numbers it",
        )


def _shape(splits: SplitData) -> list[int] | None:
    """Return the shape of the inputs of a sample, where they are one array."""
    part: Any = splits.parts.get("train")
    if part is None or not len(part):
        return None
    sample = part[0]
    inputs = sample[0] if isinstance(sample, tuple | list) else sample
    return list(inputs.shape) if hasattr(inputs, "shape") else None


def _column(data: Data, split: str, part: Any, column: str | None) -> list[Any]:
    """Return the column of sites of a split: of files as it was read, of a dataset of the user's by its attribute."""
    if column is None:
        return []
    if data.sites is not None:
        return data.sites[split]
    values = attribute_of(part, column)
    if values is None:
        raise DataError(
            f"federation.partition.column: the dataset has no attribute {column!r} with a value for each sample",
            hint="give the Dataset one, or set another federation.partition.method",
        )
    return values


def _samples_by_class(sites: Mapping[str, Sequence[int]], labels: Sequence[Any]) -> dict[str, dict[str, int]]:
    if all(isinstance(label, int | str) for label in set(labels)):
        return class_counts(sites, labels)
    return {site: {"samples": len(chosen)} for site, chosen in sites.items()}


def labels_of(part: Any) -> list[Any]:
    """Return the class of each sample of a dataset of ours or of torch's."""
    targets = attribute_of(part, "targets")
    return [_plain(target) for _, target in map(part.__getitem__, range(_length(part)))] if targets is None else targets


def attribute_of(part: Any, name: str) -> list[Any] | None:
    """Return what a dataset keeps of each sample under a name, also where it is a part of another dataset."""
    values = getattr(part, name, None)
    if values is not None:
        return [_plain(value) for value in values]
    if isinstance(part, Subset) and (inner := attribute_of(part.dataset, name)) is not None:
        return [inner[position] for position in part.indices]
    return None


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _length(part: Any) -> int:
    return len(part)
