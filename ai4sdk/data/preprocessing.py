"""From raw samples to what a module takes, as measured on the training split; kept with the model as JSON."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ai4sdk.data.columns import Column, number_name
from ai4sdk.data.csvfile import EMPTY
from ai4sdk.data.media import read_samples
from ai4sdk.data.notation import Notation
from ai4sdk.data.source import nearest
from ai4sdk.data.study import TableStudy
from ai4sdk.errors import DataError
from ai4sdk.spec import Audio, Images

__all__ = ["ColumnRule", "Preprocessing", "files_rules", "fit_array", "fit_table"]

log = logging.getLogger(__name__)

FORMAT = 1

Array32 = NDArray[np.float32]


@dataclass(frozen=True)
class ColumnRule:
    """What is done to one column.

    Parameters
    ----------
    name
        The column.
    kind
        ``number``, ``bool`` or ``text``.
    mean, std
        A number becomes ``(number - mean) / std``.
    categories
        A text becomes one input a category, 1 for its own and 0 for the others.
    fill
        What an empty cell becomes first; without it an empty cell is refused.
    """

    name: str
    kind: Literal["number", "bool", "text"]
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()
    fill: float | str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs the column becomes."""
        if self.kind == "text":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name,)

    @property
    def width(self) -> int:
        """Number of inputs the column becomes."""
        return len(self.categories) if self.kind == "text" else 1


