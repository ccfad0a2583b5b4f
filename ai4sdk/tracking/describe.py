"""What a plan says about a run, in MLflow's terms. Pure: no MLflow, no files."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ai4sdk.tracking.names import ValidNames, cut, flatten
from ai4sdk.tracking.settings import CREDENTIALS, Redactor, credentials_in

__all__ = ["DatasetInput", "datasets_of", "environment_of", "figures_of", "params_of", "study_params_of", "tags_of"]

PARAM_LIMIT = 6000
TAG_LIMIT = 8000
DIGEST_LIMIT = 36
LISTED = 1000
"""Names of inputs or classes beyond which a dataset's are not listed."""
DETAILED = 50
"""Classes or outputs of a model beyond which their figures are not recorded one by one."""


@dataclass(frozen=True)
class DatasetInput:
    """A dataset as MLflow keeps it; ``source``, ``schema`` and ``profile`` are JSON."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None
    profile: str | None
    context: str


def params_of(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the job as parameters: dotted keys, values cut at MLflow's limit.

    Secret references stay references; a credential that was spelled out is not shown. What cannot say anything about
    the model (where it is recorded) is left out, and what this kind of job does not use.
    """
    from ai4sdk.spec.job import SECTIONS_OF_A_TRAINING  # brings pydantic, which the rest of the room does without

    unused = SECTIONS_OF_A_TRAINING if job.get("function") else ("function",)
    left_out = ("tracking", "tags", "description", *unused)
    shown = {key: value for key, value in job.items() if key not in left_out}
    names = ValidNames()
    redact = Redactor()
    return {names(key): cut(redact(value), PARAM_LIMIT) for key, value in flatten(_masked(shown))}


