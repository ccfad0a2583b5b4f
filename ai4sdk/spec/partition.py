"""stub"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ai4sdk.spec.base import Section


class Partition(Section):
    """How one dataset is divided among sites."""

    method: Literal["iid"] = "iid"
    """How."""
    sites: int = Field(default=2, ge=1)
    """Number of sites."""
    seed: int = 0
    """Seed."""
