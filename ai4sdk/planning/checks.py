"""What a job must satisfy beyond the types of its fields: one small function a check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from ai4sdk.planning.targets import TargetReport, check_target, nearest_name, parameters
from ai4sdk.spec import Job, KubernetesBackend, Section, TargetDataset
from ai4sdk.spec.federation import STRATEGIES
from ai4sdk.spec.job import SECTIONS_OF_A_TRAINING
from ai4sdk.spec.privacy import Privacy
from ai4sdk.spec.scale import scale_of
from ai4sdk.spec.target import HYDRA_KEYS

__all__ = ["Finding", "check_job", "targets_of"]

LIGHTNING_MODULE = ("pytorch_lightning.core.module.LightningModule", "lightning.pytorch.core.module.LightningModule")
OWNED_TRAINER_OPTIONS = {
    "accelerator": "hardware.gpus",
    "devices": "hardware.gpus",
    "num_nodes": "hardware.nodes",
    "strategy": "training.mode",
    "sync_batchnorm": "training.sync_batchnorm",
    "use_distributed_sampler": "training.mode",
    "logger": "tracking",
    "callbacks": "training.callbacks",
    "enable_progress_bar": "the command line",
    "enable_checkpointing": "training.checkpoint",
    "default_root_dir": "runs",
    **{
        name: f"training.{name}"
        for name in (
            "max_epochs",
            "max_steps",
            "max_time",
            "precision",
            "accumulate_grad_batches",
            "gradient_clip_val",
            "gradient_clip_algorithm",
            "deterministic",
            "log_every_n_steps",
        )
    },
}
"""Options of Lightning's Trainer that ai4sdk sets, and the key that decides them."""

SECRET_KEYS = ("storage.password", "storage.token", "tracking.password", "tracking.token")
_REFERENCE = re.compile(r"\$\{secret:[^}]+\}")


@dataclass(frozen=True)
class Finding:
    """A mistake a check found: the key it is about, what is wrong, and what to type instead."""

    key: str
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class _Target:
    key: str
    path: str
    arguments: tuple[str, ...]
    positional: int
    partial: bool
    values: Mapping[str, Any]


def check_job(job: Job, search: list[Path], known: dict[Any, TargetReport] | None = None) -> list[Finding]:
    """Run every check.

    Parameters
    ----------
    job
        The job.
    search
        Folders the user's code is imported from, first wins.
    known
        What reading the sources of targets showed for earlier jobs, and takes what it shows for this one.

    Returns
    -------
    list of Finding
        All mistakes; empty for a job that can be planned.
    """
    found = list(_targets_exist(job, search, {} if known is None else known))
    return found + [finding for check in _CHECKS for finding in check(job, search)]


def targets_of(job: Job) -> list[str]:
    """Return every dotted path the job names as a ``_target_``, nested ones too, each once."""
    return list(dict.fromkeys(target.path for target in _targets(job)))


def _targets(job: Job) -> Iterator[_Target]:
    unused = job.unused
    values = {key: value for key, value in job.model_dump(by_alias=True).items() if key not in unused}
    values.pop("dataset", None)
    sites = values.get("federation", {}).pop("sites", {})
    positional = {"optimizer": 1, "scheduler.schedule": 1}
    yield from _walk(values, "", positional)
    for key, dataset in job.datasets.items():
        if isinstance(dataset, TargetDataset):
            yield from _walk(dataset.as_config(), key, positional)
    for name in sites if "federation" not in unused and job.federation.rehearsed else ():
        key = f"federation.sites.{name}.optimizer"
        yield from _walk(sites[name]["optimizer"], key, {key: 1})


def _walk(value: Any, key: str, positional: Mapping[str, int]) -> Iterator[_Target]:
    if isinstance(value, dict):
        if isinstance(path := value.get("_target_"), str):
            given = value.get("_args_")
            count = positional.get(key, 0) + (len(given) if isinstance(given, list) else 0)
            arguments = tuple(str(name) for name in value if name not in HYDRA_KEYS)
            yield _Target(key, path, arguments, count, bool(value.get("_partial_", False)), value)
        for name, child in value.items():
            yield from _walk(child, f"{key}.{name}".lstrip("."), positional)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _walk(child, f"{key}.{index}", positional)


