"""How a served model is watched for drift."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ai4sdk.spec.base import Section

__all__ = ["DriftWatching", "Frouros"]


class Frouros(Section):
    """Frouros's detectors, in a process and environment of their own: its requirements and ours exclude one another."""

    python: str
    """Interpreter of that environment (``python -m venv frouros && frouros/bin/pip install frouros``)."""

    detectors: dict[str, dict[str, Any]] = {"KSTest": {}}
    """Name → options. Those that see one value after the other (``ADWIN``, ``DDM``, ...), tests of windows (``KSTest``,
    ``CVMTest``, ...) and distances of windows (``PSI``, ``JS``, ...), which are told but have no threshold."""


class DriftWatching(Section):
    """Which detectors look at what is asked and answered, beside the answering."""

    detectors: list[Literal["windows", "adwin", "kswin", "page_hinkley"]] = ["windows"]
    """``windows`` holds so many samples at a time against the reference in the model package; the others are river's
    (``pip install 'ai4sdk[drift]'``) and look at numbers one by one."""

    window: int = Field(default=250, ge=20, le=100_000)
    """Samples in a window."""

    alpha: float = Field(default=0.01, ge=1e-6, le=0.5)
    """Largest chance that a window is called a warning, over all features, and with that of its neighbour drift."""

    frouros: Frouros | None = None
    """Further detectors, of the features that ``streams`` names."""

    streams: list[str] | None = None
    """Features whose numbers river's detectors look at; by default those of the answers."""

    queue: int = Field(default=256, ge=1, le=100_000)
    """Batches that may wait; further ones are dropped and counted."""

    load: float = Field(default=0.02, gt=0.0, le=1.0)
    """Largest part of a core that watching takes; where that is not enough batches are dropped."""
