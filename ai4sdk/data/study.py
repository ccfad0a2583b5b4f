"""What a dataset holds and how it is divided: one account for the summary of a plan and for the training.

No value of a feature is scaled or encoded here; that is `ai4sdk.data.preprocessing`, on arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ai4sdk.data.arrays import Array, find_array, read_column, read_headers, rows_with_nan
from ai4sdk.data.columns import Column, Labels, Roles, Table, assign_roles, check_feature, read_labels, usable_rows
from ai4sdk.data.csvfile import read_csv_names, read_csv_table
from ai4sdk.data.folders import FilesByClass, files_by_class
from ai4sdk.data.formats import NOUNS
from ai4sdk.data.source import SPLITS, Source
from ai4sdk.data.splits import divide
from ai4sdk.errors import DataError
from ai4sdk.spec import Audio, FileDataset, Images
from ai4sdk.spec.dataset import CsvOptions

__all__ = ["ArrayStudy", "Feature", "FilesStudy", "Study", "TableStudy", "study"]

Indices = dict[str, list[int]]

_NO_COLUMNS = ("npy", *NOUNS)
"""Formats that have neither columns nor names of arrays."""


@dataclass(frozen=True)
class Feature:
    """One column to learn from.

    Parameters
    ----------
    name
        Its name.
    kind
        ``number``, ``bool`` or ``text``.
    categories
        For text, the different texts of the training split, sorted; each becomes an input.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that it becomes."""
        if self.kind == "text":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name,)


@dataclass(frozen=True)
class Study:
    """What every kind of dataset has.

    Parameters
    ----------
    rows
        The usable samples, as numbers of rows, arrays' first axis or files.
    labels
        What is to be predicted, one value for each of ``rows``.
    splits
        Names of the splits, with positions in ``rows``; nothing where not all samples were read.
    sites
        Of the column of sites that was asked for, one value for each of ``rows``.
    """

    rows: Sequence[int]
    labels: Labels | None
    splits: Indices | None
    sites: list[Any] | None

    @property
    def is_labelled(self) -> bool:
        """Whether there is anything to predict."""
        return self.labels is not None


@dataclass(frozen=True)
class TableStudy(Study):
    """A table of CSV or Parquet files."""

    table: Table
    roles: Roles
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class ArrayStudy(Study):
    """Arrays of NPY or NPZ files.

    Parameters
    ----------
    inputs
        One array a file.
    targets
        Arrays to predict that have several numbers a sample; then ``labels`` is nothing.
    shape
        Shape of a sample.
    """

    inputs: tuple[Array, ...]
    targets: tuple[Array, ...] | None
    shape: tuple[int, ...]

    @property
    def is_labelled(self) -> bool:
        """Whether there is anything to predict."""
        return self.labels is not None or self.targets is not None


@dataclass(frozen=True)
class FilesStudy(Study):
    """Files that are a sample each.

    Parameters
    ----------
    files
        The files and their classes.
    how
        How they are read.
    """

    files: FilesByClass
    how: Images | Audio


def study(
    source: Source, dataset: FileDataset, task: str, *, limit: int | None = None, site: str | None = None
) -> Study:
    """Look into a dataset.

    Parameters
    ----------
    source
        Its files.
    dataset
        What the user says about them.
    task
        ``auto``, ``classification``, ``regression`` or ``other``.
    limit
        Bytes of a table after which to stop reading; with one, the inputs of arrays are not searched for values that
        are no numbers. Nothing reads everything.
    site
        Column (or array of an npz) that says which site a sample is of; it is no feature.

    Returns
    -------
    Study
        `TableStudy`, `ArrayStudy` or `FilesStudy`.

    Raises
    ------
    DataError
        If the data cannot be learnt from as the user says; with file, and row and column where there are such.
    """
    _refuse_unused(source, dataset)
    if site is not None and source.format in _NO_COLUMNS:
        raise DataError(
            f"federation.partition.column: {source.format} data have no column {site!r}",
            hint="set federation.partition.method to another, or bring tables or npz files",
        )
    found: Study
    if source.format in ("csv", "parquet"):
        found = _study_table(source, dataset, task, limit, site)
    elif source.format in NOUNS:
        found = _study_files(source, dataset, task)
    else:
        found = _study_arrays(source, dataset, task, limit, site)
    if task in ("classification", "regression") and not found.is_labelled:
        how = {
            **{name: f"put the {noun}s of each class into a folder of its own" for name, noun in NOUNS.items()},
            "npy": "save x and y in one npz",
            "npz": "save an array y, or name another in dataset.label",
        }.get(source.format, "name the column to predict in dataset.label")
        raise DataError(f"task is {task}, but {source.location.address} has nothing to predict", hint=how)
    return found


def _refuse_unused(source: Source, dataset: FileDataset) -> None:
    """Refuse what would have no effect on this format, rather than let the user believe it has."""
    unused = {
        "options": source.format != "csv" and dataset.options != CsvOptions(),
        "drop": source.format not in ("csv", "parquet") and bool(dataset.drop),
        "features": source.format in _NO_COLUMNS and dataset.features is not None,
        "label": source.format in _NO_COLUMNS and dataset.label is not None,
        "splits.column": source.format in _NO_COLUMNS and dataset.splits.column is not None,
    }
    for key, is_unused in unused.items():
        if is_unused:
            why = {
                **{name: f"the folder of a {noun} is its class" for name, noun in NOUNS.items()},
                "npy": "an npy file holds one array; put x and y into one npz",
            }.get(source.format, "it is for other formats")
            raise DataError(f"dataset.{key} means nothing for format {source.format}", hint=f"{why}; remove it")


def _study_table(source: Source, dataset: FileDataset, task: str, limit: int | None, site: str | None) -> TableStudy:
    names = read_csv_names(source, dataset.options) if source.format == "csv" else _parquet_names(source)
    roles = assign_roles(names, dataset, source.shown(source.entries[0]), site)
    as_text = {roles.split} if roles.split and dataset.splits.method in ("group", "given") else set()
    if source.format == "csv":
        table = read_csv_table(source, dataset.options, roles.used, as_text, limit)
    else:
        from ai4sdk.data.parquet import read_parquet_table

        table = read_parquet_table(source, roles.used, as_text, limit)
    rows = usable_rows(table, roles, dataset.missing)
    for name in roles.features:
        check_feature(table.columns[name], rows, table.place)
    labels = read_labels(table.columns[roles.label], rows, task, table.place) if roles.label else None
    column = table.columns[roles.split] if roles.split else None
    splits = _divide(dataset, rows, labels, column, table.parts) if table.complete else None
    training = rows if splits is None else [rows[position] for position in splits["train"]]
    features = tuple(_feature(table.columns[name], training) for name in roles.features)
    sites = _values(table.columns[roles.site], rows) if roles.site else None
    return TableStudy(rows, labels, splits, sites, table, roles, features)


def _parquet_names(source: Source) -> list[str]:
    from ai4sdk.data.parquet import read_parquet_names

    return read_parquet_names(source)


def _feature(column: Column, training: Sequence[int]) -> Feature:
    if column.kind != "text":
        return Feature(column.name, column.kind)
    codes = {column.codes[row] for row in training} - {-1}
    return Feature(column.name, "text", tuple(sorted(column.texts[code] for code in codes)))


def _study_arrays(source: Source, dataset: FileDataset, task: str, limit: int | None, site: str | None) -> ArrayStudy:
    inputs: list[Array] = []
    targets: list[Array] = []
    label: Column | None = None
    split: Column | None = None
    sites: Column | None = None
    parts = array("b")
    starts: list[tuple[int, str]] = []
    total = 0
    for part, entries in source.named_parts():
        for entry in entries:
            shown = source.shown(entry)
            headers = read_headers(source, entry)
            x = _pick_input(headers, dataset, shown)
            count = x.shape[0] if x.shape else 0
            if count == 0:
                raise DataError(f"{shown} is empty: array {x.name!r} has shape {x.shape}", hint="check dataset.uri")
            if inputs and x.shape[1:] != inputs[0].shape[1:]:
                raise DataError(
                    f"{shown}: samples of shape {x.shape[1:]}, but those of {starts[0][1]} are {inputs[0].shape[1:]}",
                    hint="all files of a dataset need samples of one shape",
                )
            starts.append((total, shown))
            inputs.append(x)
            y = _pick_label(headers, dataset, shown)
            if bool(targets) != (y is not None) and len(inputs) > 1:
                raise DataError(
                    f"{shown} has {'an' if y else 'no'} array to predict, others differ", hint="save y in all"
                )
            if y is not None:
                _same_length(y, x, shown)
                targets.append(y)
                if y.shape[1:] in ((), (1,)):
                    label = _join(label, read_column(source, y))
            if dataset.splits.column is not None and dataset.splits.method != "fraction":
                named = find_array(headers, dataset.splits.column, "dataset.splits.column", shown)
                _same_length(named, x, shown)
                split = _join(split, read_column(source, named))
            if site is not None:
                named = find_array(headers, site, "federation.partition.column", shown)
                _same_length(named, x, shown)
                sites = _join(sites, read_column(source, named))
            total += count
            if part is not None:
                parts.extend(array("b", [SPLITS.index(part)]) * count)
    if split is not None and dataset.splits.method in ("group", "given"):
        split = split.as_text()

    def place(row: int) -> str:
        start, shown = [found for found in starts if found[0] <= row][-1]
        return f"{shown} row {row - start + 1}"

    scanned = inputs if limit is None else []
    rows = _usable_samples(source, dataset, scanned, targets, label, total)
    several = tuple(targets) if targets and label is None else None
    if several and task == "classification":
        raise DataError(
            f"array {several[0].name!r} has {several[0].shape[1:]} values a sample, but task is classification",
            hint="save one class a sample, or set task: regression",
        )
    labels = read_labels(label, rows, task, place) if label is not None else None
    splits = _divide(dataset, rows, labels, split, parts if len(parts) else None) if limit is None else None
    shape = inputs[0].shape[1:] or (1,)
    of_rows = _values(sites, rows) if sites is not None else None
    return ArrayStudy(rows, labels, splits, of_rows, tuple(inputs), several, shape)


def _pick_input(headers: dict[str, Array], dataset: FileDataset, shown: str) -> Array:
    if "" in headers:
        return headers[""]
    if dataset.features is not None:
        if len(dataset.features) != 1:
            raise DataError(
                f"dataset.features names {len(dataset.features)} arrays of {shown}",
                hint="name the one array to learn from, samples along its first axis",
            )
        return find_array(headers, dataset.features[0], "dataset.features", shown)
    if len(headers) == 1:
        return next(iter(headers.values()))
    if "x" not in headers and "X" in headers:
        return headers["X"]
    return find_array(headers, "x", "dataset.features (by default)", shown)


def _pick_label(headers: dict[str, Array], dataset: FileDataset, shown: str) -> Array | None:
    if dataset.label is not None:
        return find_array(headers, dataset.label, "dataset.label", shown)
    return headers.get("y")


def _same_length(header: Array, x: Array, shown: str) -> None:
    if not header.shape or header.shape[0] != x.shape[0]:
        raise DataError(
            f"{shown}: array {header.name!r} has shape {header.shape}, but {x.name!r} has {x.shape[0]} samples",
            hint="the first axis of all arrays of a file counts the samples",
        )


def _join(known: Column | None, column: Column) -> Column:
    if known is None:
        return column
    if known.kind != column.kind:
        raise DataError(
            f"array {column.name!r} is {known.kind} in one file and {column.kind} in another",
            hint="save all files with the same types",
        )
    known.extend(column)
    return known


def _usable_samples(
    source: Source,
    dataset: FileDataset,
    inputs: list[Array],
    targets: list[Array],
    label: Column | None,
    total: int,
) -> Sequence[int]:
    out = set(label.missing()) if label is not None else set()
    blank = set(out)
    for arrays in (inputs, targets):
        start = 0
        for header in arrays:
            found = {start + row for row in rows_with_nan(source, header)}
            out |= found
            if arrays is targets:
                blank |= found
            start += header.shape[0]
    if not out:
        return range(total)
    first = min(out)
    if dataset.missing == "mean" and not blank and len(inputs[0].shape) <= 2:
        return range(total)
    if dataset.missing != "drop":
        raise DataError(
            f"{source.location.address}: sample {first + 1} holds a value that is no number "
            f"({len(out)} such sample{'s' if len(out) > 1 else ''})",
            hint="set dataset.missing to drop, or correct the data",
        )
    rows = [row for row in range(total) if row not in out]
    if not rows:
        raise DataError(
            "no sample is left to learn from: each holds a value that is no number", hint="correct the data"
        )
    return rows


def _study_files(source: Source, dataset: FileDataset, task: str) -> FilesStudy:
    files = files_by_class(source)
    rows = range(len(files.entries))
    labels = None
    if files.classes is not None:
        if task == "regression":
            raise DataError(
                f"{source.location.address} holds folders of classes, but task is regression",
                hint="set task: classification, or bring the numbers with a dataset of your own (_target_)",
            )
        labels = Labels("class", files.names, files.classes)
    how = dataset.audio if source.format == "audio" else dataset.images
    return FilesStudy(rows, labels, _divide(dataset, rows, labels, None, files.parts), None, files, how)


def _divide(
    dataset: FileDataset,
    rows: Sequence[int],
    labels: Labels | None,
    column: Column | None,
    parts: array[int] | None,
) -> Indices:
    """Divide the usable samples."""
    splits = dataset.splits
    if parts is not None:
        named: list[str | None] = [getattr(splits, name) for name in SPLITS]
        return divide(splits, len(rows), [named[parts[row]] for row in rows])
    if splits.method == "fraction":
        return divide(splits, len(rows))
    if splits.method == "stratified" and column is None:
        if labels is None or labels.kind != "class":
            raise DataError(
                "splits.method: stratified needs classes, but "
                + ("the label is a number" if labels else "there is no label"),
                hint="set splits.method: fraction, or name a column in splits.column",
            )
        return divide(splits, len(rows), labels.values)
    if column is None:
        raise DataError(
            f"splits.method: {splits.method} reads a column, which {dataset.format or 'this format'} does not have",
            hint="set splits.method: fraction or stratified, or given with a folder a split",
        )
    if splits.method == "time":
        return divide(splits, len(rows), _times(column, rows))
    return divide(splits, len(rows), _values(column, rows))


def _values(column: Column, rows: Sequence[int]) -> list[Any]:
    """Return the cells of some rows; an empty text as nothing, an empty number as NaN."""
    if column.kind == "text":
        return [column.texts[code] if (code := column.codes[row]) >= 0 else None for row in rows]
    return [column.numbers[row] for row in rows]


def _times(column: Column, rows: Sequence[int]) -> list[float]:
    """Return times to sort by; text is read as ISO 8601."""
    if column.kind != "text":
        return [column.numbers[row] for row in rows]
    times = []
    for text in column.texts:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise DataError(
                f"column {column.name!r}: {text!r} is no time",
                hint="write times as 2026-01-31 or 2026-01-31T12:00:00, or as numbers",
            ) from None
        times.append((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    return [times[column.codes[row]] for row in rows]
