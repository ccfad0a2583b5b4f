"""Job → plan: check it, look at its code and data, freeze it."""

from __future__ import annotations

import getpass
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ai4sdk.config.load import Loaded
from ai4sdk.config.validate import located
from ai4sdk.errors import Ai4Error, ConfigError, DataError, EnvironmentFault, NotFound, Problem, UsageError
from ai4sdk.planning.checks import Finding, check_job, targets_of
from ai4sdk.planning.code import CodeSnapshot, take_snapshot
from ai4sdk.planning.plan import Plan, TaskPlan, digest_of, results_of
from ai4sdk.planning.references import fill_in
from ai4sdk.planning.settled import settle
from ai4sdk.planning.targets import TargetReport
from ai4sdk.planning.versions import package_versions
from ai4sdk.runs.store import find_run
from ai4sdk.spec import FileDataset, Job, Target
from ai4sdk.spec.base import complete
from ai4sdk.spec.scale import scale_of

__all__ = ["Parts", "make_plan"]


@dataclass
class Parts:
    """What plans of one study share, each looked at once: data, inputs, code and proofs of targets.

    All of it can be kept as JSON values, so that plans made from it need no files.
    """

    data: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)
    created: dict[str, Any] = field(default_factory=dict)
    targets: dict[Any, TargetReport] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; of the proofs those that succeeded."""
        names = ("data", "inputs", "code", "created")
        proven = [list(question) for question, report in self.targets.items() if not report.problems]
        return {**{name: getattr(self, name) for name in names}, "proven": proven}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Parts:
        """Read what `to_json` returned."""
        proven = {
            (path, tuple(arguments), positional, partial): TargetReport(found=True, certain=False)
            for path, arguments, positional, partial in values["proven"]
        }
        return cls(values["data"], values["inputs"], values["code"], values["created"], proven)


def make_plan(loaded: Loaded, *, command: Sequence[str] = (), parts: Parts | None = None) -> Plan:
    """Freeze a job.

    Parameters
    ----------
    loaded
        The job and its layers.
    command
        What the user typed, kept in the plan as a note.
    parts
        What earlier plans of the same study found; what is missing there is looked at, and added.

    Returns
    -------
    Plan
        The plan. Nothing was imported of the user's code, and nothing written.

    Raises
    ------
    ConfigError
        With every mistake found: targets that do not exist or do not take what they are given, data that cannot be
        read, sections that do not fit together.
    UsageError
        If the job only serves models.
    """
    job, project = loaded.job, loaded.composition.project
    if job.function is None and job.module is None:
        name = loaded.composition.config
        raise UsageError(f"{name} serves models; there is nothing to train", hint=f"ai4sdk serve config={name}")
    parts = parts if parts is not None else Parts()
    search = project.code_folders()
    findings: list[Finding] = []
    faults: list[Ai4Error] = []

    data, summary = _shared_data(job, project.root, parts, findings, faults)
    values = job.model_dump(mode="json", by_alias=True)
    filled, unfilled = fill_in(values, summary)
    findings += unfilled if not faults else []
    if not unfilled and filled != values:
        job, values = Job.model_validate(filled), filled
    findings += check_job(job, search, parts.targets)
    if not findings and not faults:
        job, unsettled = settle(job, values, project.root, data)
        findings += unsettled
    inputs = _shared_inputs(job, project.root, parts, findings)
    try:
        code = _shared_code(job, search, parts)
    except Ai4Error as error:
        findings.append(Finding("", error.message, error.hint))
        code = None
    if findings or code is None:
        raise _error(loaded, findings, faults)

    digests = {
        "job": digest_of(results_of(job)),
        "code": code["digest"],
        "data": digest_of({name: entry["fingerprint"] for name, entry in data.items()}),
        "inputs": digest_of({name: entry["fingerprint"] for name, entry in inputs.items()}),
        "packages": digest_of(code["packages"]),
    }
    complete(TaskPlan)
    complete(Plan)
    if not parts.created:
        parts.created = _created(project.root, command)
    return Plan(
        digest=digest_of(digests),
        digests=digests,
        name=job.name,
        job=values,
        tasks=_tasks(job),
        data=data,
        inputs=inputs,
        packages=code["packages"],
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        created=parts.created,
        code=code["snapshot"],
        terms=_terms(job, search),
    )


def _terms(job: Job, search: list[Path]) -> dict[str, Any]:
    if job.training.mode != "federated" or (job.federation.listen is None and job.federation.join is None):
        return {}
    from ai4sdk.planning.terms import terms_of

    return terms_of(job, search)


def _shared_data(
    job: Job, project: Path, parts: Parts, findings: list[Finding], faults: list[Ai4Error]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    if job.function is not None:
        # Only text names files: points that differ in numbers share what was found.
        key = digest_of({name: value for name, value in job.function.arguments.items() if isinstance(value, str)})
    else:
        read = {
            name: dataset.model_dump(mode="json", by_alias=True, exclude={"loader"})
            for name, dataset in job.datasets.items()
        }
        key = digest_of([read, job.storage.model_dump(mode="json"), job.task, job.site_column])
    if key not in parts.data:
        found = _data(job, project, findings, faults)
        if faults:
            return found
        parts.data[key] = list(found)
    data, summary = parts.data[key]
    return data, summary


def _shared_inputs(job: Job, project: Path, parts: Parts, findings: list[Finding]) -> dict[str, dict[str, Any]]:
    key = job.training.init_from or ""
    if key not in parts.inputs:
        before = len(findings)
        found = _inputs(job, project, findings)
        if len(findings) > before:
            return found
        parts.inputs[key] = found
    return dict(parts.inputs[key])


def _shared_code(job: Job, search: list[Path], parts: Parts) -> dict[str, Any]:
    key = " ".join(targets_of(job))
    if key not in parts.code:
        code = take_snapshot(targets_of(job), search)
        packages = package_versions(code.external) if job.function is None else package_versions(code.external, ())
        parts.code[key] = {"digest": code.digest, "snapshot": _code(code), "packages": packages}
    return dict(parts.code[key])


def _code(code: CodeSnapshot) -> dict[str, Any]:
    return {"paths": [""], **code.to_json()}


def _tasks(job: Job) -> list[TaskPlan]:
    hardware = job.hardware
    kind: Literal["train", "federate", "call"] = "train" if job.function is None else "call"
    if kind == "train" and job.training.mode == "federated":
        kind = "federate"
    return [
        TaskPlan(
            name=kind,
            kind=kind,
            processes=scale_of(job).processes,
            cpus=hardware.cpus,
            gpus=hardware.gpus,
            nodes=hardware.nodes,
            memory=hardware.memory,
            disk=hardware.disk,
            wall_time=hardware.wall_time,
        )
    ]


def _data(
    job: Job, project: Path, findings: list[Finding], faults: list[Ai4Error]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """Fingerprint and summarise the dataset; what is wrong with it is added to the findings."""
    if job.function is not None:
        entry = _named_files(job.function, project)
        return ({"function": entry} if entry["paths"] else {}), {}
    entries: dict[str, dict[str, Any]] = {}
    known: dict[str, Any] | None = None
    for key, dataset in job.datasets.items():
        if not isinstance(dataset, FileDataset):
            entries[key] = _named_files(dataset, project)
        elif found := _files(job, key, dataset, project, findings, faults):
            entries[key] = found
            known = known or _known(found["summary"])
    return entries, {} if faults else known


def _files(
    job: Job, key: str, dataset: FileDataset, project: Path, findings: list[Finding], faults: list[Ai4Error]
) -> dict[str, Any] | None:
    """Fingerprint and summarise files."""
    from ai4sdk.data.fingerprint import fingerprint_source
    from ai4sdk.data.source import find_source
    from ai4sdk.data.summary import summarize_source

    try:
        source = find_source(dataset, job.storage, project)
        found = fingerprint_source(source)
        if dataset.fingerprint and dataset.fingerprint != found.value:
            raise DataError(
                f"the data at {dataset.uri} has the fingerprint {found.value}, not the one asked for",
                hint=f"get the data that was meant, or accept this: {key}.fingerprint={found.value}",
            )
        summary = summarize_source(source, dataset, job.storage, job.task, job.site_column).to_json()
    except (DataError, EnvironmentFault, NotFound) as error:
        findings.append(Finding(f"{key}.uri", error.message, error.hint))
        faults.append(error)
        return None
    return {
        "uri": dataset.uri,
        "fingerprint": found.value,
        "files": found.files,
        "bytes": found.bytes,
        "summary": summary,
    }


def _named_files(target: Target, project: Path) -> dict[str, Any]:
    """Fingerprint the files and folders that a target's arguments name."""
    paths = {}
    for name, value in target.arguments.items():
        path = Path(project, value) if isinstance(value, str) and value and len(value) < 1024 else None
        if path is not None and "\0" not in str(path) and path.exists():
            from ai4sdk.data.fingerprint import fingerprint_path

            paths[name] = fingerprint_path(path)
    return {"uri": target.target, "fingerprint": digest_of(paths), "paths": paths}


