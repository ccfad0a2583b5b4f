"""From samples and predictions to features: what is compared, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ai4sdk.data.columns import number_name
from ai4sdk.data.csvfile import EMPTY
from ai4sdk.data.media import read_samples
from ai4sdk.data.notation import Notation
from ai4sdk.data.source import nearest
from ai4sdk.drift.sketch import Values
from ai4sdk.errors import DataError
from ai4sdk.spec import Audio, Images

if TYPE_CHECKING:
    from ai4sdk.worker.prediction import Prediction

__all__ = ["MOST_PLACES", "Features", "Form", "features_of_inputs", "features_of_outputs", "joined"]

Features = dict[str, Values]
"""Values by name of the feature; one value a sample."""

MOST_PLACES = 256
"""Samples with more numbers than this are described by statistics, not place by place."""
MOST_OUTPUTS = 16
_MOST_BITS = 1024
"""A whole number of more is no float, and in the end no text either."""

_OF_SOUNDS = ("level", "clipped", "silence", "spectral centre", "spectral width")
"""Decibels of full scale; share of samples that are as large as goes; share of time in which there is next to nothing;
hertz."""
_PIECES = 100
"""Pieces of a second that are silent or not; a wave is next to nothing whenever it crosses zero."""
_FAINTEST = 1e-5
_SILENT = 1e-3
_CLIPPED = 0.999

Array = NDArray[Any]


@dataclass(frozen=True)
class Form:
    """How features are read from raw samples.

    Parameters
    ----------
    kind
        ``table``: records. ``array``: numbers of one shape. ``images``: pictures.
        ``audio``: recordings.
    columns
        For tables, name and kind (``number``, ``bool`` or ``text``) of each column.
    words
        For tables, texts that elsewhere mean an empty cell, such as ``None``, and are values of a column in training.
    shape
        For arrays, the shape of a sample.
    names
        For arrays, names of the places where samples may be records.
    images
        For pictures, size and mode.
    audio
        For recordings, rate and length.
    notation
        For tables, how cells that are texts are read.
    """

    kind: Literal["table", "array", "images", "audio"]
    columns: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    images: Images | None = None
    audio: Audio | None = None
    notation: Notation = field(default=Notation())

    def to_json(self) -> dict[str, Any]:
        """Return it as a mapping for JSON; `from_json` makes an equal one."""
        made: dict[str, Any] = {"kind": self.kind}
        if self.kind == "table":
            made["columns"] = [{"name": name, "kind": kind} for name, kind in self.columns]
            made |= {"words": list(self.words)} if self.words else {}
            made |= self.notation.to_json()
        if self.kind == "array":
            made["shape"] = list(self.shape)
            made |= {"names": list(self.names)} if self.names else {}
        if (how := self.images or self.audio) is not None:
            made[self.kind] = how.model_dump(mode="json")
        return made

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        DataError
            If it is damaged.
        """
        try:
            kind = value["kind"]
            if kind not in ("table", "array", "images", "audio"):
                raise ValueError(f"kind {kind!r}")
            return cls(
                kind,
                tuple((str(column["name"]), str(column["kind"])) for column in value.get("columns", ())),
                tuple(str(word) for word in value.get("words", ())),
                tuple(int(size) for size in value.get("shape", ())),
                tuple(str(name) for name in value.get("names", ())),
                Images.model_validate(value["images"]) if kind == "images" else None,
                Audio.model_validate(value["audio"]) if kind == "audio" else None,
                Notation.from_json(value),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the drift reference is damaged: its form of inputs: {error}") from error


def features_of_inputs(samples: Any, form: Form) -> Features:
    """Read the features of raw samples.

    Unlike the model this takes cells that are empty or no numbers: they count as missing.

    Parameters
    ----------
    samples
        What the model takes: records, rows, a DataFrame or an array; pictures or recordings, or an array of
        them as the module takes it.
    form
        How to read them.

    Raises
    ------
    DataError
        If a column is missing or the shape does not fit.
    """
    if form.kind == "table":
        return _of_table(samples, form.columns, form.notation, EMPTY.difference(form.words))
    if form.images is not None:
        return _of_pictures(_ready(samples, form.images), form.images)
    if form.audio is not None:
        return _of_recordings(_ready(samples, form.audio), form.audio)
    return _of_array(samples, form)


def features_of_outputs(prediction: Prediction) -> Features:
    """Read the features of predictions: class and confidence of a classifier, else the numbers it gives."""
    if prediction.labels is not None:
        made: Features = {"class": [str(label) or None for label in prediction.labels]}
        if prediction.probabilities is not None:
            made["confidence"] = prediction.probabilities.max(axis=1)
        return made
    rows = np.asarray(prediction.outputs, np.float64)
    rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    width = rows.shape[1]
    if width > MOST_OUTPUTS:
        return _statistics(rows, "output ")
    names = prediction.output_names if len(prediction.output_names) == width else ()
    if not names:
        names = ("output",) if width == 1 else tuple(f"output[{place}]" for place in range(width))
    return {name: rows[:, place] for place, name in enumerate(names)}


def joined(parts: Sequence[Features]) -> Features:
    """Put the features of several batches together."""
    if not parts:
        return {}
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])
        if isinstance(values, np.ndarray)
        else [value for part in parts for value in part[name]]
        for name, values in parts[0].items()
    }


