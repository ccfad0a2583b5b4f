"""The plan: a job frozen, with one digest over everything that changes its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai4sdk.errors import NotFound, UsageError
from ai4sdk.runs.display import html_table
from ai4sdk.spec import Job

__all__ = ["FORMAT", "Plan", "TaskPlan", "digest_of", "read_plan_file", "results_of"]

FORMAT = "ai4sdk.plan/1"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, ser_json_inf_nan="constants")


class TaskPlan(_Part):
    """One process group of a plan."""

    name: str
    """Name, which a worker is told."""
    kind: Literal["train", "federate", "call"]
    """What it does: train a module in one place or at several sites, or call a function."""
    processes: int = 1
    """Processes per node that work together."""
    needs: list[str] = []
    """Tasks that must have succeeded before."""
    cpus: int
    """CPU cores per node."""
    gpus: int = 0
    """GPUs per node."""
    nodes: int = 1
    """Machines."""
    memory: int | None = None
    """Bytes of memory per node."""
    disk: int | None = None
    """Bytes of scratch disk per node."""
    wall_time: float | None = None
    """Seconds."""

    @property
    def world_size(self) -> int:
        """Processes of all nodes."""
        return self.processes * self.nodes

    @property
    def threads(self) -> int:
        """Threads that a process computes with: its share of the node's cores."""
        return max(1, self.cpus // self.processes)


class Plan(_Part):
    """A job frozen. Whoever has this file can read it, compare it, and run it again.

    ``digest`` covers ``digests``, one for each part that changes results; `created` is in none of them.
    """

    format: Literal["ai4sdk.plan/1"] = "ai4sdk.plan/1"
    digest: str
    digests: dict[str, str]
    name: str
    job: dict[str, Any]
    tasks: list[TaskPlan]
    data: dict[str, dict[str, Any]] = Field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    packages: dict[str, str]
    python: str
    created: dict[str, Any] = Field(default_factory=dict)
    terms: dict[str, Any] = Field(default_factory=dict)
    """What coordinator and sites agree to, where sites are real; see `ai4sdk.planning.terms`."""
    code: dict[str, Any]

    @cached_property
    def typed_job(self) -> Job:
        """The job as typed sections, made once."""
        return Job.model_validate(self.job)

    def to_json(self) -> str:
        """Return the plan as the text of a JSON file; the code archive comes last."""
        return self.model_dump_json(indent=2) + "\n"

    def as_job(self) -> Job:
        """Return the job as typed sections."""
        return self.typed_job

    def __repr__(self) -> str:
        tasks = ", ".join(task.name for task in self.tasks)
        return f"<Plan {self.name} {self.short_digest}: {tasks}>"

    def _repr_html_(self) -> str:
        rows = {
            "digest": self.digest,
            "target": (self.job.get("function") or self.job["module"])["_target_"],
            "data": ", ".join(str(entry.get("uri")) for entry in self.data.values()),
            "tasks": ", ".join(task.name for task in self.tasks),
            "packages": ", ".join(f"{name} {version}" for name, version in self.packages.items()),
        }
        return html_table(f"plan {self.name}", rows)

    @property
    def short_digest(self) -> str:
        """The first 12 digits of the digest."""
        return self.digest.removeprefix("sha256:")[:12]


def canonical(value: Any) -> str:
    """Return JSON that is the same for equal values: keys sorted, no spaces, NaN as Python writes it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, as ``sha256:…``."""
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


def results_of(job: Job) -> dict[str, Any]:
    """Return the part of a job that can change results.

    That is all but the fields marked as changing nothing, and the sections that this job does not use.
    """
    return {name: value for name, value in _results(job).items() if name not in job.unused}


def _results(section: BaseModel) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, info in type(section).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, Mapping) and extra.get("affects_results") is False:
            continue
        kept[info.alias or name] = _plain(getattr(section, name))
    for name, value in (section.model_extra or {}).items():
        kept[name] = _plain(value)
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _results(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def read_plan_file(path: Path) -> Plan:
    """Read a plan.

    Parameters
    ----------
    path
        A plan file, or a run directory.

    Raises
    ------
    NotFound
        If there is no such file.
    UsageError
        If the file is no plan, of a newer format, or was changed by hand.
    """
    file = path / "plan.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"there is no plan {path}", hint="ai4sdk plan config=NAME --out plan.json makes one") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is not readable as a plan: {error}") from error
    version = values.get("format") if isinstance(values, dict) else None
    if version != FORMAT:
        raise UsageError(
            f"{file} is no plan of this version: its format is {version!r}, not {FORMAT!r}",
            hint="make it again with `ai4sdk plan config=NAME --out plan.json`",
        )
    try:
        plan = Plan.model_validate(values)
        job = plan.as_job()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{file} is no plan: {where}: {first['msg']}") from None
    if plan.digest != digest_of(plan.digests) or plan.digests.get("job") != digest_of(results_of(job)):
        raise UsageError(
            f"{file} was changed after it was made: its digest does not fit its content",
            hint="change the config instead, and plan again",
        )
    return plan
