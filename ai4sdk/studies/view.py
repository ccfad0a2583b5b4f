"""A study as it stands, read from its folder."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ai4sdk.config.encode import texts_of
from ai4sdk.errors import NotFound, UsageError
from ai4sdk.runs.state import read_state
from ai4sdk.studies.layout import FORMAT, StudyPaths
from ai4sdk.studies.ledger import LedgerReader
from ai4sdk.studies.point import Objective, Point, PointState, Result, StudyView

__all__ = ["StudyReader", "view_of"]


class StudyReader:
    """Reads a study again and again, each time only what is new.

    Parameters
    ----------
    paths
        Files of the study.

    Raises
    ------
    UsageError
        If the folder holds no study of this version.
    NotFound
        If it holds none at all.
    """

    def __init__(self, paths: StudyPaths) -> None:
        self.paths = paths
        try:
            self._facts: dict[str, Any] = json.loads(paths.study.read_text(encoding="utf-8"))
            if self._facts["format"] != FORMAT:
                raise ValueError(f"its format is {self._facts['format']!r}")
            points = tuple(
                Point(number, params, texts_of(params), digest)
                for number, (params, digest) in enumerate(self._facts["points"])
            )
            self._objectives = tuple(Objective(**objective) for objective in self._facts["objectives"])
        except FileNotFoundError as error:
            raise NotFound(f"the study {paths.id} is gone: there is no {paths.study}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{paths.study} cannot be read as a study: {error}", hint="it is left as it is") from error
        self._ledger = LedgerReader(paths, points)

    def read(self, *, state: str | None = None, ended: float | None = None) -> StudyView:
        """Return the study as it stands; ``state`` and ``ended`` in place of what its folder says."""
        found = read_state(self.paths)
        results = tuple(result for _, result in sorted(self._ledger.read().items()))
        objectives = self._objectives or ((self._ledger.objective,) if self._ledger.objective else ())
        alive = state is None and not found.state.ended
        facts = self._facts
        return StudyView(
            id=self.paths.id,
            name=facts["name"],
            config=facts["config"],
            search=facts["search"],
            objectives=objectives,
            axes=tuple(facts["axes"]),
            total=max(facts["total"] or 0, len(results)),
            results=results if alive else tuple(map(_at_rest, results)),
            state=state or str(found.state),
            started=found.started,
            ended=ended or found.ended,
            pruner=(facts["sweep"]["pruner"] or {}).get("kind"),
        )


def _at_rest(result: Result) -> Result:
    """Return a point as it stands when nobody runs it any more."""
    return replace(result, state=PointState.INTERRUPTED) if result.state is PointState.RUNNING else result


def view_of(paths: StudyPaths, *, state: str | None = None, ended: float | None = None) -> StudyView:
    """Read a study once; see `StudyReader.read`."""
    return StudyReader(paths).read(state=state, ended=ended)
