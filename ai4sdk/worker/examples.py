"""From what a module takes back to samples as people have them, for examples and golden requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ai4sdk.data.preprocessing import ColumnRule, Preprocessing

__all__ = ["LONGEST", "Samples", "raw_samples"]

LONGEST = 100_000
"""Numbers of a recording in an example; the preprocessing fills up what is short."""

Samples = Sequence[Mapping[str, Any]] | NDArray[Any]
"""Records, or an array whose first axis counts the samples."""


def raw_samples(inputs: NDArray[Any], preprocessing: Preprocessing | None) -> Samples:
    """Undo the preprocessing, as far as an example needs.

    Parameters
    ----------
    inputs
        What the module takes, shape ``(N, ...)``.
    preprocessing
        What made it.

    Returns
    -------
    list of dict or array
        For tables records, with numbers rounded to six digits; for pictures whole numbers in 0..255 of shape
        ``(N, height, width)`` or ``(N, height, width, 3)``; for recordings whole numbers of 16 bits of shape
        ``(N, samples)``, of long ones the beginning; else an array like the inputs.
    """
    if preprocessing is None:
        return inputs
    if preprocessing.kind == "images":
        pixels = np.clip(inputs * 255, 0, 255).round().astype(np.uint8)
        return pixels[:, 0] if pixels.shape[1] == 1 else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    if preprocessing.kind == "audio":
        sounds: NDArray[np.int16] = np.clip(inputs[:, 0, :LONGEST] * 32768, -32768, 32767).round().astype(np.int16)
        return sounds
    if preprocessing.kind == "array":
        if preprocessing.mean is None or preprocessing.std is None:
            return inputs
        raw = inputs * np.asarray(preprocessing.std) + np.asarray(preprocessing.mean)
        return np.array([[_rounded(value) for value in row] for row in raw], np.float32)
    return [_record(row, preprocessing.columns) for row in inputs]


def _record(row: NDArray[Any], rules: Sequence[ColumnRule]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    at = 0
    for rule in rules:
        cells = row[at : at + rule.width]
        at += rule.width
        if rule.kind == "text":
            record[rule.name] = rule.categories[int(cells.argmax())] if rule.width else ""
        elif rule.kind == "bool":
            record[rule.name] = bool(cells[0] >= 0.5)
        else:
            record[rule.name] = _rounded(cells[0] * rule.std + rule.mean)
    return record


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
