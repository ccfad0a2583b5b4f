"""How weights are moved."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ai4sdk.spec.base import Section
from ai4sdk.spec.target import Target


class Scheduler(Section):
    """A schedule of the learning rate, and when it is stepped."""

    schedule: Target
    """The scheduler, such as ``{_target_: torch.optim.lr_scheduler.StepLR, step_size: 5}``."""

    interval: Literal["epoch", "step"] = "epoch"
    """Whether it is stepped after epochs or after optimizer steps."""

    frequency: int = Field(default=1, ge=1)
    """Every how many intervals it is stepped."""

    monitor: str | None = None
    """Metric that ReduceLROnPlateau watches."""
