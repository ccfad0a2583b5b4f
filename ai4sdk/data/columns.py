"""What columns mean: which are features, which is the label, what a label predicts.

The summary shown at plan time and the reader at training time both follow these rules, and so agree.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from math import isfinite, isinf, isnan
from typing import Literal

from ai4sdk.data.source import nearest
from ai4sdk.errors import DataError
from ai4sdk.spec import FileDataset

__all__ = [
    "MAX_CATEGORIES",
    "Column",
    "Kind",
    "Labels",
    "Roles",
    "Table",
    "assign_roles",
    "check_feature",
    "number_name",
    "read_labels",
    "usable_rows",
]

Kind = Literal["number", "bool", "text", "time"]

MAX_CATEGORIES = 1000
"""More different texts than this are no categories to learn from."""

_MAX_COUNTED = 20
"""With ``task: auto``, whole numbers with at most so many different values may be classes."""


@dataclass
class Column:
    """The cells of one column.

    Parameters
    ----------
    name
        Its name.
    kind
        ``number``; ``bool`` (0 and 1); ``text``; or ``time`` (microseconds since 1970).
    numbers
        The cells, NaN where empty; without content for text.
    codes
        For text, the place of each cell in ``texts``, -1 where empty.
    texts
        For text, the different texts in order of appearance.
    """

    name: str
    kind: Kind
    numbers: array[float] = field(default_factory=lambda: array("d"))
    codes: array[int] = field(default_factory=lambda: array("l"))
    texts: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.codes if self.kind == "text" else self.numbers)

    def missing(self) -> list[int]:
        """Return the rows of the empty cells."""
        if self.kind == "text":
            return [row for row, code in enumerate(self.codes) if code < 0] if -1 in self.codes else []
        if not isnan(sum(self.numbers)):  # one pass in C; an infinite sum is looked at cell by cell
            return []
        return [row for row, number in enumerate(self.numbers) if number != number]

    def extend(self, other: Column) -> None:
        """Append the cells of a column of the same kind."""
        if self.kind != "text":
            self.numbers.extend(other.numbers)
            return
        known = {text: code for code, text in enumerate(self.texts)}
        moved = []
        for text in other.texts:
            if text not in known:
                known[text] = len(self.texts)
                self.texts.append(text)
            moved.append(known[text])
        self.codes.extend(array("l", (moved[code] if code >= 0 else -1 for code in other.codes)))

    def as_text(self) -> Column:
        """Return the column with its cells as text; whole numbers are written without a fraction."""
        if self.kind == "text":
            return self
        made = Column(self.name, "text")
        codes: dict[float, int] = {}
        for number in self.numbers:
            if number != number:
                made.codes.append(-1)
                continue
            if number not in codes:
                codes[number] = len(made.texts)
                made.texts.append(number_name(number) if self.kind != "bool" else str(bool(number)))
            made.codes.append(codes[number])
        return made


@dataclass
class Table:
    """Columns of the same length.

    Parameters
    ----------
    columns
        The columns that were read, in the order of the file.
    names
        The names of all columns of the file, read or not.
    rows
        Number of rows.
    place
        Says where a row is, such as ``data.csv line 17``.
    parts
        With splits given by file, the split of each row as its number in `ai4sdk.data.source.SPLITS`.
    complete
        Whether all rows were read.
    read
        Bytes of the files that were read, about.
    """

    columns: dict[str, Column]
    names: list[str]
    rows: int
    place: Callable[[int], str]
    parts: array[int] | None = None
    complete: bool = True
    read: int = 0


@dataclass(frozen=True)
class Roles:
    """What each column is for.

    Parameters
    ----------
    features
        Columns to learn from, in the order of the file or as the user lists them.
    label
        Column to predict.
    split
        Column that divides the rows.
    site
        Column that says which site of a federation a row is of.
    """

    features: tuple[str, ...]
    label: str | None
    split: str | None
    site: str | None = None

    @property
    def used(self) -> set[str]:
        """All columns that need to be read."""
        return {*self.features, *(name for name in (self.label, self.split, self.site) if name is not None)}


@dataclass(frozen=True)
class Labels:
    """What is to be predicted.

    Parameters
    ----------
    kind
        ``class`` or ``number``.
    names
        Names of the classes, in the order of their numbers.
    values
        For each of the rows asked for, the number of its class, or the number to predict.
    """

    kind: Literal["class", "number"]
    names: tuple[str, ...] | None
    values: Sequence[float]


def assign_roles(names: Sequence[str], dataset: FileDataset, where: str, site: str | None = None) -> Roles:
    """Decide what the columns of a table are for.

    Parameters
    ----------
    names
        The columns of the file.
    dataset
        What the user says about them.
    where
        The file, for messages.
    site
        Column of sites, if anybody asks for it.

    Returns
    -------
    Roles
        Features are those listed, or all but the label, the columns of splits and sites, and those dropped.

    Raises
    ------
    DataError
        If a column that is named does not exist, or no feature is left.
    """
    splits = dataset.splits
    split = splits.column if splits.method != "fraction" else None
    asked = [("label", dataset.label), ("splits.column", split)]
    asked += [("features", name) for name in dataset.features or ()] + [("drop", name) for name in dataset.drop]
    for key, name in asked:
        if name is not None and name not in names:
            raise DataError(f"{where} has no column {name!r}, which dataset.{key} names", hint=nearest(name, names))
    if site is not None and site not in names:
        raise DataError(
            f"{where} has no column {site!r}, which federation.partition.column names", hint=nearest(site, names)
        )
    if dataset.features is not None:
        features = tuple(name for name in dict.fromkeys(dataset.features) if name not in dataset.drop)
        if dataset.label in features:
            raise DataError(
                f"dataset.features holds the label {dataset.label!r}", hint="leave it out of dataset.features"
            )
    else:
        aside = {dataset.label, split, site, *dataset.drop}
        features = tuple(name for name in names if name not in aside)
    if not features:
        raise DataError(
            f"no column of {where} is left to learn from", hint="check dataset.features, dataset.drop and dataset.label"
        )
    return Roles(features, dataset.label, split, site)


def check_feature(column: Column, rows: Sequence[int], place: Callable[[int], str]) -> None:
    """Refuse a column that no module can learn from.

    Raises
    ------
    DataError
        If it holds times, too many different texts, or a number that is not finite.
    """
    hint = f"leave it out (dataset.drop: [{column.name}]) or make numbers of it"
    if column.kind == "time":
        raise DataError(f"column {column.name!r} holds dates or times, which are no features", hint=hint)
    if column.kind == "text":
        if len(column.texts) > MAX_CATEGORIES:
            example = next(text for text in column.texts)
            raise DataError(
                f"column {column.name!r} holds {len(column.texts)} different texts, such as {example!r}: "
                f"more than {MAX_CATEGORIES} are no categories",
                hint=hint,
            )
    elif not isfinite(sum(column.numbers)):
        _refuse_infinite(column, rows, place)


def _refuse_infinite(column: Column, rows: Sequence[int], place: Callable[[int], str]) -> None:
    for row in rows:
        if isinf(column.numbers[row]):
            raise DataError(f"{place(row)}, column {column.name!r}: an infinite number", hint="correct the data")


def read_labels(column: Column, rows: Sequence[int], task: str, place: Callable[[int], str]) -> Labels:
    """Decide what a label predicts, and number its classes.

    Text and truth values are classes. Whole numbers are classes if ``task`` is ``classification``, or if it is
    not given and they are 0..k or 1..k with at most 20 different values. Other numbers are numbers. Classes are
    numbered in the order of their values.

    Parameters
    ----------
    column
        The label; no cell of ``rows`` is empty.
    rows
        Rows to label.
    task
        ``auto``, ``classification``, ``regression`` or ``other``.
    place
        Says where a row is.

    Returns
    -------
    Labels
        One value for each of ``rows``.

    Raises
    ------
    DataError
        If the label does not fit the task.
    """
    if column.kind == "time":
        raise DataError(f"the label {column.name!r} holds dates or times", hint="name another column in dataset.label")
    if column.kind == "text":
        if task == "regression":
            raise DataError(
                f"{place(rows[0])}, column {column.name!r}: {column.texts[column.codes[rows[0]]]!r} is no number, "
                "but task is regression",
                hint="name a numeric column in dataset.label, or set task: classification",
            )
        codes = [column.codes[row] for row in rows]
        order = sorted(set(codes), key=lambda code: column.texts[code])
        return _classes(codes, order, tuple(column.texts[code] for code in order))
    values: list[float] = [column.numbers[row] for row in rows]
    if not isfinite(sum(values)):
        _refuse_infinite(column, rows, place)
    if column.kind == "bool" and task != "regression":
        truths = sorted(set(values))
        return _classes(values, truths, tuple(str(bool(value)) for value in truths))
    whole = all(map(float.is_integer, values))
    if task == "classification":
        if not whole:
            row = next(row for row, value in zip(rows, values, strict=True) if not value.is_integer())
            raise DataError(
                f"{place(row)}, column {column.name!r}: {column.numbers[row]:g} has a fraction, "
                "but task is classification",
                hint="set task: regression, or name another column in dataset.label",
            )
    elif task == "regression" or not whole or not _counted(set(values)):
        return Labels("number", None, array("d", values))
    found = sorted(set(values))
    return _classes(values, found, tuple(number_name(value) for value in found))


def number_name(number: float) -> str:
    """Write a number as a person would: whole ones without a fraction."""
    return str(int(number)) if number.is_integer() else repr(number)


def _counted(found: Collection[float]) -> bool:
    """Tell whether numbers look like classes: all of 0..k or 1..k."""
    return 2 <= len(found) <= _MAX_COUNTED and min(found) in (0, 1) and max(found) - min(found) == len(found) - 1


def _classes(values: Iterable[float], order: Sequence[float], names: tuple[str, ...]) -> Labels:
    number = {value: index for index, value in enumerate(order)}
    return Labels("class", names, array("q", (number[value] for value in values)))


def usable_rows(table: Table, roles: Roles, missing: str) -> Sequence[int]:
    """Find the rows to use, given what an empty cell does.

    Parameters
    ----------
    table
        The rows.
    roles
        Features, label and split column; the empty cells of others do not matter.
    missing
        ``refuse``, ``mean`` or ``drop``.

    Returns
    -------
    sequence of int
        Rows in order.

    Raises
    ------
    DataError
        If a cell is empty that must not be, naming the first and how many there are; or if no row is left.
    """
    out: set[int] = set()
    for name in (*roles.features, roles.label, roles.split):
        if name is None:
            continue
        empty = table.columns[name].missing()
        if missing == "drop":
            out.update(empty)
        elif empty and (missing == "refuse" or name not in roles.features):
            more = f" (and {len(empty) - 1} more in this column)" if len(empty) > 1 else ""
            fill = "set dataset.missing to mean or drop" if name in roles.features else "set dataset.missing to drop"
            raise DataError(
                f"{table.place(empty[0])}, column {name!r}: an empty cell{more}", hint=f"{fill}, or fill it"
            )
        elif len(empty) == table.rows and table.rows:
            raise DataError(f"column {name!r} is empty", hint=f"leave it out (dataset.drop: [{name}])")
    if not out:
        rows: Sequence[int] = range(table.rows)
    else:
        keep = bytearray(b"\1") * table.rows
        for row in out:
            keep[row] = 0
        rows = list(compress(range(table.rows), keep))
    if not rows:
        why = "each has an empty cell" if out else "there are none"
        raise DataError(f"no row is left to learn from: {why}", hint="check the file, and dataset.missing")
    return rows
