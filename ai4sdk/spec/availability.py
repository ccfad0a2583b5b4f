"""When the sites of a federation can be reached, to rehearse that some of them cannot."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Fraction, Span

__all__ = [
    "AlwaysAvailable",
    "Availability",
    "DiurnalAvailability",
    "DropoutAvailability",
    "MarkovAvailability",
    "TraceAvailability",
    "span_problem",
]


class AlwaysAvailable(Section):
    """Every site, in every round."""

    kind: Literal["always"] = "always"
    """Name of the model."""


class DropoutAvailability(Section):
    """Each site is missing in each round with the same chance, whatever was before."""

    kind: Literal["dropout"]
    """Name of the model."""

    probability: Fraction = 0.1
    """Chance that a site is missing in a round."""


class MarkovAvailability(Section):
    """Sites go down and stay down for a while: outages last ``1 / down_to_up`` rounds on average."""

    kind: Literal["markov"]
    """Name of the model."""

    up_to_down: Fraction = 0.1
    """Chance that a site which is up in a round is down in the next."""

    down_to_up: Fraction = 0.5
    """Chance that a site which is down in a round is up in the next."""

    start: Literal["stationary", "up", "down"] = "stationary"
    """How sites are in the first round; ``stationary``: up with the chance that they have in the long run."""

    @model_validator(mode="after")
    def _has_a_long_run(self) -> Self:
        if self.start == "stationary" and self.up_to_down == self.down_to_up == 0:
            raise ValueError("with up_to_down and down_to_up both 0 nothing ever changes; set start to up or down")
        return self


def _clock_or_rounds(data: Any, *names: str) -> Any:
    """Refuse a time such as 24h where nothing says how long a round is."""
    if isinstance(data, dict) and data.get("round_time") is None:
        for name in names:
            if isinstance(value := data.get(name), str) and not value.strip().isdecimal():
                raise ValueError(f"{name}: {value} is a time, so round_time must say how long a round is, such as 10m")
    return data


class DiurnalAvailability(Section):
    """Each site is up for a part of every day (or another period), each at its own hours."""

    kind: Literal["diurnal"]
    """Name of the model."""

    period: Span = Field(default=24.0, gt=0)
    """Length of the day: a number of rounds or, with ``round_time``, a time such as ``24h``."""

    round_time: Span | None = Field(default=None, gt=0)
    """Time that a round stands for, such as ``10m``."""

    share: Fraction = 0.5
    """Part of the day that a site is up."""

    phases: dict[str, Fraction] = {}
    """How far into its time up a site is in the first round, as a part of the day; others start anywhere."""

    @model_validator(mode="before")
    @classmethod
    def _period_has_a_unit(cls, data: Any) -> Any:
        return _clock_or_rounds(data, "period")


class TraceAvailability(Section):
    """As recorded: from a file, or as written here."""

    kind: Literal["trace"]
    """Name of the model."""

    file: str | None = None
    """CSV file with the columns ``site``, ``from`` and ``to``, or a JSON file with a list of objects of these keys. A
    relative path starts at the project."""

    up: dict[str, list[Annotated[int, Field(ge=1)] | list[float | int]]] | None = None
    """Site → the rounds it is up: numbers, and pairs ``[from, to]`` for all from one to another. With ``round_time``
    pairs of seconds only."""

    round_time: Span | None = Field(default=None, gt=0)
    """Time that a round stands for, such as ``10m``: then ``from`` and ``to`` are seconds since the federation began,
    and a site is up in a round if it is at its beginning. Without it they are rounds, both included."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.up is None):
            raise ValueError("give either file, or up with the rounds of each site")
        for site, spans in (self.up or {}).items():
            for span in spans:
                if problem := span_problem(span, in_rounds=self.round_time is None):
                    raise ValueError(f"up.{site}: {span} {problem}")
        return self


def span_problem(span: int | list[float | int], *, in_rounds: bool) -> str:
    """Return what is wrong with a span of a trace; nothing if it is all right."""
    if isinstance(span, int):
        return "" if in_rounds else "is a round, but with round_time there are pairs of seconds only"
    if len(span) != 2:
        return "is no pair of from and to"
    first, last = span
    if in_rounds and not (float(first).is_integer() and float(last).is_integer() and first >= 1):
        return "must be whole rounds, counted from 1; for times give round_time"
    if not (math.isfinite(first) and math.isfinite(last) and first >= 0):
        return "must be finite and not begin before 0"
    if last < first or (last == first and not in_rounds):
        return "ends before it begins"
    return ""


def _kind(value: Any) -> Any:
    return value.get("kind", "always") if isinstance(value, dict) else getattr(value, "kind", None)


Availability = Annotated[
    Annotated[AlwaysAvailable, Tag("always")]
    | Annotated[DropoutAvailability, Tag("dropout")]
    | Annotated[MarkovAvailability, Tag("markov")]
    | Annotated[DiurnalAvailability, Tag("diurnal")]
    | Annotated[TraceAvailability, Tag("trace")],
    Discriminator(_kind),
]
"""Which sites can be reached in a round."""
