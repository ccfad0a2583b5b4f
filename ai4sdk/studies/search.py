"""Which point comes next: grids, drawn points, and Optuna's samplers and pruners.

Optuna's study lives in memory and is rebuilt from the ledger: one record of what happened, not two that could disagree.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from ai4sdk.config.axes import Axis, Choice, Interval, Space
from ai4sdk.errors import Problem
from ai4sdk.spec.sweep import Direction, Pruner, Sweep
from ai4sdk.studies.point import Objective, PointState, Result
from ai4sdk.studies.samplers import ONE_OBJECTIVE, make_pruner, make_sampler, quiet, wrong_options
from ai4sdk.studies.space import active, grid, identity, listed, sample, size, unlisted

if TYPE_CHECKING:
    import optuna

__all__ = ["OptunaSearch", "Search", "check_search"]


class Search(Protocol):
    """Chooses the points of a study and learns from what became of them."""

    def restore(self, results: Iterable[Result]) -> None:
        """Take over what became of earlier points, once and before anything else."""

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Return number and values of the next point; ``None`` if there is none (more) to run."""

    def tell(self, number: int, values: tuple[float, ...] | None, state: PointState) -> None:
        """Say what became of a point that was asked for."""

    def report(self, number: int, step: int, value: float) -> bool:
        """Say how a running point stands; False if it should be given up."""


