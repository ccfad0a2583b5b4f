"""What a run came to, in the terms of a study's objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.store import read_progress
from ai4sdk.studies.point import Objective

__all__ = ["NOTHING_MEASURED", "first_objective", "known_figures", "values_of"]

NOTHING_MEASURED = "no point has what is to be optimised"
"""How a study ends that asked for an objective nothing has."""

_USUAL = {
    "accuracy": "max",
    "rmse": "min",
    "value": "min",
}
"""Figures that a study without an objective is sorted by, in order of preference."""


def known_figures(run: RunPaths) -> dict[str, float]:
    """Return every figure of a run by name: the last value of each metric, and those of the evaluation.

    Where both have a name the metric comes first: it is the one that can be watched while training.
    """
    scores = _read(run.scores)
    figures = {**scores, **(scores["scores"] if isinstance(scores.get("scores"), dict) else {})}
    figures |= read_progress(run).get("metrics") or {}
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def values_of(run: RunPaths, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """Return the values of a run that has succeeded.

    Of the metric by which the run chose its best weights the best value counts, not the last.

    Parameters
    ----------
    run
        The run.
    objectives
        What to look for.

    Returns
    -------
    tuple of float or None
        A value for each objective; ``None`` if one is missing.
    """
    figures = known_figures(run)
    fitted = _read(run.checkpoints / "fit.json")
    if isinstance(monitor := fitted.get("monitor"), str) and isinstance(best := fitted.get("best"), int | float):
        figures[monitor] = float(best)
    if not objectives or any(objective.name not in figures for objective in objectives):
        return None
    return tuple(figures[objective.name] for objective in objectives)


def first_objective(run: RunPaths) -> Objective | None:
    """Return what a study without an objective is sorted by, judging by its first run that succeeded."""
    figures = known_figures(run)
    for name, direction in _USUAL.items():
        if name in figures:
            return Objective(name, direction)  # type: ignore[arg-type] # min or max, see above
    return None


def _read(path: Any) -> dict[str, Any]:
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
