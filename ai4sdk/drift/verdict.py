"""All features of new samples against a reference, corrected for their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ai4sdk.drift.compare import Comparison, compare, compare_missing, holm
from ai4sdk.drift.features import Features
from ai4sdk.drift.reference import Reference
from ai4sdk.drift.sketch import Sketch, Values
from ai4sdk.errors import DataError

__all__ = ["Finding", "Part", "Verdict", "counted", "judge", "p_value"]

Part = Literal["input", "output"]

FEW = 30
"""Fewer samples than this find only large differences."""


@dataclass(frozen=True)
class Finding:
    """One test of one feature.

    Parameters
    ----------
    part
        ``input`` or ``output``.
    name
        The feature.
    of
        ``values``, or ``missing``: how many there are without.
    comparison
        What the test found.
    adjusted
        Its p-value, adjusted for the number of tests.
    drifted
        Whether that is below ``alpha``.
    """

    part: Part
    name: str
    of: Literal["values", "missing"]
    comparison: Comparison
    adjusted: float
    drifted: bool

    def to_json(self) -> dict[str, Any]:
        """Return it flat, ready for JSON."""
        head = {"part": self.part, "name": self.name, "of": self.of, "drift": self.drifted}
        return {**head, **asdict(self.comparison), "adjusted_p": self.adjusted}


@dataclass(frozen=True)
class Verdict:
    """What all tests say together.

    Parameters
    ----------
    alpha
        Largest chance of any false alarm.
    samples
        New samples.
    findings
        Every test, that with the smallest adjusted p-value first.
    notes
        What a reader must know, in sentences.
    """

    alpha: float
    samples: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether any feature differs."""
        return any(finding.drifted for finding in self.findings)

    @property
    def smallest(self) -> float:
        """The smallest adjusted p-value, 1 without a test."""
        return min((finding.adjusted for finding in self.findings), default=1.0)

    def to_json(self) -> dict[str, Any]:
        """Return it as a mapping for JSON."""
        return {
            "drift": self.drifted,
            "alpha": self.alpha,
            "correction": "holm",
            "samples": self.samples,
            "tests": len(self.findings),
            "notes": list(self.notes),
            "findings": [finding.to_json() for finding in self.findings],
        }


def judge(
    reference: Reference,
    inputs: Features,
    outputs: Features,
    *,
    alpha: float,
    notes: tuple[str, ...] = (),
    pause: Callable[[], object] = int,
) -> Verdict:
    """Hold features of new samples against a reference.

    Parameters
    ----------
    reference
        What they are held against; features that only one side has are left out.
    inputs, outputs
        Features of samples and of what the model answers to them.
    alpha
        Largest chance of any false alarm.
    notes
        What is known already that a reader must know.
    pause
        Called after each feature.

    Raises
    ------
    DataError
        If nothing can be compared.
    """
    pairs: list[tuple[Part, str, Sketch, Values]] = [
        *(("input", name, known, values) for name, known, values in _both(reference.inputs, inputs)),
        *(("output", name, known, values) for name, known, values in _both(reference.outputs, outputs)),
    ]
    if not pairs:
        raise DataError(
            "nothing can be compared: the reference and the samples have no feature in common",
            hint="train again with evaluation.drift=all",
        )
    least = alpha / (4 * len(pairs))
    found: list[tuple[Part, str, Literal["values", "missing"], Comparison]] = []
    for part, name, known, values in pairs:
        if (comparison := compare(known, values, least=least)).test != "none":
            found.append((part, name, "values", comparison))
        if (absent := compare_missing(known, values)) is not None:
            found.append((part, name, "missing", absent))
        pause()
    adjusted = _adjusted([(part, comparison.p) for part, *_, comparison in found])
    findings = [Finding(*each, p, p < alpha) for each, p in zip(found, adjusted, strict=True)]
    findings.sort(key=lambda finding: (finding.adjusted, finding.comparison.p, -finding.comparison.distance))
    samples = max(len(values) for *_, values in pairs)
    return Verdict(alpha, samples, tuple(findings), (*notes, *_cautions(samples)))


def _adjusted(found: Sequence[tuple[Part, float]]) -> list[float]:
    """Adjust p-values for their number.

    Samples and answers share the chance of a false alarm by halves, so that answers, which are few and tell most, do
    not vanish among hundreds of features.
    """
    adjusted = [1.0] * len(found)
    parts = {part for part, _ in found}
    for part in parts:
        places = [place for place, (each, _) in enumerate(found) if each == part]
        for place, p in zip(places, holm([found[place][1] for place in places]), strict=True):
            adjusted[place] = min(1.0, p * len(parts))
    return adjusted


def _both(known: Mapping[str, Sketch], values: Features) -> list[tuple[str, Sketch, Values]]:
    return [
        (name, made, values[name])
        for name, made in known.items()
        if name in values and isinstance(values[name], np.ndarray) == made.is_number
    ]


def _cautions(samples: int) -> list[str]:
    if samples >= FEW:
        return []
    show = "shows" if samples == 1 else "show"
    return [f"{counted(samples)} {show} only large differences; that none is found says little."]


def counted(samples: int) -> str:
    """Return so many samples, in words."""
    return f"{samples:,} sample" + ("s" if samples != 1 else "")


def p_value(p: float) -> str:
    """Write a p-value; what is too small for a float is no zero."""
    return f"{p:.2g}" if p > 0 else "under 1e-300"
