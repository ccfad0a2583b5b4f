"""The whole of a job."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ai4sdk.spec.backend import Backend, LocalBackend
from ai4sdk.spec.base import Section, field_that_changes_nothing
from ai4sdk.spec.dataset import Dataset
from ai4sdk.spec.evaluation import Evaluation
from ai4sdk.spec.federation import Federation
from ai4sdk.spec.hardware import Hardware
from ai4sdk.spec.optimizer import Scheduler
from ai4sdk.spec.serving import Serving
from ai4sdk.spec.site import written_out
from ai4sdk.spec.storage import Storage
from ai4sdk.spec.sweep import Sweep
from ai4sdk.spec.target import Target
from ai4sdk.spec.tracking import Tracking
from ai4sdk.spec.training import Training

__all__ = ["SECTIONS_OF_A_TRAINING", "Job", "Learner", "Task"]

Task = Literal["auto", "classification", "regression", "other"]

SECTIONS_OF_A_TRAINING = ("task", "module", "dataset", "optimizer", "scheduler", "training", "federation", "evaluation")
"""Keys that say nothing where a function is called."""


class Learner(NamedTuple):
    """What is trained, and on what."""

    module: Target
    dataset: Dataset


class Job(Section):
    """A piece of machine learning, described once: a ``module`` trained on a ``dataset``, or a ``function`` called."""

    name: str = field_that_changes_nothing(default="job", pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=64)
    """Name of the job; runs are found by it and MLflow files them under it."""

    description: str = field_that_changes_nothing(default="")
    """What the job is for."""

    tags: dict[str, str] = field_that_changes_nothing(default_factory=dict)
    """Labels to find runs by."""

    task: Task = "auto"
    """What is predicted: ``classification`` (a class), ``regression`` (numbers) or ``other``; ``auto`` tells it
    from the data."""

    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of every random number of the training."""

    serving: Serving = field_that_changes_nothing(default_factory=Serving)
    """How trained models are served, by `ai4sdk serve`."""

    function: Target | None = None
    """A function to call instead of a training, and its arguments. It returns nothing, a number, or names with
    numbers; sections about trainings say nothing then."""

    module: Target | None = None
    """The LightningModule to train and its arguments."""

    dataset: Dataset | None = None
    """What it learns from."""

    optimizer: Target | None = None
    """The optimizer; without it the module's own ``configure_optimizers`` is used."""

    scheduler: Scheduler | None = None
    """The learning-rate schedule; needs ``optimizer``."""

    training: Training = Field(default_factory=Training)
    """How it is trained."""

    federation: Federation = Field(default_factory=Federation)
    """How sites learn together, with ``training.mode: federated``."""

    evaluation: Evaluation = Field(default_factory=Evaluation)
    """How it is judged."""

    hardware: Hardware = Field(default_factory=Hardware)
    """What it needs of a machine."""

    storage: Storage = field_that_changes_nothing(default_factory=Storage)
    """Where its data lives."""

    tracking: Tracking = field_that_changes_nothing(default_factory=Tracking)
    """Where it is recorded."""

    backend: Backend = field_that_changes_nothing(default_factory=LocalBackend)
    """Where it runs."""

    sweep: Sweep = field_that_changes_nothing(default_factory=Sweep)
    """What a study of this job varies; without axes the job is a single run."""

    runs: str = field_that_changes_nothing(default="runs")
    """Folder for runs; a relative path starts at the project."""

    log_level: Literal["debug", "info", "warning", "error"] = field_that_changes_nothing(default="info")
    """How much the log of a task says."""

    @model_validator(mode="before")
    @classmethod
    def _sites_written_out(cls, data: Any) -> Any:
        return written_out(data) if isinstance(data, dict) else data

    @field_validator("module", "dataset")
    @classmethod
    def _trains_or_calls(cls, value: Any, info: ValidationInfo) -> Any:
        if "function" not in info.data or "serving" not in info.data:  # it is wrong itself
            return value
        function, serving = info.data["function"], info.data["serving"]
        serves = serving.models or serving.modules
        if function is None and value is None and not serves:
            raise PydanticCustomError("missing", "Field required")
        if function is not None and value is not None:
            raise ValueError(f"a job that calls a function has no {info.field_name}; remove one of the two")
        return value

    @property
    def learner(self) -> Learner:
        """Module and dataset of a training.

        Raises
        ------
        ValueError
            If the job calls a function.
        """
        if self.module is None or self.dataset is None:
            raise ValueError(f"the job {self.name} calls a function; it trains nothing")
        return Learner(self.module, self.dataset)

    @property
    def datasets(self) -> dict[str, Dataset]:
        """Key → dataset of what a training reads on this machine: its own, or those of the sites of a rehearsal."""
        sites = self.federation.rehearsed if self.training.mode == "federated" else {}
        if sites:
            return {f"federation.sites.{name}.dataset": site.dataset for name, site in sites.items()}
        return {} if self.dataset is None else {"dataset": self.dataset}

    def at(self, name: str) -> Job:
        """Return the job as it is at a site: with what the site has of its own."""
        site = self.federation.sites.get(name)
        if site is None:
            return self
        lengths: dict[str, Any] = {}
        if site.local_epochs is not None or site.local_steps is not None:
            lengths = {"local_epochs": site.local_epochs, "local_steps": site.local_steps}
        return self.model_copy(
            update={
                "dataset": site.dataset,
                "optimizer": site.optimizer or self.optimizer,
                "hardware": site.hardware or self.hardware,
                "federation": self.federation.model_copy(update=lengths),
            }
        )

    @property
    def site_column(self) -> str | None:
        """Column of the dataset that divides it among the sites of a rehearsed federation; nothing without one."""
        divided = self.federation.partition if self.training.mode == "federated" else None
        return None if divided is None else divided.column

    @property
    def unused(self) -> tuple[str, ...]:
        """Keys that say nothing: those of trainings where a function is called, and ``function`` elsewhere."""
        if self.function is not None:
            return SECTIONS_OF_A_TRAINING
        return ("function",) if self.training.mode == "federated" else ("function", "federation")
