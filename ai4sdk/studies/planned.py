"""Points that are known beforehand, one after the other; and which search a study needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from ai4sdk.studies.attendance import is_planned
from ai4sdk.studies.plan import StudyPlan
from ai4sdk.studies.point import PointState, Result
from ai4sdk.studies.search import OptunaSearch, Search

__all__ = ["PlannedSearch", "make_search"]


class PlannedSearch:
    """Asks for points in their order; what becomes of them changes nothing."""

    def __init__(self) -> None:
        self._left: deque[Result] = deque()

    def restore(self, results: Iterable[Result]) -> None:
        """Take over the points; those that are not final are asked for."""
        self._left = deque(result for result in results if not result.state.final)

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Return number and values of the next point; ``None`` at the end."""
        if not self._left:
            return None
        point = self._left.popleft().point
        return point.number, dict(point.params)

    def tell(self, number: int, values: tuple[float, ...] | None, state: PointState) -> None:
        """Nothing is learnt."""

    def report(self, number: int, step: int, value: float) -> bool:
        """Nothing is given up."""
        return True


def make_search(study: StudyPlan) -> Search:
    """Return what chooses the points of a study."""
    sweep = study.sweep
    if sweep.search.startswith("hydra:") or is_planned(sweep.search, sweep.pruner):
        return PlannedSearch()
    return OptunaSearch(
        study.space,
        sweep.search,
        seed=sweep.seed,
        points=sweep.points,
        directions=[objective.direction for objective in study.objectives],
        pruner=sweep.pruner,
        options=sweep.options,
    )