class OptunaSearch:
    """A search by Optuna, or through points known beforehand with Optuna's pruners.

    Parameters
    ----------
    space
        The axes, as :func:`ai4sdk.studies.space.check` accepts them.
    search
        ``grid``, ``random``, ``tpe``, ``cmaes``, ``gp`` or ``nsga2``.
    seed
        Of the search. With one point at a time, the same seed asks for the same points.
    points
        How many points to ask for; may be ``None`` for a grid, which ends by itself.
    directions
        ``min`` or ``max`` for each objective.
    pruner
        When to give a point up.
    options
        Arguments of the sampler, as Optuna names them.
    """

    def __init__(
        self,
        space: Space,
        search: str,
        *,
        seed: int,
        points: int | None,
        directions: Sequence[Direction],
        pruner: Pruner | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        import optuna

        self._space = space
        self._search = search
        self._seed = seed
        self._points = points
        self._options = options
        self._objectives = len(directions)
        self._size = size(space)
        self._known = list(islice(grid(space), points)) if search == "grid" else None
        with quiet():
            self._coders = {axis.key: _coder(axis) for axis in space}
            self._study = optuna.create_study(
                # Hyperband deals points out by the name.
                study_name="study",
                sampler=self._sampler(tried=0),
                pruner=make_pruner(pruner),
                directions=["minimize" if direction == "min" else "maximize" for direction in directions],
            )
        self._next = 0
        self._again: deque[Result] = deque()
        self._running: dict[int, optuna.Trial] = {}
        self._tried: set[str] = set()

    def restore(self, results: Iterable[Result]) -> None:
        """Take over what became of earlier points, once and before anything else.

        Parameters
        ----------
        results
            The points there were. Those that are not final are asked for again, with their numbers and values.
        """
        known = sorted(results, key=lambda result: result.point.number)
        for result in known:
            number = result.point.number
            self._next = max(self._next, number + 1)
            self._tried.add(identity(dict(result.point.params)))
            if not result.state.final:
                self._again.append(result)
                continue
            self._start(number, result.point.params, result.reports)
            self.tell(number, result.values, result.state)
        if known:
            self._study.sampler = self._sampler(tried=len(known))

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Return number and values of the next point; ``None`` if there is none (more) to run."""
        if self._again:
            result = self._again.popleft()
            self._start(result.point.number, result.point.params, result.reports)
            return result.point.number, dict(result.point.params)
        number = self._next
        if self._points is not None and number >= self._points:
            return None
        if self._size is not None and len(self._tried) >= self._size:
            return None
        if self._known is not None:
            if number >= len(self._known):
                return None
            params = self._start(number, self._known[number])
        elif self._search == "random":
            params = self._start(number, sample(self._space, self._seed, number))
        else:
            params = self._start(number)
        self._next += 1
        self._tried.add(identity(params))
        return number, params

    def tell(self, number: int, values: tuple[float, ...] | None, state: PointState) -> None:
        """Say what became of a point that was asked for.

        Parameters
        ----------
        number
            Of the point.
        values
            A value for each objective; none, too few or one that is no number make the point a failed one.
        state
            How it ended.
        """
        from optuna.trial import TrialState

        trial = self._running.pop(number)
        whole = values is not None and len(values) == self._objectives and not any(map(math.isnan, values))
        with quiet():
            if state is PointState.SUCCEEDED and whole:
                self._study.tell(trial, values)
            elif state is PointState.PRUNED:
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, state=TrialState.FAIL)

    def report(self, number: int, step: int, value: float) -> bool:
        """Say how a running point stands.

        Parameters
        ----------
        number
            Of the point.
        step
            How far it is, counted as the training counts.
        value
            The objective at this step.

        Returns
        -------
        bool
            False if the point should be given up.
        """
        if self._objectives > 1:
            return True
        trial = self._running[number]
        with quiet():
            trial.report(value, step)
            return not trial.should_prune()

    def _sampler(self, tried: int) -> optuna.samplers.BaseSampler:
        return make_sampler(
            self._search,
            self._space,
            seed=self._seed,
            tried=tried,
            points=self._points,
            objectives=self._objectives,
            options=self._options,
        )

    def _start(
        self, number: int, params: Mapping[str, Any] | None = None, reports: Mapping[int, float] | None = None
    ) -> dict[str, Any]:
        """Open a trial with given values, or with those the sampler suggests, and return them."""
        with quiet():
            if params is not None:
                self._study.enqueue_trial({key: self._coders[key].encode(value) for key, value in params.items()})
            trial = self._study.ask()
            if params is not None and self._search in ("cmaes", "nsga2"):
                # These learn generation by generation, and only from points they have counted into one.
                _ = trial.relative_params
            chosen: dict[str, Any] = {}
            for axis in self._space:
                if active(axis, chosen):
                    chosen[axis.key] = self._coders[axis.key].suggest(trial)
            if self._objectives == 1:
                for step, value in (reports or {}).items():
                    trial.report(value, step)
        self._running[number] = trial
        return chosen


class _Positions:
    """Values one by one, which Optuna sees as the numbers of their places: it cannot tell true from 1."""

    def __init__(self, key: str, values: Sequence[Any], ordered: bool) -> None:
        self.key = key
        self.values = values
        self.ordered = ordered
        self.places = {identity(value): place for place, value in enumerate(values)}

    def encode(self, value: Any) -> int:
        return self.places[identity(value)]

    def suggest(self, trial: optuna.Trial) -> Any:
        if self.ordered:
            return self.values[trial.suggest_int(self.key, 0, len(self.values) - 1)]
        return self.values[trial.suggest_categorical(self.key, range(len(self.values)))]


class _Numbers:
    """Numbers of an interval, as Optuna sees them too."""

    def __init__(self, key: str, interval: Interval) -> None:
        self.key = key
        self.interval = interval

    def encode(self, value: Any) -> Any:
        return value

    def suggest(self, trial: optuna.Trial) -> Any:
        low, high = self.interval.low, self.interval.high
        if self.interval.integer:
            return trial.suggest_int(self.key, int(low), int(high), log=self.interval.log)
        return trial.suggest_float(self.key, low, high, log=self.interval.log)


def _coder(axis: Axis) -> _Positions | _Numbers:
    if isinstance(axis.values, Choice):
        return _Positions(axis.key, listed(axis.values) or (), axis.values.ordered)
    return _Numbers(axis.key, axis.values)


def check_search(sweep: Sweep, space: Space, objectives: Sequence[Objective]) -> list[Problem]:
    """Find what a search would stumble over.

    Parameters
    ----------
    sweep
        The description of the search.
    space
        The axes, as :func:`ai4sdk.studies.space.check` accepts them.
    objectives
        What is optimised.

    Returns
    -------
    list of Problem
        All mistakes; of a Hydra sweeper only the plugin knows.
    """
    if sweep.search.startswith("hydra:"):
        return list(_cannot_prune(sweep))
    problems = [*_space_fits(sweep, space), *_objectives_fit(sweep, objectives)]
    if sweep.search in ("grid", "random") and sweep.pruner is None and not sweep.options:
        return problems  # nothing of Optuna's is needed, and importing it takes as long as planning a hundred points
    # What is not even an option would be refused again, in Python's words.
    return [*problems, *(list(wrong_options(sweep)) or _refused(sweep, space, len(objectives)))]


def _cannot_prune(sweep: Sweep) -> Iterator[Problem]:
    if sweep.pruner is not None:
        message = f"{sweep.search} learns of points when they have ended; none can be pruned"
        yield Problem(message, key="sweep.pruner", fix="sweep.pruner=null, or sweep.search=tpe")


def _space_fits(sweep: Sweep, space: Space) -> Iterator[Problem]:
    if sweep.search == "grid":
        yield from unlisted(space)
    elif sweep.points is None:
        yield Problem(f"{sweep.search} must be told how many points to try", key="sweep.points", fix="sweep.points=30")
    if sweep.search == "cmaes" and not any(
        axis.when is None and (isinstance(axis.values, Interval) or axis.values.ordered) for axis in space
    ):
        message = "cmaes searches numbers, and no axis that is always there is an interval or ordered"
        yield Problem(message, key="sweep.search", fix="sweep.search=tpe")


def _objectives_fit(sweep: Sweep, objectives: Sequence[Objective]) -> Iterator[Problem]:
    if len(objectives) < 2:
        return
    if sweep.search in ONE_OBJECTIVE:
        message = f"{sweep.search} takes one objective, not {len(objectives)}"
        yield Problem(message, key="sweep.search", fix="sweep.search=nsga2")
    if sweep.pruner is not None:
        message = f"a pruner takes one objective, not {len(objectives)}"
        yield Problem(message, key="sweep.pruner", fix=f"sweep.objective={objectives[0].name}")


def _refused(sweep: Sweep, space: Space, objectives: int) -> Iterator[Problem]:
    """Make the sampler and the pruner, to hear what Optuna says about their options."""
    try:
        make_sampler(
            sweep.search,
            space,
            seed=sweep.seed,
            points=sweep.points,
            objectives=max(1, objectives),
            options=sweep.options,
        )
    except (TypeError, ValueError) as error:
        yield Problem(f"{sweep.search} refuses its options: {error}", key="sweep.options")
    try:
        make_pruner(sweep.pruner)
    except (TypeError, ValueError) as error:
        assert sweep.pruner is not None
        yield Problem(f"{sweep.pruner.kind} refuses its options: {error}", key="sweep.pruner.options")
