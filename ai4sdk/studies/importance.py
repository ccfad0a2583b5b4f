"""How much each axis matters for an objective, as fANOVA judges it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ai4sdk.studies.axes import all_axes, as_number, value_key
from ai4sdk.studies.point import PointState, Result, StudyView
from ai4sdk.studies.results import objective_value
from ai4sdk.studies.samplers import quiet

__all__ = ["Importances", "find_importances"]

FEWEST = 5
"""With fewer points anything could look important."""
MOST = 300
"""fANOVA's time grows with the square of the points; so many take about a second and say the same as more."""
TREES = 32


@dataclass(frozen=True)
class Importances:
    """How much each axis matters.

    Parameters
    ----------
    values
        Axis → share of the objective's variance that this axis alone explains, as a share of what all of them explain
        alone; the largest first. Together they are 1; empty if nothing can be said.
    note
        Why nothing can be said, or which axes were left out.
    """

    values: dict[str, float] = field(default_factory=dict)
    note: str | None = None


def find_importances(view: StudyView, objective: int = 0) -> Importances:
    """Judge how much each axis matters for an objective, by the points that succeeded.

    Parameters
    ----------
    view
        The study.
    objective
        Which objective, counted from 0.

    Returns
    -------
    Importances
        The same for the same points. Axes that some points lack are left out, as fANOVA cannot judge them.
    """
    if objective >= len(view.objectives):
        return Importances(note="The study has no objective.")
    done = [
        result
        for result in view.results
        if result.state is PointState.SUCCEEDED and as_number(objective_value(result, objective)) is not None
    ]
    if len(done) < FEWEST:
        return Importances(note=f"It takes {FEWEST} points that succeeded to say what matters; there are {len(done)}.")
    if len(done) > MOST:
        done = random.Random(0).sample(done, MOST)
    targets = _scaled([objective_value(result, objective) for result in done])
    if len(set(targets)) == 1:
        return Importances(note=f"All points have the same {view.objectives[objective].name}.")
    axes, absent = _judgeable(all_axes(view), done)
    note = f"Left out, as some points lack them: {', '.join(absent)}." if absent else None
    columns = {axis: _positions([result.point.params[axis] for result in done]) for axis in axes}
    if not any(len(set(column)) > 1 for column in columns.values()):
        return Importances(note=note or "No axis has more than one value.")
    found = _fanova(columns, targets)
    total = sum(found.values())
    if not total > 0:
        return Importances(note="The values do not depend on any axis.")
    shares = {axis: value / total for axis, value in found.items()}
    return Importances(dict(sorted(shares.items(), key=lambda item: (-item[1], item[0]))), note)


def _judgeable(axes: Sequence[str], done: Sequence[Result]) -> tuple[list[str], list[str]]:
    """Return the axes that all points have, and those that only some have."""
    often = {axis: sum(axis in result.point.params for result in done) for axis in axes}
    return [axis for axis in axes if often[axis] == len(done)], [axis for axis in axes if 0 < often[axis] < len(done)]


def _scaled(targets: Sequence[float]) -> list[float]:
    """Bring values to 0..1, where no square is beyond a float; importance does not change by it."""
    least, most = min(targets), max(targets)
    if most == least:
        return [0.0 for _ in targets]
    span = most / 2 - least / 2
    return [(value / 2 - least / 2) / span if span else float(value == most) for value in targets]


def _positions(values: Sequence[Any]) -> list[float]:
    """Return the place of each value among the different ones, in 0..1.

    So each value that was tried counts alike, whatever the scale: 0.001, 0.01 and 0.1 as well as ``adam`` and ``sgd``.
    Optuna's own categories would not do: fANOVA goes through all subsets of them, which takes forever from 20 on.
    """
    numbers = [as_number(value) for value in values]
    keys: list[Any] = [value_key(value) for value in values] if None in numbers else numbers
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    return [(places[key] + 0.5) / len(places) for key in keys]


def _fanova(columns: dict[str, list[float]], targets: Sequence[float]) -> dict[str, float]:
    """Return each column's importance as Optuna's evaluator finds it; all 0 where it finds no variance at all."""
    import optuna

    # A column of one value is the same everywhere; Optuna wants to be told so by its distribution.
    distributions: dict[str, Any] = {
        axis: optuna.distributions.FloatDistribution(*((0.0, 1.0) if len(set(column)) > 1 else (0.5, 0.5)))
        for axis, column in columns.items()
    }
    trials = [
        optuna.trial.create_trial(
            params={axis: column[row] for axis, column in columns.items()}, distributions=distributions, value=target
        )
        for row, target in enumerate(targets)
    ]
    with quiet():
        study = optuna.create_study()
        study.add_trials(trials)
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
        try:
            # Not normalised by Optuna, which makes all alike where nothing matters.
            found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
        except RuntimeError:
            # How it says that no tree found anything to split by: points of the same parameters and different values.
            return dict.fromkeys(columns, 0.0)
    return {axis: float(value) for axis, value in found.items()}
