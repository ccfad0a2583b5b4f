"""Axes of a study and how they are searched."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Span

Direction = Literal["min", "max"]

AxisText = str | int | float | bool | list[Any]


class Axis(Section):
    """An axis that is there only for some points."""

    values: AxisText
    """Values in Hydra's sweep grammar, such as ``interval(0, 0.99)``, or a list of them."""

    when: str | None = None
    """Another axis and the value it must have, such as ``optimizer=sgd``; without it the axis is always there."""


class Pruner(Section):
    """When to give up a point that does not look promising."""

    kind: Literal["median", "percentile", "hyperband", "successive_halving", "threshold"] = "median"
    """Which of Optuna's pruners decides."""

    options: dict[str, Any] = {}
    """Its arguments, as Optuna names them, such as ``{n_startup_trials: 5}``."""


def _kind(value: Any) -> str:
    return "mapping" if isinstance(value, dict | Axis) else "values"


AxisEntry = Annotated[
    Annotated[Axis, Tag("mapping")] | Annotated[AxisText, Tag("values")],
    Discriminator(_kind),
]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_SWEEPER = r"^hydra:[\w.-]+$"


def _sweeper(value: str) -> str:
    if not re.search(_SWEEPER, value):
        raise PydanticCustomError("sweeper", "hydra:NAME for a Hydra sweeper")
    return value


Sweeper = Annotated[str, AfterValidator(_sweeper), WithJsonSchema({"type": "string", "pattern": _SWEEPER})]


class Sweep(Section):
    """What a study varies, how it chooses points, and what it calls better."""

    axes: dict[str, AxisEntry] = {}
    """Key or group → values in Hydra's sweep grammar (``1e-2,1e-3``, ``range(5)``, ``interval(0,1)``,
    ``tag(log, interval(1e-4,1e-1))``, ``glob(*)``), a list, or a mapping with ``values`` and ``when``."""

    search: Literal["grid", "random", "tpe", "cmaes", "gp", "nsga2"] | Sweeper = "grid"
    """``grid`` (every combination), ``random``, ``tpe``, ``cmaes``, ``gp``, ``nsga2``, or ``hydra:NAME`` for a Hydra
    sweeper plugin."""

    points: int | None = Field(default=None, ge=1)
    """How many points to try; a grid has as many as it has."""

    objective: Annotated[list[str], BeforeValidator(_listed)] = []
    """Metric to optimise, by the name it is logged or judged under; several for nsga2. Without it the metric that
    ``training.checkpoint.monitor`` watches, else the first figure of the evaluation."""

    direction: Annotated[list[Direction], BeforeValidator(_listed)] = []
    """``min`` or ``max`` for each objective; without it ``min`` for losses and errors, ``max`` for the rest."""

    pruner: Pruner | None = None
    """When to give a point up early; needs one objective that is logged while training."""

    parallel: int | None = Field(default=None, ge=1)
    """Points at once; without it as many as the hardware of a point fits into this machine."""

    retries: int = Field(default=2, ge=0)
    """How often a point is tried again that the machine, not the code, made fail."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the search; the seed of a training is an axis like any other."""

    max_time: Span | None = None
    """Time after which no further point is started, such as ``8h``."""

    options: dict[str, Any] = {}
    """Further arguments of the sampler, as Optuna (or the Hydra sweeper) names them."""

    @model_validator(mode="after")
    def _one_direction_each(self) -> Self:
        if self.direction and len(self.direction) != max(1, len(self.objective)):
            ways, count = len(self.direction), max(1, len(self.objective))
            raise ValueError(f"direction has {ways} value{'s' * (ways > 1)} for {count} objective{'s' * (count > 1)}")
        if twice := [name for name in self.objective if self.objective.count(name) > 1]:
            raise ValueError(f"objective names {twice[0]} twice")
        if len(self.objective) > 1 and self.pruner is not None:
            raise ValueError("a pruner needs a single objective")
        return self
