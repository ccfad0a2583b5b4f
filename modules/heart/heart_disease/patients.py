"""The data of each hospital, prepared alike without anybody having seen that of another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from heart_disease.records import RECORDS

HOSPITALS = tuple(RECORDS)
"""Hospitals in Cleveland, Budapest, Zurich and Basel, and Long Beach."""

FEATURES = (
    *("age", "male", "typical angina", "atypical angina", "pain without angina", "no pain", "blood pressure"),
    *("ST-T abnormal", "hypertrophy", "heart rate", "angina when exercised", "ST depression"),
)
"""What a patient is described by."""

_USUAL = (55.0, 1.0, 4.0, 130.0, 0.0, 140.0, 0.0, 0.5)
"""What is taken for a value that was not recorded. Fixed, so that no hospital needs to know of another's patients."""


class Patients(Dataset[tuple[Tensor, Tensor]]):
    """Patients of one hospital, or of all.

    Attributes
    ----------
    inputs
        Shape (patients, 12), float32; ages and measurements in decades, 20 mmHg, 25 beats a minute, from what is usual.
    targets
        1 where a vessel of the heart is narrowed by half or more, else 0; shape (patients,), int64.
    hospital
        Of each patient.
    """

    def __init__(self, rows: list[list[str]], hospital: list[str]) -> None:
        self.inputs = torch.tensor([_features(row) for row in rows])
        self.targets = torch.tensor([int(float(row[-1]) > 0) for row in rows])
        self.hospital = hospital

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


def patients(hospital: str | None = None) -> Patients:
    """Return the patients of a hospital, by default those of all.

    Parameters
    ----------
    hospital
        ``cleveland``, ``hungary``, ``switzerland`` or ``long_beach``.

    Raises
    ------
    ValueError
        If there is no such hospital.
    """
    if hospital is not None and hospital not in RECORDS:
        raise ValueError(f"there is no hospital {hospital!r}; there are {', '.join(HOSPITALS)}")
    rows = [(name, row.split(",")) for name in HOSPITALS if hospital in (None, name) for row in RECORDS[name].split()]
    return Patients([row for _, row in rows], [name for name, _ in rows])


def _features(row: list[str]) -> list[float]:
    values = [float(text) if text else usual for text, usual in zip(row, _USUAL, strict=False)]
    age, male, pain, pressure, ecg, rate, angina, depression = values
    pains = [float(pain == kind) for kind in (1, 2, 3, 4)]
    ecgs = [float(ecg == kind) for kind in (1, 2)]
    return [(age - 55) / 10, male, *pains, (pressure - 130) / 20, *ecgs, (rate - 140) / 25, angina, depression]
