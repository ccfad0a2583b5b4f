"""From JSON and CSV, as protocols carry them, to samples as the model takes them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ai4sdk.data.formats import NOUNS
from ai4sdk.errors import DataError
from ai4sdk.serving.contract import Contract
from ai4sdk.serving.question import Refused, refused_data
from ai4sdk.worker.inputs import Batch, as_arrays, columns_of, csv_records, samples_of_json

__all__ = ["from_csv", "from_json"]

_BODY = "the body"


def from_json(value: Any, contract: Contract) -> Any:
    """Return the samples in a JSON body; see `ai4sdk.worker.inputs.samples_of_json` for its forms.

    Raises
    ------
    Refused
        For any other form.
    """
    try:
        samples = samples_of_json(value, _BODY)
        if contract.form == "array":
            samples = _by_order(samples, contract)
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
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is no CSV in UTF-8: {error}") from None
    try:
        records = list(csv_records(io.StringIO(text, newline=""), _BODY, _separator(text, contract)))
        if not records:
            raise Refused(400, f"{_BODY} holds no rows below a header")
        if contract.form == "table":
            return records
        return _by_order(records, contract)
    except DataError as error:
        raise refused_data(error) from None


def _by_order(samples: Any, contract: Contract) -> Any:
    """Return records as arrays, by the order of the first one's names; other samples as they are."""
    return as_arrays(Batch(samples, _BODY, columns=columns_of(samples)), contract.sample_shape).samples


def _separator(text: str, contract: Contract) -> str | None:
    """Return a comma where it divides the header into the columns; nothing where the header is to be looked at."""
    head = text.lstrip().partition("\n")[0]
    names = {name.strip(' "\r') for name in head.split(",")}
    return "," if "," in head and contract.columns and names.issuperset(contract.columns) else None


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
