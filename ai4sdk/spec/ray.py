"""Where a plan runs: a Ray cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Span

__all__ = ["RayBackend"]

_Word = Annotated[str, Field(pattern=r"^\S+$")]


class RayBackend(Section):
    """A Ray cluster: one Ray job a run. What it asks for is under ``hardware``."""

    kind: Literal["ray"] = "ray"
    """Name of the backend."""

    address: Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")] | None = None
    """Address of the cluster's dashboard, such as ``http://head:8265``; by default that in the environment variable
    ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS``, else port 8265 of this machine."""

    python: Annotated[str, Field(pattern=r"^[^\r\n]+$")] | None = None
    """Python on the nodes; it needs no ray. By default the one that submits, by its full path."""

    resources: dict[_Word, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Custom resources that a node must have, as the cluster names them, such as ``{fast-disk: 1}``."""

    grace: Span = 60.0
    """Time a task has to write a checkpoint after it is told to stop; then it is killed."""

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for the tasks."""