@dataclass(frozen=True)
class Preprocessing:
    """From raw samples to the array a module takes, and back to names of classes.

    Parameters
    ----------
    kind
        ``table`` (records), ``array``, ``images`` (pictures) or ``audio`` (recordings).
    shape
        Shape of a sample as the module takes it.
    task
        ``classification``, ``regression`` or ``other``.
    columns
        For tables, what is done to each column.
    mean, std, fill
        For arrays of one axis a sample, what is done to each place; nothing leaves them as they are.
    images
        For pictures, size and mode.
    audio
        For recordings, rate and length.
    label
        Name of what is predicted.
    class_names
        Names of the classes, in the order of their numbers.
    notation
        For tables, how cells that are texts are read. It is not compared: sites whose files are written otherwise
        train alike.
    """

    kind: Literal["table", "array", "images", "audio"]
    shape: tuple[int, ...]
    task: str = "other"
    columns: tuple[ColumnRule, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fill: tuple[float, ...] | None = None
    images: Images | None = None
    audio: Audio | None = None
    label: str | None = None
    class_names: tuple[str, ...] | None = None
    notation: Notation = field(default=Notation(), compare=False)
    _warned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def column_names(self) -> list[str] | None:
        """Columns a record must have; nothing where samples are no records."""
        return [column.name for column in self.columns] if self.kind == "table" else None

    @property
    def input_names(self) -> list[str] | None:
        """Names of the module's inputs, for tables."""
        return [name for column in self.columns for name in column.inputs] if self.kind == "table" else None

    @property
    def media(self) -> Images | Audio | None:
        """How pictures or recordings are read; nothing for other samples."""
        return self.images or self.audio

    def transform(self, inputs: Any) -> Array32:
        """Turn raw samples into what the module takes.

        Parameters
        ----------
        inputs
            For tables: records, rows in the order of the columns, a 2-D array, a mapping of columns, or a DataFrame;
            also a single record or row. For arrays: an array of samples, or one sample. For pictures and
            recordings: paths, bytes, Pillow images or arrays, one or several.

        Returns
        -------
        array
            Shape (samples, *shape), float32.

        Raises
        ------
        DataError
            If a column is missing or a cell does not fit, naming it and the nearest column there is.
        """
        if self.kind == "table":
            return self.encode(self._cells(inputs))
        if self.kind == "array":
            return self._scaled(inputs)
        assert self.media is not None
        return read_samples(inputs, self.media)

    def encode(self, cells: Mapping[str, Column]) -> Array32:
        """Turn columns of cells into inputs; see `transform`."""
        rows = len(cells[self.columns[0].name])
        out = np.zeros((rows, sum(column.width for column in self.columns)), np.float32)
        at = 0
        for rule in self.columns:
            if rule.kind == "text":
                self._one_hot(rule, cells[rule.name], out[:, at : at + rule.width])
            else:
                with np.errstate(over="ignore"):  # told below, with the column's name
                    out[:, at] = _numbers(rule, cells[rule.name])
            at += rule.width
        if not np.isfinite(out).all():
            place = int(np.argwhere(~np.isfinite(out))[0][1])
            raise DataError(
                f"column {(self.input_names or [])[place]!r} holds numbers too large for float32", hint="rescale it"
            )
        return out

    def to_json(self) -> dict[str, Any]:
        """Return it as a mapping for JSON; `from_json` makes an equal one."""
        made: dict[str, Any] = {"format": FORMAT, "kind": self.kind, "shape": list(self.shape), "task": self.task}
        if self.columns:
            made["columns"] = [_rule_to_json(rule) for rule in self.columns]
        for name in ("mean", "std", "fill", "class_names"):
            if (value := getattr(self, name)) is not None:
                made[name] = list(value)
        if self.media is not None:
            made[self.kind] = self.media.model_dump()
        if self.label is not None:
            made["label"] = self.label
        return made | self.notation.to_json()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        DataError
            If it is damaged or of a later format.
        """
        if value.get("format") != FORMAT:
            raise DataError(
                f"the preprocessing has format {value.get('format')!r}, this ai4sdk reads {FORMAT}",
                hint="use the ai4sdk that made it, or a later one",
            )
        try:
            lists = {
                name: tuple(value[name]) if value.get(name) is not None else None
                for name in ("mean", "std", "fill", "class_names")
            }
            return cls(
                kind=value["kind"],
                shape=tuple(value["shape"]),
                task=value["task"],
                columns=tuple(
                    ColumnRule(**{**rule, "categories": tuple(rule.get("categories", ()))})
                    for rule in value.get("columns", ())
                ),
                images=Images.model_validate(value["images"]) if "images" in value else None,
                audio=Audio.model_validate(value["audio"]) if "audio" in value else None,
                label=value.get("label"),
                notation=Notation.from_json(value),
                **lists,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the preprocessing is damaged: {error}", hint="make the model package again") from error

    def _one_hot(self, rule: ColumnRule, cells: Column, out: Array32) -> None:
        column = cells.as_text()
        number = {category: index for index, category in enumerate(rule.categories)}
        if rule.fill is None and (empty := column.missing()):
            raise _empty_cell(rule.name, empty[0])
        known = np.array([number.get(text, -1) for text in column.texts] + [number.get(str(rule.fill), -1)], np.int64)
        codes = np.frombuffer(column.codes, dtype=f"i{column.codes.itemsize}") if len(column) else np.empty(0, np.int64)
        places = known[codes]  # an empty cell has code -1, the last place, which is that of the fill value
        rows = np.flatnonzero(places >= 0)
        out[rows, places[rows]] = 1.0
        if len(rows) < len(places) and rule.name not in self._warned:
            self._warned.add(rule.name)
            row = int(np.flatnonzero(places < 0)[0])
            log.warning(
                "column %r: %r is in no sample of the training split; all inputs of the column are 0 for such samples",
                rule.name,
                column.texts[column.codes[row]],
            )

    def _cells(self, inputs: Any) -> dict[str, Column]:
        """Bring raw samples into columns of cells."""
        names = [rule.name for rule in self.columns]
        if hasattr(inputs, "columns") and hasattr(inputs, "to_dict"):
            inputs = {str(name): inputs[name].tolist() for name in inputs.columns}
        if isinstance(inputs, Mapping):
            is_columns = any(isinstance(value, list | tuple | np.ndarray) for value in inputs.values())
            if not is_columns:
                inputs = [inputs]
            else:
                for name in names:
                    self._require(name, inputs, "the samples")
                lengths = {len(inputs[name]) for name in names}
                if len(lengths) > 1:
                    raise DataError("the columns are not of one length", hint="give one cell a sample in each")
                return {rule.name: _column(rule, list(inputs[rule.name]), self.notation) for rule in self.columns}
        if isinstance(inputs, np.ndarray):
            inputs = inputs.tolist() if inputs.ndim == 2 else [inputs.tolist()]
        if not isinstance(inputs, Sequence) or isinstance(inputs, str | bytes):
            raise DataError(
                f"samples of type {type(inputs).__name__} are no table",
                hint=f"give records with {', '.join(map(repr, names[:8]))}",
            )
        if inputs and not isinstance(inputs[0], Mapping | list | tuple | np.ndarray):
            inputs = [inputs]
        rows = [self._row(sample, place, names) for place, sample in enumerate(inputs, start=1)]
        return {
            rule.name: _column(rule, [row[index] for row in rows], self.notation)
            for index, rule in enumerate(self.columns)
        }

    def _row(self, sample: Any, place: int, names: list[str]) -> list[Any]:
        if isinstance(sample, Mapping):
            for name in names:
                self._require(name, sample, f"sample {place}")
            return [sample[name] for name in names]
        if not isinstance(sample, list | tuple | np.ndarray) or len(sample) != len(names):
            count = f"{len(sample)} cells" if hasattr(sample, "__len__") else f"type {type(sample).__name__}"
            raise DataError(
                f"sample {place} has {count}, but the model takes {len(names)} columns",
                hint=f"in this order: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}",
            )
        return list(sample)

    def _require(self, name: str, sample: Mapping[str, Any], where: str) -> None:
        if name not in sample:
            spare = [str(key) for key in sample if key not in {rule.name for rule in self.columns}]
            raise DataError(
                f"{where} has no column {name!r}",
                hint=nearest(name, spare) if spare else f"add it; all of {len(self.columns)} columns are needed",
            )

    def _scaled(self, inputs: Any) -> Array32:
        try:
            with np.errstate(over="ignore"):  # told below, with the sample's number
                values = np.asarray(inputs, dtype=np.float64 if self.mean is not None else np.float32)
        except (ValueError, TypeError) as error:
            raise DataError(f"the samples are no array of numbers: {error}", hint=_shape_hint(self.shape)) from None
        if values.shape == self.shape:
            values = values[None]
        if self.shape == (1,) and values.ndim == 1:
            values = values[:, None]
        if values.shape[1:] != self.shape:
            raise DataError(
                f"samples of shape {values.shape[1:]} do not fit: the model takes {self.shape}",
                hint=_shape_hint(self.shape),
            )
        empty = np.isnan(values)
        if empty.any():
            if self.fill is None:
                raise DataError(
                    f"sample {int(np.argwhere(empty)[0][0]) + 1} holds a value that is no number", hint="fill it"
                )
            values = np.where(empty, np.asarray(self.fill), values)
        if self.mean is not None and self.std is not None:
            values = (values - np.asarray(self.mean)) / np.asarray(self.std)
        with np.errstate(over="ignore"):
            scaled = np.ascontiguousarray(values, dtype=np.float32)
        if not np.isfinite(scaled).all():
            raise DataError(
                f"sample {int(np.argwhere(~np.isfinite(scaled))[0][0]) + 1} holds a number too large for float32",
                hint="rescale it",
            )
        return scaled


def files_rules(how: Images | Audio, task: str, class_names: tuple[str, ...] | None) -> Preprocessing:
    """Return what is done to pictures or recordings, which nothing is measured for."""
    if isinstance(how, Images):
        return Preprocessing("images", how.shape, task, images=how, class_names=class_names)
    return Preprocessing("audio", how.shape, task, audio=how, class_names=class_names)


def fit_table(
    found: TableStudy, *, standardize: bool, missing: str, task: str, label: str | None, notation: Notation
) -> Preprocessing:
    """Measure a table's training split.

    Parameters
    ----------
    found
        The table, wholly read.
    standardize
        Whether numbers are scaled to mean 0 and deviation 1.
    missing
        With ``mean``, empty cells become the training mean, or the most frequent category.
    task
        What is predicted.
    label
        The column to predict.
    notation
        How the table's files are written.

    Returns
    -------
    Preprocessing
        Whose inputs are those of ``found.features``.

    Raises
    ------
    DataError
        If a column is empty in the whole training split.
    """
    assert found.splits is not None
    training = np.asarray(found.rows)[found.splits["train"]]
    rules = []
    for feature in found.features:
        column = found.table.columns[feature.name]
        if feature.kind == "text":
            rules.append(_fit_text(column, feature.categories, training, missing))
        else:
            rules.append(_fit_number(column, training, standardize=standardize, missing=missing))
    names = found.labels.names if found.labels else None
    width = sum(rule.width for rule in rules)
    return Preprocessing("table", (width,), task, tuple(rules), label=label, class_names=names, notation=notation)


def fit_array(
    training: NDArray[Any],
    *,
    standardize: bool,
    missing: str,
    task: str,
    label: str | None,
    names: tuple[str, ...] | None,
) -> Preprocessing:
    """Measure the training split of an array.

    Parameters
    ----------
    training
        Samples along the first axis; scaled and filled only if there is one more axis.
    standardize, missing, task, label
        See `fit_table`.
    names
        Names of the classes.

    Returns
    -------
    Preprocessing
        For samples of this shape.
    """
    shape = tuple(training.shape[1:])
    mean = std = fill = None
    if training.ndim == 2:
        wide = training.astype(np.float64)
        empty = np.isnan(wide)
        if empty.all(axis=0).any():
            place = int(np.flatnonzero(empty.all(axis=0))[0])
            raise DataError(f"feature {place + 1} has no value in the training split", hint="leave it out")
        if missing == "mean":
            fill = tuple(np.nanmean(wide, axis=0).tolist())
        if standardize:
            mean = tuple(np.nanmean(wide, axis=0).tolist())
            std = tuple(_deviation(np.nanstd(wide, axis=0), np.asarray(mean)).tolist())
    return Preprocessing("array", shape, task, mean=mean, std=std, fill=fill, label=label, class_names=names)


def _fit_text(column: Column, categories: tuple[str, ...], training: NDArray[Any], missing: str) -> ColumnRule:
    fill = None
    if missing == "mean":
        counts = Counter(column.texts[code] for row in training if (code := column.codes[row]) >= 0)
        if not counts:
            raise _empty_in_training(column.name)
        fill = min(counts, key=lambda text: (-counts[text], text))
    return ColumnRule(column.name, "text", categories=categories, fill=fill)


def _fit_number(column: Column, training: NDArray[Any], *, standardize: bool, missing: str) -> ColumnRule:
    cells = np.frombuffer(column.numbers)[training]
    cells = cells[~np.isnan(cells)]
    if not len(cells):
        raise _empty_in_training(column.name)
    if column.kind == "bool":
        return ColumnRule(column.name, "bool", fill=float(cells.mean() >= 0.5) if missing == "mean" else None)
    mean = float(cells.mean())
    fill = mean if missing == "mean" else None
    if not standardize:
        return ColumnRule(column.name, "number", fill=fill)
    return ColumnRule(column.name, "number", mean, float(_deviation(cells.std(), mean)), fill=fill)


def _deviation(std: Any, mean: Any) -> Any:
    """Return deviations to divide by: 1 for what never changes but for rounding."""
    return np.where(np.asarray(std) > 1e-13 * np.abs(mean), std, 1.0)


def _numbers(rule: ColumnRule, cells: Column) -> NDArray[np.float64]:
    numbers = np.frombuffer(cells.numbers) if len(cells) else np.empty(0)
    empty = np.isnan(numbers)
    if empty.any():
        if rule.fill is None:
            raise _empty_cell(rule.name, int(np.flatnonzero(empty)[0]))
        numbers = np.where(empty, float(rule.fill), numbers)
    return (numbers - rule.mean) / rule.std


def _column(rule: ColumnRule, cells: list[Any], notation: Notation) -> Column:
    """Read cells as a user gives them: numbers, texts, truth values, or nothing."""
    column = Column(rule.name, rule.kind)
    codes: dict[str, int] = {}
    empty = EMPTY.difference(rule.categories)
    for place, cell in enumerate(cells):
        if hasattr(cell, "item") and not isinstance(cell, str):
            cell = cell.item()
        blank = (
            cell is None
            or cell != cell
            or (isinstance(cell, str) and cell.strip() in empty)
            or notation.is_missing(cell)
        )
        if rule.kind == "text":
            text = "" if blank else _as_text(cell)
            column.codes.append(-1 if blank else codes.setdefault(text, len(codes)))
        else:
            number = float("nan") if blank else _as_number(cell, rule, notation)
            if number is None or number in (float("inf"), float("-inf")):
                written = f", with {notation.decimal!r} before the fraction" if notation.decimal != "." else ""
                raise DataError(
                    f"sample {place + 1}, column {rule.name!r}: {cell!r} is no number",
                    hint=f"give a number{written}" if rule.kind == "number" else "give true or false",
                )
            column.numbers.append(number)
    column.texts = list(codes)
    return column


def _as_text(cell: Any) -> str:
    if isinstance(cell, float):
        return number_name(cell)
    return str(cell).strip()


def _as_number(cell: Any, rule: ColumnRule, notation: Notation) -> float | None:
    if isinstance(cell, str):
        text = cell.strip().lower()
        if rule.kind == "bool" and text in ("true", "false"):
            return float(text == "true")
        return notation.number(text)
    return float(cell) if isinstance(cell, int | float) else None


def _rule_to_json(rule: ColumnRule) -> dict[str, Any]:
    made: dict[str, Any] = {"name": rule.name, "kind": rule.kind}
    if rule.kind == "number":
        made |= {"mean": rule.mean, "std": rule.std}
    if rule.kind == "text":
        made["categories"] = list(rule.categories)
    if rule.fill is not None:
        made["fill"] = rule.fill
    return made


def _empty_cell(name: str, row: int) -> DataError:
    return DataError(
        f"sample {row + 1}, column {name!r}: an empty cell, and the model was trained without any",
        hint="fill it, or train with dataset.missing: mean",
    )


def _empty_in_training(name: str) -> DataError:
    return DataError(
        f"column {name!r} is empty in the whole training split",
        hint=f"leave it out (dataset.drop: [{name}]), or divide the data otherwise",
    )


def _shape_hint(shape: tuple[int, ...]) -> str:
    return f"give an array of shape (samples, {', '.join(map(str, shape))})"