def _targets_exist(job: Job, search: list[Path], known: dict[Any, TargetReport]) -> Iterator[Finding]:
    for target in _targets(job):
        question = (target.path, target.arguments, target.positional, target.partial)
        if question not in known:
            known[question] = check_target(
                target.path, target.arguments, search, positional=target.positional, partial=target.partial
            )
        report = known[question]
        for problem in report.problems:
            if problem.argument is not None and problem.argument in target.arguments:
                yield Finding(f"{target.key}.{problem.argument}", problem.message, problem.fix)
            elif problem.argument is not None:
                yield Finding(target.key, problem.message, problem.fix)
            else:
                yield Finding(f"{target.key}._target_", problem.message, problem.fix)
        yield from _wrong_kinds(target, report)
        certain = report.found and report.certain and report.kind == "class" and not report.problems
        if target.key == "module" and certain and not set(report.bases) & set(LIGHTNING_MODULE):
            yield Finding(
                "module._target_",
                f"{target.path} is no LightningModule",
                "name a class that derives from pytorch_lightning.LightningModule",
            )


def _wrong_kinds(target: _Target, report: TargetReport) -> Iterator[Finding]:
    """Find text and lists where a number or a flag is asked for, and fractions where a whole number is."""
    for name, kind in report.takes.items():
        value = target.values.get(name)
        if not _is_other(value, kind):
            continue
        key = f"{target.key}.{name}"
        fix = None
        if isinstance(value, str) and kind != "true or false":
            with suppress(ValueError):
                fix = f"{key}={float(value):g}, without quotes"
        shown = repr(value) if isinstance(value, str) else value
        yield Finding(key, f"{key} must be {kind}, not {shown}: {target.path} says so", fix)


def _is_other(value: Any, kind: str) -> bool:
    """Tell whether a value is surely of another kind; references are not known yet, and 8.0 may do for 8."""
    if isinstance(value, float):
        return kind == "a whole number" and isfinite(value) and not value.is_integer()
    return isinstance(value, list) or (isinstance(value, str) and "${" not in value)


def _function_uses_what_is_given(job: Job, search: list[Path]) -> Iterator[Finding]:
    if job.function is None:
        return
    for name in SECTIONS_OF_A_TRAINING:
        default = Job.model_fields[name].get_default(call_default_factory=True)
        for key in _changed(getattr(job, name), default, name):
            yield Finding(key, f"{key} is about trainings, and this job calls a function", "remove it")


def _changed(value: Any, default: Any, key: str) -> Iterator[str]:
    if isinstance(value, Section) and type(value) is type(default):
        for name in type(value).model_fields:
            yield from _changed(getattr(value, name), getattr(default, name), f"{key}.{name}")
    elif value != default:
        yield key


def _trainer_options_exist(job: Job, search: list[Path]) -> Iterator[Finding]:
    if not job.training.trainer:
        return
    known = [parameter.name for parameter in parameters("pytorch_lightning.Trainer", search) or ()]
    for name in job.training.trainer:
        if name in OWNED_TRAINER_OPTIONS:
            yield Finding(
                f"training.trainer.{name}",
                f"{name} is decided by {OWNED_TRAINER_OPTIONS[name]}",
                f"set {OWNED_TRAINER_OPTIONS[name]} instead",
            )
        elif known and name not in known:
            near = nearest_name(name, known)
            fix = f"training.trainer.{near}" if near else f"one of {', '.join(sorted(set(known)))}"
            yield Finding(f"training.trainer.{name}", f"Lightning's Trainer has no option {name!r}", fix)


def _schedule_fits_optimizer(job: Job, search: list[Path]) -> Iterator[Finding]:
    if job.scheduler is None:
        return
    if job.optimizer is None:
        yield Finding("scheduler", "a scheduler needs an optimizer in YAML too", "optimizer=adam, or scheduler=none")
    if job.scheduler.schedule.target.endswith("ReduceLROnPlateau") and job.scheduler.monitor is None:
        yield Finding("scheduler", "ReduceLROnPlateau needs a metric to watch", "scheduler.monitor=val_loss")