def _known(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what `${data:…}` may refer to."""
    shape = summary.get("shape")
    channels = shape[0] if isinstance(shape, list) and len(shape) == 3 else None
    known = {name: summary.get(name) for name in ("features", "classes", "rows", "shape")}
    return {**known, "channels": channels}


def _inputs(job: Job, project: Path, findings: list[Finding]) -> dict[str, dict[str, Any]]:
    """Find the weights a training starts from."""
    source = job.training.init_from
    if source is None:
        return {}
    from ai4sdk.data.fingerprint import fingerprint_path

    try:
        folder = Path(project, source)
        if not (folder / "weights.safetensors").is_file():
            paths = find_run(source, Path(project, job.runs))
            folder = paths.package if paths.package.is_dir() else paths.checkpoints
        candidates = [folder / name for name in ("weights.safetensors", "best.ckpt", "last.ckpt")]
        weights = next((path for path in candidates if path.is_file()), None)
        if weights is None:
            raise NotFound(f"{source} has no weights yet", hint="name a run that has trained, or a model package")
    except NotFound as error:
        findings.append(Finding("training.init_from", error.message, error.hint))
        return {}
    entry = {"source": source, "path": str(weights.resolve()), "fingerprint": fingerprint_path(weights)}
    return {"init_from": entry}


def _created(project: Path, command: Sequence[str]) -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    created: dict[str, Any] = {
        "time": round(time.time(), 3),
        "host": platform.node(),
        "user": user,
        "project": str(project),
        "command": list(command),
    }
    if commit := _git_commit(project):
        created["git_commit"] = commit
    return created


def _git_commit(folder: Path) -> str | None:
    """Read the commit a project stands on from git's own files; starting git costs more than the whole plan."""
    for parent in (folder, *folder.parents):
        head = parent / ".git" / "HEAD"
        if not head.is_file():
            continue
        try:
            text = head.read_text(encoding="utf-8").strip()
            if text.startswith("ref: "):
                reference = parent / ".git" / text[5:]
                text = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
        except OSError:
            return None
        return text or None
    return None


def _error(loaded: Loaded, findings: list[Finding], faults: list[Ai4Error]) -> ConfigError:
    composition = loaded.composition
    problems = [
        located(composition, finding.key, finding.message, finding.fix)
        if finding.key
        else Problem(finding.message, fix=finding.fix)
        for finding in findings
    ]
    error = ConfigError(problems)
    if faults and len(faults) == len(findings):
        error.exit_code = faults[0].exit_code  # the config is right; what it names is not there
    return error
