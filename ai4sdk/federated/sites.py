"""One dataset divided among the sites of a rehearsal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset, Subset

from ai4sdk.data.loaders import Data, SplitData
from ai4sdk.data.partition import class_counts, partition
from ai4sdk.errors import DataError
from ai4sdk.spec.partition import Partition

__all__ = ["divided", "labels_of", "split_data"]

_BY_CLASS = ("dirichlet", "label")


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