def _evaluated_split_exists(job: Job, search: list[Path]) -> Iterator[Finding]:
    wanted = job.evaluation.split
    empty = [key for key, made in job.datasets.items() if made.splits and not getattr(made.splits, wanted)]
    if empty and len(empty) == len(job.datasets):
        yield Finding(
            "evaluation.split",
            f"evaluation asks for the {wanted} split, which is empty",
            f"give dataset.splits.{wanted} a share, or evaluation.split=train",
        )


def _monitors_have_validation(job: Job, search: list[Path]) -> Iterator[Finding]:
    splits = [dataset.splits for dataset in job.datasets.values()]
    nothing = bool(splits) and all(made is not None and not made.val for made in splits)
    monitored = {
        "training.early_stopping.monitor": job.training.early_stopping and job.training.early_stopping.monitor,
        "training.checkpoint.monitor": job.training.checkpoint.monitor,
    }
    for key, metric in monitored.items():
        if metric and metric.startswith("val") and nothing:
            yield Finding(key, f"{metric} is watched, but there is no validation split", "dataset.splits.val=0.15")


def _secrets_are_references(job: Job, search: list[Path]) -> Iterator[Finding]:
    values = job.model_dump(by_alias=True)
    for key in SECRET_KEYS:
        section, _, name = key.partition(".")
        value = values[section][name]
        if value and not _REFERENCE.fullmatch(value):
            yield Finding(
                key,
                f"{key} is written out; a plan keeps what it is given, for anyone to read",
                f"{name}: ${{secret:NAME}}, and export NAME=…",
            )
    for key, text in _strings(values, ""):
        if _REFERENCE.search(text) and not _REFERENCE.fullmatch(text):
            yield Finding(key, "a secret must be the whole of a value", "put the whole value into the secret")


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in items:
        yield from _strings(child, f"{key}.{name}".lstrip("."))


def _backend_has_what_is_asked(job: Job, search: list[Path]) -> Iterator[Finding]:
    if job.backend.kind == "local" and job.hardware.nodes > 1:
        yield Finding(
            "hardware.nodes",
            f"the local backend has one machine, not {job.hardware.nodes}",
            "hardware.nodes=1, or a backend that has several",
        )
    if job.backend.kind == "ray" and job.hardware.nodes > 1:
        yield Finding("hardware.nodes", "a Ray job of a run is on one node", "hardware.nodes=1, or backend=slurm")


def _pods_get_the_secrets(job: Job, search: list[Path]) -> Iterator[Finding]:
    if not isinstance(job.backend, KubernetesBackend):
        return
    for key, text in _strings(job.model_dump(by_alias=True), ""):
        name = text.removeprefix("${secret:").removesuffix("}")
        used = key.partition(".")[0] not in job.unused
        if used and _REFERENCE.fullmatch(text) and name not in job.backend.secrets:
            yield Finding(key, f"pods do not get the secret {name}", f"++backend.secrets.{name}=SECRET/KEY")


def _one_process_uses_one_gpu(job: Job, search: list[Path]) -> Iterator[Finding]:
    if job.function is None and job.training.mode == "single" and job.hardware.gpus > 1:
        yield Finding(
            "hardware.gpus",
            f"training.mode single is one process on at most one GPU, not {job.hardware.gpus}",
            "training=ddp for one process a GPU, or hardware.gpus=1",
        )


