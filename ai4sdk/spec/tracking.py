"""Where a run is recorded beside its own folder."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Span


class Tracking(Section):
    """MLflow: a store inside the runs folder, or a server."""

    kind: Literal["mlflow", "none"] = "mlflow"
    """``none`` keeps the run's own folder as the only record."""

    uri: str | None = None
    """Tracking server, such as ``https://mlflow.example.org``; by default an sqlite store in the runs folder."""

    experiment: str | None = None
    """MLflow experiment; by default the job's name."""

    username: str | None = None
    """User of the server; best as ``${secret:NAME}``."""

    password: str | None = None
    """Password of the server; best as ``${secret:NAME}``."""

    token: str | None = None
    """Bearer token of the server; best as ``${secret:NAME}``."""

    register_as: str | None = Field(default=None, pattern=r"^[^/:]+$")
    """Name in MLflow's model registry to register the model under."""

    alias: str | None = None
    """Alias that the registered version gets, such as ``champion``."""

    flush_every: Span = 2.0
    """Longest time a metric waits before it is sent."""
