"""Where a plan runs."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from ai4sdk.spec.base import Section
from ai4sdk.spec.kubernetes import KubernetesBackend
from ai4sdk.spec.oscar import OscarBackend
from ai4sdk.spec.ray import RayBackend
from ai4sdk.spec.units import Span

__all__ = [
    "Backend",
    "KubernetesBackend",
    "LocalBackend",
    "OscarBackend",
    "OtherBackend",
    "RayBackend",
    "SlurmBackend",
    "backends_of_packages",
]


class LocalBackend(Section):
    """This machine: one process a task."""

    kind: Literal["local"] = "local"
    """Name of the backend."""

    grace: Span = 60.0
    """Time a task has to write a checkpoint after it is told to stop; then it is killed."""

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for the tasks."""


OWNED_DIRECTIVES = {
    **dict.fromkeys(("partition", "account", "qos", "constraint"), "backend.{name}"),
    "nodes": "hardware.nodes",
    "ntasks": "training.mode",
    "ntasks-per-node": "training.mode",
    "cpus-per-task": "hardware.cpus",
    **dict.fromkeys(("gres", "gpus", "gpus-per-node", "gpus-per-task"), "hardware.gpus"),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "hardware.memory"),
    "tmp": "hardware.disk",
    "time": "hardware.wall_time",
    "signal": "backend.warning",
    **dict.fromkeys(("requeue", "no-requeue"), "backend.requeues"),
    **dict.fromkeys(("job-name", "output", "error", "open-mode", "chdir", "parsable", "array", "wait"), "ai4sdk"),
}
"""Options of sbatch that ai4sdk sets, and what decides them."""


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError("one line only; write several lines as several items")
    return text


def _directives(values: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    for name, value in values.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
            raise ValueError(f"{name!r} is no long option of sbatch; write it as in mail-type")
        if name in OWNED_DIRECTIVES:
            raise ValueError(f"--{name} is decided by {OWNED_DIRECTIVES[name].format(name=name)}")
        _one_line(str(value))
    return values


_Line = Annotated[str, AfterValidator(_one_line)]
_Word = Annotated[str, Field(pattern=r"^\S+$")]


class SlurmBackend(Section):
    """A cluster that Slurm schedules: one batch job a run. What it asks for is under ``hardware``."""

    kind: Literal["slurm"] = "slurm"
    """Name of the backend."""

    partition: _Word | None = None
    """Partition to queue in; by default the cluster's own."""

    account: _Word | None = None
    """Account the time is charged to; by default the user's own."""

    qos: _Word | None = None
    """Quality of service; by default the account's own."""

    constraint: _Word | None = None
    """Features a node must have, as the cluster names them, such as ``skylake&ib``."""

    gres: _Word = "gpu"
    """Name of the resource that GPUs are; a model is added from ``hardware.gpu_model``."""

    setup: list[_Line] = Field(default_factory=list)
    """Lines of shell before the work starts, such as ``module load cuda/12.4``; one that fails ends the job."""

    python: _Line | None = None
    """Python on the nodes, such as ``python`` where ``setup`` activates an environment; by default the one that
    submits, by its full path."""

    directives: Annotated[dict[str, str | int | bool], AfterValidator(_directives)] = Field(default_factory=dict)
    """Further options of sbatch by their long names, such as ``{exclude: n7, exclusive: true}``."""

    requeues: int = Field(default=3, ge=0)
    """How often a run is queued again after its time limit, pre-emption or the loss of a node; each time it may take
    the whole ``hardware.wall_time``."""

    grace: Span = 60.0
    """Time a task has to write a checkpoint after it is told to stop; then it is killed."""

    warning: Span = 120.0
    """How long before the job's time limit it is told to stop with a checkpoint; Slurm may do so up to a minute
    earlier, all within the second half of the time limit. Limits of few minutes are seen to by the worker alone."""

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for the tasks."""


GROUP = "ai4sdk.backends"
"""Entry point group by which other packages add backends: a name, and the class that is it."""


@cache
def backends_of_packages() -> dict[str, Any]:
    """Return the backends that other packages add: name → entry point.

    Looking for them reads the metadata of every package installed, and each point of a study is validated.
    """
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


class OtherBackend(Section):
    """A backend of another package, which names it in the entry point group ``ai4sdk.backends``.

    What else it takes is what its class has as ``options``, a model of pydantic.
    """

    model_config = ConfigDict(extra="allow")

    kind: str
    """Its name there."""

    grace: Span = 60.0
    """Time a task has to write a checkpoint after it is told to stop; then it is killed."""

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for the tasks."""

    @model_validator(mode="before")
    @classmethod
    def _takes_its_options(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        rest = {name: value for name, value in data.items() if name not in cls.model_fields}
        try:
            options = getattr(backends_of_packages()[data["kind"]].load(), "options", None)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"backend {data['kind']} cannot be loaded: {error}") from error
        if options is None:
            if rest:
                raise ValueError(f"backend {data['kind']} has no option {', '.join(rest)}")
            return data
        try:
            return {**data, **options.model_validate(rest).model_dump(mode="json")}
        except ValidationError as error:
            found = [f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}" for mistake in error.errors()]
            raise ValueError(f"backend {data['kind']}: {'; '.join(found)}") from error


_OURS = ("local", "slurm", "kubernetes", "ray", "oscar")


def _kind(value: Any) -> Any:
    kind = value.get("kind", "local") if isinstance(value, dict) else getattr(value, "kind", None)
    # Entry points are read only for a name that is not ours: it takes longer than validating a job.
    return "other" if isinstance(kind, str) and kind not in _OURS and kind in backends_of_packages() else kind


Backend = Annotated[
    Annotated[LocalBackend, Tag("local")]
    | Annotated[SlurmBackend, Tag("slurm")]
    | Annotated[KubernetesBackend, Tag("kubernetes")]
    | Annotated[RayBackend, Tag("ray")]
    | Annotated[OscarBackend, Tag("oscar")]
    | SkipJsonSchema[Annotated[OtherBackend, Tag("other")]],
    Discriminator(_kind),
]
"""This machine, or a cluster."""