def _processes_fit(job: Job, search: list[Path]) -> Iterator[Finding]:
    training, hardware = job.training, job.hardware
    if training.mode != "ddp" and training.find_unused_parameters is not None:
        fix = "training=ddp, or remove it"
        yield Finding("training.find_unused_parameters", "only training.mode ddp looks for unused parameters", fix)
    if not training.is_shared:
        for key in ("processes", "sync_batchnorm"):
            if getattr(training, key):
                yield Finding(f"training.{key}", f"{key} is about several processes", "training=ddp, or remove it")
        # Backends that have one node for a job say so themselves.
        if hardware.nodes > 1 and job.function is None and job.backend.kind in ("slurm", "kubernetes"):
            yield Finding("hardware.nodes", "training.mode single is one process on one node", "training=ddp")
        return
    if hardware.gpus and training.processes not in (None, hardware.gpus):
        yield Finding(
            "training.processes",
            f"each process has a GPU of its own: {training.processes} processes do not fit {hardware.gpus} GPUs",
            f"hardware.gpus={training.processes}, or leave training.processes out",
        )
    if not hardware.gpus and training.processes is None:
        yield Finding("training.processes", "how many processes on CPU is not said", "training.processes=2")
    if not hardware.gpus and (training.processes or 0) > hardware.cpus:
        yield Finding(
            "training.processes",
            f"{training.processes} processes on {hardware.cpus} CPU cores are less than a core each",
            f"hardware.cpus={training.processes}",
        )
    if training.trainer.get("overfit_batches"):
        yield Finding(
            "training.trainer.overfit_batches",
            "Lightning makes loaders of its own for it, which several processes cannot divide",
            "training.trainer.limit_train_batches, or training=single",
        )
    if training.mode == "fsdp" and training.precision == "16-mixed":
        yield Finding(
            "training.precision",
            "16-mixed scales the loss by what all gradients are, of which each process has a slice",
            "training.precision=bf16-mixed, or training=ddp",
        )
    if training.sync_batchnorm and not hardware.gpus:
        yield Finding("training.sync_batchnorm", "torch has it for GPUs only", "training.sync_batchnorm=false")


def _batches_divide(job: Job, search: list[Path]) -> Iterator[Finding]:
    if job.function is not None or (size := job.training.global_batch_size) is None:
        return
    scale, accumulate = scale_of(job), job.training.accumulate_grad_batches
    if size % (scale.world_size * accumulate):
        parts = scale.world_size * accumulate
        near = max(1, round(size / parts)) * parts
        among = f"{scale.world_size} process{'es' if scale.world_size > 1 else ''}"
        batches = f" of {accumulate} accumulated batches each" if accumulate > 1 else ""
        yield Finding(
            "training.global_batch_size",
            f"{size} samples cannot be divided evenly among {among}{batches}",
            f"training.global_batch_size={near}",
        )


def _learning_rate_can_be_scaled(job: Job, search: list[Path]) -> Iterator[Finding]:
    if job.training.scale_learning_rate == "none" or job.function is not None:
        return
    if job.optimizer is None:
        yield Finding(
            "training.scale_learning_rate",
            "the module makes its own optimizer, whose rate is not known",
            "optimizer=adam",
        )
    elif not isinstance(job.optimizer.arguments.get("lr"), int | float):
        yield Finding("training.scale_learning_rate", "the optimizer is given no learning rate", "optimizer.lr=1e-3")


def _federation_is_as_long_as_said(job: Job, search: list[Path]) -> Iterator[Finding]:
    if job.training.mode != "federated" or job.function is not None:
        return
    training, federation = job.training, job.federation
    key, length, part = (
        ("training.max_epochs", training.max_epochs, federation.local_epochs)
        if federation.local_steps is None
        else ("training.max_steps", training.max_steps, federation.local_steps)
    )
    assert part is not None
    unit = key.rpartition("_")[2]
    if federation.rounds is None and length is None:
        yield Finding("federation.rounds", "how many rounds there are is not said", "federation.rounds=10")
    elif federation.rounds is None and length is not None and length % part:
        near = max(1, round(length / part)) * part
        yield Finding(key, f"{length} {unit} cannot be divided into rounds of {part}", f"{key}={near}")
    elif federation.rounds is not None and length != federation.rounds * part and job.scheduler is not None:
        whole = federation.rounds * part
        yield Finding(
            "federation.rounds",
            f"{federation.rounds} rounds of {part} are {whole} {unit}, and the learning rate follows {key}, {length}",
            f"{key}={whole}, without federation.rounds",
        )


