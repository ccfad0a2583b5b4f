"""Optimizer and learning-rate schedule from the YAML, in place of the module's own."""

from __future__ import annotations

from types import MethodType
from typing import Any

import pytorch_lightning as pl

from ai4sdk.errors import RunFailed
from ai4sdk.spec import Scheduler
from ai4sdk.spec.target import Target
from ai4sdk.worker.instantiate import instantiate

__all__ = ["configure_optimizers"]


def configure_optimizers(
    module: pl.LightningModule,
    optimizer: Target | None,
    scheduler: Scheduler | None,
    *,
    learning_rate: float | None = None,
) -> None:
    """Replace a module's ``configure_optimizers`` by what the job says; without an optimizer leave it alone.

    The optimizer gets every parameter that is not frozen.

    Parameters
    ----------
    module
        The module; only this instance is changed.
    optimizer
        What to make of the parameters.
    scheduler
        What to make of the optimizer, and when to step it.
    learning_rate
        Given to the optimizer in place of its own ``lr``.
    """
    if optimizer is None:
        return

    def configure(self: pl.LightningModule) -> dict[str, Any]:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:
            raise RunFailed(
                "there is nothing to train: every parameter of the module is frozen, or it has none",
                hint="see training.freeze",
            )
        config = optimizer.as_config() | ({} if learning_rate is None else {"lr": learning_rate})
        made = instantiate(config, key="optimizer", partial=True)
        result: dict[str, Any] = {"optimizer": _call(made, parameters, "optimizer", optimizer)}
        if scheduler is not None:
            made = instantiate(scheduler.schedule.as_config(), key="scheduler.schedule", partial=True)
            schedule = _call(made, result["optimizer"], "scheduler.schedule", scheduler.schedule)
            result["lr_scheduler"] = {
                "scheduler": schedule,
                "interval": scheduler.interval,
                "frequency": scheduler.frequency,
            }
            if scheduler.monitor is not None:
                result["lr_scheduler"]["monitor"] = scheduler.monitor
        return result

    module.configure_optimizers = MethodType(configure, module)  # type: ignore[method-assign]


def _call(made: Any, argument: Any, key: str, target: Target) -> Any:
    try:
        return made(argument)
    except (TypeError, ValueError) as error:
        raise RunFailed(f"{key}: {target.target} raised {type(error).__name__}: {error}") from error
