"""From JSON and CSV, as protocols carry them, to samples as the model takes them."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from ai4sdk.data.formats import NOUNS
from ai4sdk.errors import DataError
from ai4sdk.serving.contract import Contract
from ai4sdk.serving.question import Refused, refused_data
from ai4sdk.worker.inputs import samples_of_json

__all__ = ["from_csv", "from_json"]


def from_json(value: Any, contract: Contract) -> Any:
    """Return the samples in a JSON body; see `ai4sdk.worker.inputs.samples_of_json` for its forms.

    Raises
    ------
    Refused
        For any other form.
    """
    try:
        samples = samples_of_json(value, "the body")
    except DataError as error:
        raise refused_data(error) from None
    if contract.form == "table":
        return samples
    if contract.form == "audio":
        return [_recording(one, place, contract.rate) for place, one in enumerate(samples, start=1)]
    array = _as_array(samples)
    return _pictures(array) if contract.form == "images" else array


def from_csv(body: bytes | memoryview, contract: Contract) -> Any:
    """Read CSV: records by the names in its header, or, for arrays, rows of numbers below a header.

    Raises
    ------
    Refused
        If it is none, or the model takes no rows.
    """
    if contract.form in NOUNS:
        raise Refused(415, f"the model takes {NOUNS[contract.form]}s, not CSV")
    try:
        text = bytes(body).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(400, f"the body is no CSV in UTF-8: {error}") from None
    if len(rows) < 2:
        raise Refused(400, "the body holds no rows below a header")
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise Refused(400, f"the header has two columns {next(name for name in names if names.count(name) > 1)!r}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise Refused(400, f"row {number} has {len(row)} cells, the header {len(names)}")
    if contract.form == "table":
        return [dict(zip(names, row, strict=True)) for row in rows[1:]]
    try:
        numbers = np.array([[float(cell) for cell in row] for row in rows[1:]])
        return numbers.reshape(len(numbers), *contract.sample_shape)
    except ValueError as error:
        raise Refused(400, f"the rows are no samples of the shape {list(contract.sample_shape)}: {error}") from None


def _as_array(samples: Any) -> Any:
    """Return nested lists of numbers as an array; anything else as it is: the model says what is wrong with it."""
    try:
        array = np.asarray(samples)
    except ValueError:
        return samples
    if array.dtype.kind == "b":
        raise Refused(400, "the samples hold true and false; the model takes numbers")
    return array if array.dtype.kind in "iuf" and array.ndim else samples


def _pictures(array: Any) -> list[Any]:
    """Return pictures that came as nested lists of brightnesses."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.ndim not in (3, 4):
        raise Refused(
            400,
            "the model takes pictures: send one as the body with its type, such as image/png, or whole numbers of the "
            "shape (samples, height, width) or (samples, height, width, 3)",
        )
    if array.size and (array.min() < 0 or array.max() > 255):
        raise Refused(400, "brightnesses of pictures are whole numbers from 0 to 255")
    return list(array.astype(np.uint8))


def _recording(values: Any, place: int, rate: int) -> Any:
    """Return a recording that came as a list of numbers; they may be of different lengths."""
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "iuf" or not array.size:
        raise Refused(
            400,
            f"sample {place} is no recording: send one as the body with its type, such as audio/wav, or lists of "
            f"numbers, {rate} a second, whole ones of 16 bits or fractions from -1 to 1",
        )
    return array