def _federation_can_train_so(job: Job, search: list[Path]) -> Iterator[Finding]:
    if job.training.mode != "federated" or job.function is not None:
        return
    training, hardware = job.training, job.hardware
    real = [name for name in ("listen", "join") if getattr(job.federation, name) is not None]
    own = job.federation.rehearsed
    if job.federation.partition is None and not real and not own:
        fix = "++federation.partition.sites=4 rehearses it; `ai4sdk federated server` waits for real ones"
        yield Finding("federation.partition", "the sites are not said", fix)
    if len(real) + (job.federation.partition is not None) > 1:
        yield Finding(
            f"federation.{real[0]}",
            "a federation is rehearsed (partition), led (listen) or joined (join), one of them",
            f"~federation.{real[0]} rehearses it; federation.partition=null is for real sites",
        )
    if job.federation.partition is not None and own:
        message = "sites either divide one dataset (partition) or have data of their own (sites)"
        yield Finding("federation.partition", message, "federation.partition=null")
    if job.federation.scaling == "apart" and job.federation.partition is not None:
        message = "one dataset is scaled before it is divided; sites with files of their own can be scaled apart"
        yield Finding("federation.scaling", message, "federation.scaling=together, or federation.sites")
    yield from _sites_train_so_long(job)
    if real and job.federation.slow:
        yield Finding("federation.slow", "slow sites are simulated in rehearsals only", "~federation.slow")
    if own and (unknown := [site for site in job.federation.slow if site not in own]):
        yield Finding("federation.slow", f"there is no site {unknown[0]}", f"sites are {', '.join(own)}")
    if job.federation.enough is not None and job.federation.enough < job.federation.min_sites:
        message = f"a round needs {job.federation.min_sites} answers, and ends with {job.federation.enough}"
        yield Finding("federation.enough", message, f"federation.enough={job.federation.min_sites} or more")
    if real and job.federation.availability.kind != "always":
        yield Finding("federation.availability", "outages are simulated in rehearsals only", "~federation.availability")
    sites = len(own) or (job.federation.partition.sites if job.federation.partition is not None else None)
    if sites is not None and sites < job.federation.min_sites:
        yield Finding(
            "federation.min_sites",
            f"a round needs {job.federation.min_sites} sites, and there are {sites}",
            f"federation.min_sites={sites}, or more federation.{'sites' if own else 'partition.sites'}",
        )
    if training.max_time is not None:
        yield Finding("training.max_time", "a federation ends after its rounds", "hardware.wall_time limits the run")
    if job.scheduler is not None and job.scheduler.monitor is not None:
        yield Finding("scheduler.monitor", "sites cannot see the federation's metrics", "scheduler=cosine, or another")
    if hardware.nodes > 1:
        yield Finding("hardware.nodes", "a federation is rehearsed on one machine", "hardware.nodes=1")
    if hardware.gpus > 1:
        yield Finding("hardware.gpus", "sites of a rehearsal share one GPU", "hardware.gpus=1")
    if hardware.gpus and (job.federation.processes or 1) > 1:
        yield Finding("federation.processes", "a GPU is used by one process", "federation.processes=1")
    for key in ("training.checkpoint.monitor", "training.early_stopping.monitor"):
        section = getattr(training, key.split(".")[1])
        metric = section.monitor if section is not None else None
        if metric and metric.startswith("server/") and job.federation.evaluate not in ("server", "both"):
            yield Finding(key, f"nobody measures {metric}", "federation.evaluate=both")


def _sites_train_so_long(job: Job) -> Iterator[Finding]:
    """Find sites whose part of a round is said in another unit than that of all."""
    units = ("local_epochs", "local_steps")
    mine, other = units if job.federation.local_steps is None else reversed(units)
    for name, site in job.federation.sites.items():
        if getattr(site, other) is not None:
            message = f"federation.{mine} is what a round's part is said in, for all sites"
            yield Finding(f"federation.sites.{name}.{other}", message, f"federation.sites.{name}.{mine}")


