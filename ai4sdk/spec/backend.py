"""Where a plan runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Span


class LocalBackend(Section):
    """This machine: one process a task."""

    kind: Literal["local"] = "local"
    """Name of the backend."""

    grace: Span = 60.0
    """Time a task has to write a checkpoint after it is told to stop; then it is killed."""

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for the tasks."""


Backend = LocalBackend
