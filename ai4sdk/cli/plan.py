"""`ai4sdk plan`."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai4sdk.backends.base import Command
from ai4sdk.backends.registry import get_backend
from ai4sdk.cli.arguments import Parser, split_config
from ai4sdk.config.keys import value_at
from ai4sdk.config.load import Loaded, has_axes, inspect_job
from ai4sdk.config.project import Project, display_path, find_project
from ai4sdk.config.validate import located
from ai4sdk.errors import ConfigError, EnvironmentFault, Problem, UsageError
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.plan import Plan, TaskPlan
from ai4sdk.runs.files import write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import FileDataset, Job
from ai4sdk.spec.privacy import Privacy
from ai4sdk.spec.scale import Scale, scale_of
from ai4sdk.spec.units import format_size, format_span

EPILOG = """\
examples:
  ai4sdk plan config=quickstart
  ai4sdk plan config=quickstart --deep            parameters, memory and shapes too (imports torch)
  ai4sdk plan config=quickstart --calibrate       how long it takes, too (trains for some seconds)
  ai4sdk plan config=quickstart --out plan.json   then: ai4sdk run --plan plan.json
  ai4sdk plan config=mine +backend=kubernetes --script | kubectl create -f -
"""


def main(command: str, argv: Sequence[str]) -> int:
    """Show what would run."""
    parser = Parser(command, "Check a config and show what would run, without running it.", EPILOG)
    parser.add_argument(
        "overrides", nargs="*", metavar="config=NAME KEY=VALUE", help="config and overrides (Hydra's grammar)"
    )
    parser.add_argument("--out", metavar="FILE", help="write the plan to a file")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--script", action="store_true", help="print what a cluster would be given, and nothing else")
    parser.add_argument("--deep", action="store_true", help="build the module and the data in a separate process, too")
    parser.add_argument("--calibrate", action="store_true", help="--deep, and train for some seconds to tell the time")
    parser.add_argument("-m", "--multirun", action="store_true", help="of a study: values may be several, as in a=1,2")
    args = parser.parse(argv)
    config, overrides = split_config(command, args.overrides)
    project = find_project()
    composition, job, problems = inspect_job(config, overrides)
    if args.multirun or has_axes(composition):
        return _show_study(config, overrides, project, as_json=args.json)
    if job is None:
        raise ConfigError(problems)
    plan = make_plan(Loaded(job, composition), command=["ai4sdk", command, *argv])
    args.deep = args.deep or args.calibrate
    if args.deep and plan.job.get("function"):
        raise UsageError("--deep looks into modules, and this job calls a function", hint="leave out --deep")
    deep = _look_deep(plan, project.root, calibrate=args.calibrate) if args.deep else None
    lacking, compared = _compare(plan)
    if args.out:
        try:
            write_text(Path(args.out), plan.to_json())
        except OSError as error:
            raise EnvironmentFault(f"{args.out} cannot be written: {error.strerror}") from error
    if args.script:
        print(_script(plan, project.root), end="")
    elif args.json:
        values = plan.model_dump(mode="json")
        print(json.dumps({**values, "deep": deep} if deep else values, indent=2, ensure_ascii=False))
    else:
        for line in plan_lines(plan, project.root, deep["rows"] if deep else None, compared):
            print(line)
    if lacking:
        raise ConfigError(located(composition, one.key, one.message, one.fix) for one in lacking)
    if deep and deep["refused"]:
        raise ConfigError([located(composition, deep["key"], deep["refused"], deep["hint"])])
    if args.json or args.script:
        return 0
    if args.out:
        print(f"\nwritten to {args.out}\n  → ai4sdk run --plan {args.out}")
    else:
        print(f"\n  → ai4sdk run {' '.join(args.overrides)}")
    return 0


def _show_study(config: str, overrides: Sequence[str], project: Project, *, as_json: bool) -> int:
    from ai4sdk.cli.study import study_lines
    from ai4sdk.studies.plan import make_study

    study = make_study(config, overrides, project)
    if as_json:
        points = [{"number": p.number, "params": p.params, "digest": p.digest} for p in study.points]
        print(json.dumps({"digest": study.digest, "total": study.total, "points": points}, indent=2))
        return 0
    for line in study_lines(study, project):
        print(line)
    lacking, compared = _compare(study.first)
    if compared:
        print(f"  cluster: {compared}")
    if lacking:
        raise ConfigError(lacking)
    print(f"\n  → ai4sdk run -m {shlex.join([f'config={config}', *overrides])}")
    return 0


def _compare(plan: Plan) -> tuple[list[Problem], str | None]:
    """Compare a plan with what its backend can have, if that can be asked: its problems, and what was done."""
    compare = getattr(get_backend(plan.job["backend"]["kind"]), "compare", None)
    return compare(plan) if compare is not None else ([], None)


def plan_lines(plan: Plan, project: Path, deep: dict[str, Any] | None = None, compared: str | None = None) -> list[str]:
    """Return a plan as a person reads it; ``compared`` says what it was compared with."""
    job = plan.job
    rows: list[tuple[str, str]] = [("plan", f"{plan.name}  {plan.digest}")]
    for task in plan.tasks:
        rows.append(("task", f"{task.name}: {_processes(task)}, {_resources(task.model_dump())}"))
    if job.get("function"):
        rows.append(("function", _target(job["function"])))
        files = [path for entry in plan.data.values() for path in entry["paths"]]
        rows += [("files", f"of {', '.join(files)}")] if files else []
    else:
        rows.append(("module", _target(job["module"])))
        for name, entry in plan.data.items():
            site = name.removeprefix("federation.sites.").removesuffix(".dataset")
            rows.append((site, _data(entry, value_at(job, name))))
        rows.append(("training", _training(job)))
        if job["training"]["mode"] == "federated":
            rows.append(("federation", _federation(job["federation"])))
            rows += [("scaling", text)] if (text := _scaling(plan.as_job())) else []
            if job["federation"]["privacy"]:
                rows.append(("privacy", _privacy(job["federation"])))
        scale = scale_of(plan.as_job())
        if scale.world_size > 1 or scale.growth != 1:
            rows.append(("scale", _scale(scale, job)))
        rows.append(("optimizer", _target(job["optimizer"]) if job["optimizer"] else "the module's own"))
    for name, entry in plan.inputs.items():
        rows.append((name, f"{entry['source']}  {entry['fingerprint'][:19]}"))
    files = plan.code["files"]
    rows.append(("code", f"{_count(len(files), 'file')}  {plan.digests['code'][:19]}"))
    rows.append(("packages", "  ".join(f"{name} {version}" for name, version in plan.packages.items())))
    run = RunPaths(Path(project, job["runs"]) / "RUN")
    submission = get_backend(job["backend"]["kind"]).render(plan, run, project)
    rows.append(("backend", job["backend"]["kind"]))
    rows += [("cluster", compared)] if compared else []
    rows += [("starts", _started(command)) for command in [*submission.tasks, *submission.sidecars]]
    tracking = job["tracking"]
    where = tracking["uri"] or f"sqlite in {display_path(run.root.parent)}"
    rows.append(("tracking", "none" if tracking["kind"] == "none" else f"MLflow, {where}"))
    rows.append(("output", f"{display_path(run.root.parent)}/<id>"))
    rows += [("warning", text) for text in warnings_of(plan)]
    if deep:
        rows += [(name, str(value)) for name, value in deep.items()]
    width = max(len(name) for name, _ in rows)
    script = ["", *map(_shortened, submission.script.splitlines())] if submission.script else []
    return [f"{name:{width}}  {text}" for name, text in rows] + script


def warnings_of(plan: Plan) -> list[str]:
    """Return what the place where a plan would run does not have, a sentence each."""
    from ai4sdk.backends.local.machine import shortages

    return shortages(plan) if plan.job["backend"]["kind"] == "local" else []


def _processes(task: TaskPlan) -> str:
    processes = f"{task.processes} process" + ("es" if task.processes > 1 else "")
    return processes if task.nodes == 1 else f"{processes} on each of {task.nodes} nodes"


def _scale(scale: Scale, job: dict[str, Any]) -> str:
    """Say how many processes there are, what each takes of a step, and with which learning rate."""
    training = job["training"]
    parts = [f"world size {scale.world_size}"]
    if scale.batch_size is None:
        parts.append("batches of the loader's own, for each process")
    else:
        parts.append(f"{scale.batch_size} samples a batch and process")
    if training["accumulate_grad_batches"] > 1:
        parts.append(f"{training['accumulate_grad_batches']} batches a step")
    if scale.global_batch_size is not None:
        parts.append(f"{scale.global_batch_size} samples a step")
    if scale.learning_rate is not None:
        how, rate = training["scale_learning_rate"], job["optimizer"]["lr"]
        text = f"learning rate {scale.learning_rate:g}"
        parts.append(text if how == "none" else f"{text} ({how}: {rate:g} for 1/{scale.growth:g} of the samples)")
    return ", ".join(parts)


def _shortened(line: str) -> str:
    return line if len(line) <= 200 else f"{line[:100]}… ({len(line)} characters; whole with --script)"


def _script(plan: Plan, project: Path) -> str:
    """Return what a cluster would be given, of a run that is named by its plan; it can be handed over by hand."""
    kind = plan.job["backend"]["kind"]
    run = RunPaths(Path(project, plan.job["runs"]) / f"{plan.name}-{plan.short_digest}")
    script = get_backend(kind).render(plan, run, project).script
    if not script:
        raise UsageError(f"backend {kind} starts processes itself, without a script", hint="leave out --script")
    return script


def _started(command: Command) -> str:
    """Return a command line without what says which Python it is."""
    module = command.argv.index("-m")
    return " ".join([*command.argv[: module - 2], *command.argv[module + 1 :]])


def _resources(task: dict[str, Any]) -> str:
    parts = [f"{task['cpus']} CPU{'s' if task['cpus'] > 1 else ''}"]
    if task["gpus"]:
        parts.append(f"{task['gpus']} GPU{'s' if task['gpus'] > 1 else ''}")
    if task["memory"]:
        parts.append(f"{format_size(task['memory'])} memory")
    if task["disk"]:
        parts.append(f"{format_size(task['disk'])} disk")
    if task["wall_time"]:
        parts.append(f"at most {format_span(task['wall_time'])}")
    return ", ".join(parts)


def _target(target: dict[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in target.items() if not key.startswith("_"))
    return f"{target['_target_']}({arguments})"


def _training(job: dict[str, Any]) -> str:
    training = job["training"]
    ends = [f"{training['max_epochs']} epochs" if training["max_epochs"] else ""]
    ends.append(f"{training['max_steps']} steps" if training["max_steps"] else "")
    ends.append(format_span(training["max_time"]) if training["max_time"] else "")
    length = "at most " + ", ".join(end for end in ends if end)
    if training["mode"] == "federated":
        length = _rounds(job["federation"])
    parts = [training["mode"], length, f"precision {training['precision']}"]
    parts.append(f"seed {job['seed']}")
    if stop := training["early_stopping"]:
        parts.append(f"stops early on {stop['monitor']}")
    return ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _rounds(federation: dict[str, Any]) -> str:
    steps, unit = federation["local_steps"], "step"
    if steps is None:
        steps, unit = federation["local_epochs"], "epoch"
    return f"{_count(federation['rounds'], 'round')} of {_count(steps, unit)} a site"


def _federation(federation: dict[str, Any]) -> str:
    parts = [_target(federation["strategy"]), _sites(federation)]
    if federation["fraction"] < 1:
        parts.append(f"{federation['fraction']:.0%} of them a round")
    if federation["share"] != ["*"]:
        parts.append(f"shared are {', '.join(federation['share'])}")
    if federation["batchnorm"] != "average":
        parts.append(f"batch normalisation {federation['batchnorm'].replace('_', ' ')}")
    if federation["personal"]:
        parts.append(f"each site a module of its own (pull {federation['personal']['strength']:g})")
    return ", ".join(parts)


def _scaling(job: Job) -> str:
    """Say by what samples numbers in files are scaled, as a rehearsal and sites that join may differ in it."""
    federation = job.federation
    if not any(isinstance(one, FileDataset) and one.standardize for one in job.datasets.values()):
        return ""
    if federation.join is not None:
        return "numbers by this site's own training samples"
    if federation.listen is not None:
        return "numbers at each site by its own training samples, here by the coordinator's"
    if federation.scaling == "apart":
        return "numbers at each site by its own training samples, as sites that join do"
    hint = "" if federation.partition is not None else ": federation.scaling=apart rehearses that"
    return f"numbers by the training samples of all sites; sites that join scale by their own{hint}"


def _sites(federation: dict[str, Any]) -> str:
    if (join := federation["join"]) is not None:
        return f"as {join['site']}, led by {join['address']}"
    if (listen := federation["listen"]) is not None:
        return f"at least {_count(federation['min_sites'], 'site')} that join at {listen['address']}"
    if federation["sites"]:
        return f"{_count(len(federation['sites']), 'site')} with data of their own"
    divided = federation["partition"]
    sites = _count(len(divided["groups"]), "site") if divided["groups"] else ""
    sites = sites or (_count(divided["sites"], "site") if divided["sites"] else "a site for each value")
    how = {key: divided[key] for key in ("alpha", "sizes", "classes", "column") if divided[key] is not None}
    options = "".join(f", {key} {value}" for key, value in how.items())
    return f"{sites} of one dataset ({divided['method']}{options})"


def _privacy(federation: dict[str, Any]) -> str:
    from ai4sdk.privacy.spending import spends

    privacy = Privacy.model_validate(federation["privacy"])
    if privacy.mode == "record":
        noise = (
            f"noise {privacy.noise_multiplier:.3g}" if privacy.noise_multiplier else "the noise that each site needs"
        )
        most = f"epsilon {privacy.epsilon:g} at most" if privacy.epsilon else "epsilon as each site's size comes to"
        what = f"record, {noise}, gradients up to {privacy.clipping_norm:g}"
        return f"{what}: {most} at delta {privacy.delta:g} for a record"
    spent = f"epsilon {spends(privacy, federation['rounds']):.3g} at delta {privacy.delta:g} for a whole site"
    return f"{privacy.mode} noise {privacy.noise_multiplier:.3g}, updates up to {privacy.clipping_norm:g}: {spent}"


def _data(entry: dict[str, Any], dataset: dict[str, Any]) -> str:
    if "summary" not in entry:
        return _target({k: v for k, v in dataset.items() if k not in ("splits", "loader")})
    summary = entry["summary"]
    parts = [
        str(entry["uri"]),
        f"{entry['files']} file{'s' if entry['files'] != 1 else ''}, {format_size(entry['bytes'])}",
    ]
    if summary.get("rows") is not None:
        parts.append(f"{summary['rows']} samples")
    if summary.get("shape"):
        parts.append(f"of shape {tuple(summary['shape'])}")
    if summary.get("classes"):
        parts.append(f"{summary['classes']} classes")
    if not summary.get("complete", True):
        parts.append("(read in part)")
    return ", ".join(parts) + f"  {entry['fingerprint'][:19]}"


def _look_deep(plan: Plan, project: Path, *, calibrate: bool) -> dict[str, Any]:
    """Build the module and a batch in a process of its own, which may import torch."""
    process = subprocess.run(
        [sys.executable, "-P", "-m", "ai4sdk.worker.deep", *(["--calibrate"] if calibrate else [])],
        input=plan.to_json(),
        capture_output=True,
        text=True,
        cwd=project,
        check=False,
    )
    try:
        answer = json.loads(process.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        answer = {"error": (process.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    if process.returncode or "error" in answer:
        raise EnvironmentFault(
            f"the module cannot be built: {answer.get('error')}", hint="see module and dataset in the config"
        )
    return dict(answer)