def _federation_keeps_what_it_can(job: Job, search: list[Path]) -> Iterator[Finding]:
    federation = job.federation
    if job.training.mode != "federated" or job.function is not None:
        return
    if not federation.shares_all and federation.evaluate in ("server", "both"):
        key = "federation.share" if "*" not in federation.share else "federation.batchnorm"
        message = f"the server has not all of the module, as {key} leaves parts at the sites, and cannot judge it"
        yield Finding("federation.evaluate", message, "federation.evaluate=sites")
    if federation.late is not None:
        yield from _late_answers_can_count(job)
    if federation.strategy.target == STRATEGIES["scaffold"] and federation.privacy is not None:
        message = "SCAFFOLD also sends how gradients changed, which no noise is added to"
        yield Finding("federation.privacy", message, "another federation.strategy, such as fedavg or fedprox")


def _late_answers_can_count(job: Job) -> Iterator[Finding]:
    """Find what cannot be done with an answer to weights of an earlier round."""
    federation = job.federation
    if federation.strategy.target == STRATEGIES["scaffold"]:
        message = "SCAFFOLD's corrections are those of the round that they are sent in"
        yield Finding("federation.late", message, "federation.late=null, or another federation.strategy")
    if federation.privacy is not None and federation.privacy.mode == "central":
        message = "noise is made for answers that count alike, and late ones count less"
        yield Finding("federation.late", message, "federation.late=null, or federation.privacy.mode=local")


_MEANS = ("FedAvg", "FedAvgM", "FedProx", "FedAdam", "FedYogi", "FedAdagrad")
"""Strategies of Flower that take the mean of what sites send, so that it is known how far one site moves it."""


def _privacy_can_be_promised(job: Job, search: list[Path]) -> Iterator[Finding]:
    privacy = job.federation.privacy
    if job.training.mode != "federated" or job.function is not None or privacy is None:
        return
    if privacy.mode == "record":
        yield from _records_can_be_protected(job, privacy)
    elif privacy.sampling != "none":
        yield Finding(
            "federation.privacy.sampling",
            "all sites know who takes part in a round, so that nothing is gained from being chosen",
            "federation.privacy.sampling=none",
        )
    known = [f"flwr.serverapp.strategy.{name}" for name in _MEANS]
    if privacy.mode == "central" and job.federation.strategy.target not in known:
        yield Finding(
            "federation.privacy.mode",
            f"how much noise {job.federation.strategy.target.rpartition('.')[2]} needs is not known",
            f"federation.strategy=fedavg, or another mean ({', '.join(_MEANS)}); or federation.privacy.mode=local",
        )


def _records_can_be_protected(job: Job, privacy: Privacy) -> Iterator[Finding]:
    """Find what gradients of single records cannot be had with."""
    if privacy.sampling != "poisson":
        message = "batches are drawn so that each record is in one by itself, with the same chance"
        yield Finding("federation.privacy.sampling", message, "federation.privacy.sampling=poisson, or leave it out")
    if job.training.accumulate_grad_batches > 1:
        message = "noise is added to each batch, so that accumulated ones would each have it"
        yield Finding("training.accumulate_grad_batches", message, "a larger dataset.loader.batch_size instead")
    if job.training.precision.startswith("16"):
        message = "losses are scaled in 16 bits, and so would be the gradients that are clipped"
        yield Finding("training.precision", message, "training.precision=bf16-mixed or 32-true")


def _unfreezing_leaves_something(job: Job, search: list[Path]) -> Iterator[Finding]:
    if "*" in job.training.freeze:
        yield Finding("training.freeze", "the pattern '*' freezes everything", "name the layers, such as 'backbone.*'")


_CHECKS: tuple[Callable[[Job, list[Path]], Iterator[Finding]], ...] = (
    _function_uses_what_is_given,
    _trainer_options_exist,
    _schedule_fits_optimizer,
    _evaluated_split_exists,
    _monitors_have_validation,
    _secrets_are_references,
    _backend_has_what_is_asked,
    _pods_get_the_secrets,
    _one_process_uses_one_gpu,
    _processes_fit,
    _batches_divide,
    _learning_rate_can_be_scaled,
    _federation_is_as_long_as_said,
    _federation_can_train_so,
    _federation_keeps_what_it_can,
    _privacy_can_be_promised,
    _unfreezing_leaves_something,
)