def study_params_of(study: Mapping[str, Any]) -> dict[str, str]:
    """Return a study as parameters: its axes, under the names that the points have their values by, and its search."""
    objectives = study.get("objectives")
    shown = {
        **_part(study, "axes"),
        "config": study.get("config"),
        "search": study.get("search"),
        "objectives": ", ".join(f"{entry['name']} ({entry['direction']})" for entry in objectives or ()),
    }
    names = ValidNames()
    redact = Redactor(credentials_in(_part(study, "job")))
    return {names(key): cut(redact(value), PARAM_LIMIT) for key, value in flatten(shown) if value}


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: "***" if key in CREDENTIALS and isinstance(item, str) and "${secret:" not in item else _masked(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def tags_of(run_id: str, plan: Mapping[str, Any], user: str) -> dict[str, str]:
    """Return the tags of a run: its identity, where it came from, and the job's own tags."""
    job, created = _part(plan, "job"), _part(plan, "created")
    names = ValidNames()
    tags = {names(str(key)): cut(str(value), TAG_LIMIT) for key, value in _part(job, "tags").items()}
    tags |= {
        "ai4sdk.run_id": run_id,
        "ai4sdk.digest": str(plan.get("digest", "")),
        "mlflow.user": str(created.get("user") or user),
        "mlflow.source.name": cut(Redactor(credentials_in(job))(_command(created)) or "ai4sdk", TAG_LIMIT),
        "mlflow.source.type": "LOCAL" if _part(job, "backend").get("kind", "local") == "local" else "JOB",
    }
    if commit := created.get("git_commit"):
        tags["mlflow.source.git.commit"] = str(commit)
    if description := job.get("description"):
        tags["mlflow.note.content"] = cut(str(description), TAG_LIMIT)
    for package in ("torch", "pytorch-lightning"):
        if version := _part(plan, "packages").get(package):
            tags[f"ai4sdk.{package}"] = str(version)
    if python := plan.get("python"):
        tags["ai4sdk.python"] = str(python)
    return tags


def _command(created: Mapping[str, Any]) -> str:
    command = created.get("command")
    return " ".join(str(word) for word in command) if isinstance(command, list | tuple) else str(command or "")


def _part(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = values.get(key)
    return part if isinstance(part, Mapping) else {}


def datasets_of(plan: Mapping[str, Any]) -> list[DatasetInput]:
    """Return what a run learned from."""
    job = _part(plan, "job")
    found = []
    for key, entry in _part(plan, "data").items():
        if not isinstance(entry, Mapping):
            continue
        uri, fingerprint = str(entry.get("uri") or key), str(entry.get("fingerprint") or "")
        summary = _part(entry, "summary")
        profile = {name: entry[name] for name in ("files", "bytes", "fingerprint", "paths") if name in entry}
        profile |= {name: value for name, value in summary.items() if value is not None and _short(value)}
        profile |= _size(summary)
        source_type, source = _source(uri, code="_target_" in _part(job, key))
        found.append(
            DatasetInput(
                name=cut(uri.rstrip("/").rsplit("/", 1)[-1] or key, 500),
                digest=fingerprint.rsplit(":", 1)[-1][:DIGEST_LIMIT] or "unknown",
                source_type=source_type,
                source=json.dumps(source),
                schema=_schema(summary),
                profile=json.dumps(profile, ensure_ascii=False, default=str),
                context="training" if key == "dataset" else key,
            )
        )
    return found


def _source(uri: str, *, code: bool) -> tuple[str, dict[str, Any]]:
    """Return MLflow's source type and the fields its page shows of it."""
    scheme = uri.split("://", 1)[0].lower() if "://" in uri else ""
    if code:
        return "code", {"tags": {"mlflow.source.name": uri}}
    if scheme in ("http", "https"):
        return "http", {"url": Redactor()(uri)}
    return (scheme if scheme not in ("", "file") else "local"), {"uri": Redactor()(uri)}


def _short(value: Any) -> bool:
    return not isinstance(value, list | tuple | dict) or len(value) <= LISTED


def _size(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return the two numbers that MLflow's page shows in a dataset's headline."""
    rows, features = summary.get("rows"), summary.get("features")
    size = {"num_rows": rows} if isinstance(rows, int) else {}
    if isinstance(rows, int) and isinstance(features, int):
        size["num_elements"] = rows * features
    return size


def _schema(summary: Mapping[str, Any]) -> str | None:
    """Return the inputs' names, or the shape of a sample, in the form that MLflow's page draws."""
    names, shape = summary.get("feature_names"), summary.get("shape")
    if isinstance(names, list) and 0 < len(names) <= LISTED:
        columns = [{"type": "double", "name": str(name), "required": True} for name in names]
        if label := summary.get("label"):
            kind = "string" if summary.get("label_kind") == "class" else "double"
            columns.append({"type": kind, "name": str(label), "required": True})
        return json.dumps({"mlflow_colspec": columns}, ensure_ascii=False)
    if isinstance(shape, list) and all(isinstance(size, int) for size in shape):
        spec = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, *shape]}}
        return json.dumps({"mlflow_tensorspec": {"features": json.dumps([spec]), "targets": None}})
    return None


def environment_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return packages, Python and this machine."""
    import psutil

    memory = psutil.virtual_memory().total
    return {
        "python": platform.python_version(),
        "packages": dict(_part(plan, "packages")),
        "platform": platform.platform(),
        "machine": {
            "host": platform.node(),
            "processor": platform.processor() or platform.machine(),
            "cpus": psutil.cpu_count(logical=True),
            "memory_bytes": memory,
        },
        "asked_for": dict(_part(_part(plan, "job"), "hardware")),
    }


def figures_of(scores: Mapping[str, Any], split: str | None) -> dict[str, float]:
    """Return an evaluation's figures as metrics: ``test/accuracy``, ``test/classes/cat/recall``.

    Without a split the names are as they are. Figures that are not defined are left out, and so are curves, matrices,
    and more than fifty classes one by one.
    """
    return {f"{split}/{name}" if split else name: value for name, value in _figures(scores)}


def _figures(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int | float):
            yield name, float(value)
        elif isinstance(value, Mapping):
            yield from _figures(value, f"{name}/")
        elif isinstance(value, list) and len(value) <= DETAILED:
            for entry in value:
                if isinstance(entry, Mapping) and "name" in entry:
                    yield from _figures(entry, f"{name}/{entry['name']}/")