# Tables --------------------------------------------------------------------------------------------------------------


def _of_table(
    samples: Any, columns: Sequence[tuple[str, str]], notation: Notation, empty: AbstractSet[str] = EMPTY
) -> Features:
    names = [name for name, _ in columns]
    cells = _cells(samples, names)
    return {
        name: [_as_text(cell, notation, empty) for cell in cells[name]]
        if kind == "text"
        else np.array([_as_number(cell, notation) for cell in cells[name]], np.float64)
        for name, kind in columns
    }


def _cells(samples: Any, names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Bring samples into one list of cells a column."""
    if hasattr(samples, "columns") and hasattr(samples, "to_dict"):  # a DataFrame, told without importing pandas
        samples = {str(name): samples[name].tolist() for name in samples.columns}
    if isinstance(samples, Mapping):
        if any(isinstance(value, list | tuple | np.ndarray) for value in samples.values()):
            for name in names:
                _require(name, samples, "the samples")
            if len({len(samples[name]) for name in names}) > 1:
                raise DataError("the columns are not of one length", hint="give one cell a sample in each")
            return {name: list(samples[name]) for name in names}
        samples = [samples]
    if isinstance(samples, np.ndarray):
        samples = samples.tolist() if samples.ndim == 2 else [samples.tolist()]
    if not isinstance(samples, Sequence) or isinstance(samples, str | bytes):
        raise DataError(f"samples of type {type(samples).__name__} are no table")
    if samples and not isinstance(samples[0], Mapping | list | tuple | np.ndarray):
        samples = [samples]
    rows = []
    for place, sample in enumerate(samples, start=1):
        if isinstance(sample, Mapping):
            for name in names:
                _require(name, sample, f"sample {place}")
            rows.append([sample[name] for name in names])
        elif isinstance(sample, list | tuple | np.ndarray) and len(sample) == len(names):
            rows.append(list(sample))
        else:
            raise DataError(
                f"sample {place} does not have {len(names)} cells", hint=f"in this order: {', '.join(names[:20])}"
            )
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def _require(name: str, sample: Mapping[str, Any], where: str) -> None:
    if name not in sample:
        raise DataError(f"{where} has no column {name!r}", hint=nearest(name, [str(key) for key in sample]))


def _as_text(cell: Any, notation: Notation, empty: AbstractSet[str]) -> str | None:
    cell = _plain(cell)
    if cell is None or (isinstance(cell, str) and cell.strip() in empty) or notation.is_missing(cell):
        return None
    return number_name(cell) if isinstance(cell, float) and math.isfinite(cell) else str(cell).strip()


def _as_number(cell: Any, notation: Notation) -> float:
    cell = _plain(cell)
    if notation.is_missing(cell):
        return float("nan")
    if isinstance(cell, str):
        text = cell.strip().lower()
        if text in ("true", "false"):
            return float(text == "true")
        number = notation.number(text)
        return float("nan") if number is None else number
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _plain(cell: Any) -> Any:
    """Return what is in a cell as Python's own, ``None`` where there is nothing or something that is no cell's."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if not isinstance(cell, str | bool | int | float):
        try:
            return None if cell is None or cell != cell else str(cell)
        except (TypeError, ValueError):  # pandas's NA, an array
            return None
    if isinstance(cell, float) and cell != cell:
        return None
    return None if isinstance(cell, int) and cell.bit_length() > _MOST_BITS else cell


# Arrays --------------------------------------------------------------------------------------------------------------


def _of_array(samples: Any, form: Form) -> Features:
    if form.names and not isinstance(samples, np.ndarray):
        if not isinstance(samples, Sequence) and not hasattr(samples, "columns"):
            samples = [samples]
        first = samples[0] if isinstance(samples, Sequence) and len(samples) else None
        if isinstance(first, Mapping) or hasattr(samples, "columns"):
            return _of_table(samples, [(name, "number") for name in form.names], Notation())
    hint = f"give numbers in the shape {form.shape}, such as numpy.save writes"
    if isinstance(samples, Sequence) and len(samples) and isinstance(samples[0], Mapping | str | bytes):
        kind = "records" if isinstance(samples[0], Mapping) else "texts or pictures"
        raise DataError(f"the samples are {kind}, the reference is of arrays", hint=hint)
    try:
        values = np.asarray(samples, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"the samples are no array of numbers: {error}", hint=hint) from None
    if values.shape == form.shape:
        values = values[None]
    if form.shape == (1,) and values.ndim == 1:
        values = values[:, None]
    if values.shape[1:] != form.shape:
        raise DataError(
            f"samples of shape {values.shape[1:]} do not fit: the reference is of {form.shape}",
            hint="give samples as the model takes them",
        )
    if math.prod(form.shape) <= MOST_PLACES:
        rows = values.reshape(len(values), math.prod(form.shape))
        names = form.names if len(form.names) == rows.shape[1] else _place_names(form.shape)
        return {name: rows[:, place] for place, name in enumerate(names)}
    made = _statistics(values.reshape(len(values), math.prod(form.shape)), "")
    if len(form.shape) == 3 and 1 < form.shape[0] <= 4:
        with np.errstate(all="ignore"):
            means = values.mean(axis=(2, 3))
        made |= {f"mean of channel {channel}": means[:, channel] for channel in range(form.shape[0])}
    return made


def _place_names(shape: tuple[int, ...]) -> list[str]:
    return [f"x[{','.join(map(str, place))}]" if place else "x" for place in np.ndindex(*shape)]


def _statistics(rows: NDArray[np.float64], prefix: str) -> Features:
    with np.errstate(all="ignore"):
        made = {"mean": rows.mean(axis=1), "deviation": rows.std(axis=1)}
        made |= {"smallest": rows.min(axis=1), "largest": rows.max(axis=1)}
    return {f"{prefix}{name}": values for name, values in made.items()}


# Pictures and recordings ---------------------------------------------------------------------------------------------


def _ready(samples: Any, how: Images | Audio) -> NDArray[np.float32]:
    """Read samples, unless they are as the module takes them."""
    if isinstance(samples, np.ndarray) and samples.dtype.kind == "f" and samples.shape[1:] == how.shape:
        return np.asarray(samples, np.float32)
    return read_samples(samples, how)


def _of_pictures(pixels: NDArray[np.float32], how: Images) -> Features:
    channels, height, width = how.shape
    with np.errstate(all="ignore"):
        grey = pixels.mean(axis=1, dtype=np.float64)
        across = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2)) if width > 1 else np.zeros(len(grey))
        down = np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) if height > 1 else np.zeros(len(grey))
        made: Features = {
            "brightness": grey.mean(axis=(1, 2)),
            "contrast": grey.std(axis=(1, 2)),
            "sharpness": across + down,
        }
        if channels == 3:
            means = pixels.mean(axis=(2, 3), dtype=np.float64)
            made |= {colour: means[:, place] for place, colour in enumerate(("red", "green", "blue"))}
            made["colourfulness"] = pixels.std(axis=1, dtype=np.float64).mean(axis=(1, 2))
    return made


def _of_recordings(sounds: NDArray[np.float32], how: Audio) -> Features:
    """Describe loudness and tone; a silent recording has no tone, which is missing."""
    found = [_of_sound(sound, how.rate) for sound in sounds[:, 0]]
    return {name: np.array([row[place] for row in found], np.float64) for place, name in enumerate(_OF_SOUNDS)}


def _of_sound(sound: NDArray[np.float32], rate: int) -> tuple[float, ...]:
    size = np.abs(sound)
    peaks = np.maximum.reduceat(size, np.arange(0, len(size), max(1, rate // _PIECES)))
    level = 20 * np.log10(max(float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))), _FAINTEST))
    power = np.square(np.abs(np.fft.rfft(sound)), dtype=np.float64)
    power[0] = 0  # a constant is not heard
    total = power.sum()
    if total <= len(sound) * _FAINTEST**2:
        centre = width = float("nan")
    else:
        pitches = np.fft.rfftfreq(len(sound), 1 / rate)
        centre = float((power * pitches).sum() / total)
        width = float(np.sqrt((power * np.square(pitches - centre)).sum() / total))
    return level, float((size >= _CLIPPED).mean()), float((peaks < _SILENT).mean()), centre, width
