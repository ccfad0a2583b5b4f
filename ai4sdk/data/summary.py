"""What a dataset holds, as a plan shows it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ai4sdk.data.fetch import local_source
from ai4sdk.data.formats import NOUNS
from ai4sdk.data.source import Source, find_source
from ai4sdk.data.study import ArrayStudy, FilesStudy, Study, TableStudy, study
from ai4sdk.data.whole import check_whole
from ai4sdk.spec import FileDataset, Storage

__all__ = ["Summary", "summarize", "summarize_source"]

_WHOLE = 64 * 2**20
"""Bytes up to which data is read whole, and remote data fetched."""

_PART = 4 * 2**20
"""Bytes that are read of larger data."""

_LOOKED_AT = 64
"""Pictures and recordings that are looked into."""


@dataclass(frozen=True)
class Summary:
    """What a module will be given.

    Parameters
    ----------
    format
        ``csv``, ``parquet``, ``npy``, ``npz``, ``images`` or ``audio``.
    rows
        Samples that can be used; an estimate where not all were read.
    features
        Numbers in one sample: the product of ``shape``.
    feature_names
        Names of the inputs of a table, one a category for columns of text.
    shape
        Shape of one sample.
    label
        Column or array to predict.
    label_kind
        ``class``, ``number``, or nothing where there is no label.
    targets
        Numbers to predict a sample, for numbers.
    classes
        Number of classes.
    class_names
        Their names, in the order of their numbers.
    class_counts
        Samples of each class among those read.
    splits
        Samples of each split, where all were read.
    complete
        Whether everything was read; otherwise rows, classes and categories may be more.
    """

    format: str
    rows: int | None
    features: int
    feature_names: tuple[str, ...] | None
    shape: tuple[int, ...]
    label: str | None
    label_kind: str | None
    targets: int | None
    classes: int | None
    class_names: tuple[str, ...] | None
    class_counts: dict[str, int] | None
    splits: dict[str, int] | None
    complete: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as a mapping for JSON, with lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def summarize(dataset: FileDataset, storage: Storage, project: Path, task: str, site: str | None = None) -> Summary:
    """Look into a dataset as training will, but for what is too large.

    Up to 64 MiB are read whole, and fetched first where they are remote. Of larger tables the first part is read,
    of larger arrays the headers and labels, of larger folders of remote pictures and recordings the names.

    Parameters
    ----------
    dataset, storage, project
        See `ai4sdk.data.source.find_source`.
    task
        The job's task; it decides what whole numbers are.
    site
        Column of sites, which is no feature.

    Returns
    -------
    Summary
        What the training will find, if ``complete``.

    Raises
    ------
    DataError
        If the data cannot be reached, read, or learnt from as the user says.
    """
    return summarize_source(find_source(dataset, storage, project), dataset, storage, task, site)


def summarize_source(
    source: Source, dataset: FileDataset, storage: Storage, task: str, site: str | None = None
) -> Summary:
    """Summarize files that are already listed; see `summarize`."""
    small = source.size <= _WHOLE and all(entry.size >= 0 for entry in source.entries)
    if small:
        source = local_source(source, storage)
    found = study(source, dataset, task, limit=None if small or source.format in NOUNS else _PART, site=site)
    if isinstance(found, FilesStudy) and source.location.is_local:
        _look_into_files(source, found)
    return _summary(source, dataset, found)


def _summary(source: Source, dataset: FileDataset, found: Study) -> Summary:
    rows: int | None = len(found.rows)
    names: tuple[str, ...] | None = None
    label, targets, complete = dataset.label, None, True
    if isinstance(found, TableStudy):
        names = tuple(name for feature in found.features for name in feature.inputs)
        shape: tuple[int, ...] = (len(names),)
        if not (complete := found.table.complete):
            rows = _estimate(source, found)
    elif isinstance(found, ArrayStudy):
        shape = found.shape
        complete = found.splits is not None
        label = label or ("y" if found.labels or found.targets else None)
        targets = math.prod(found.targets[0].shape[1:]) if found.targets else None
    else:
        assert isinstance(found, FilesStudy)
        shape = found.how.shape
    kind = found.labels.kind if found.labels else "number" if targets else None
    classes = found.labels.names if found.labels else None
    counts = Counter(map(int, found.labels.values)) if found.labels and classes else None
    return Summary(
        format=source.format,
        rows=rows,
        features=math.prod(shape),
        feature_names=names,
        shape=shape,
        label=label,
        label_kind=kind,
        targets=targets or (1 if kind == "number" else None),
        classes=len(classes) if classes else None,
        class_names=classes,
        class_counts={name: counts[index] for index, name in enumerate(classes)} if classes and counts else None,
        splits={name: len(chosen) for name, chosen in found.splits.items()} if found.splits else None,
        complete=complete,
    )


def _estimate(source: Source, found: TableStudy) -> int | None:
    """Guess the rows of a table from those of its first part."""
    if source.format == "parquet":
        from ai4sdk.data.parquet import count_parquet_rows

        return count_parquet_rows(source)
    if any(entry.size < 0 for entry in source.entries) or not found.table.read:
        return None
    return round(len(found.rows) * source.size / found.table.read)


def _look_into_files(source: Source, found: FilesStudy) -> None:
    """Look for files that are cut short among some evenly taken from all."""
    entries = found.files.entries
    for entry in entries[:: max(1, len(entries) // _LOOKED_AT)]:
        with source.location.open(entry) as file:
            check_whole(file, source.shown(entry))
