"""`ai4sdk run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ai4sdk.backends.launch import start_run
from ai4sdk.cli.arguments import Parser, split_config
from ai4sdk.cli.following import add_waiting_options, follow
from ai4sdk.cli.interrupts import interrupts_held
from ai4sdk.cli.plan import warnings_of
from ai4sdk.config.compose import Composition
from ai4sdk.config.load import Loaded, has_axes, inspect_job
from ai4sdk.config.project import find_project
from ai4sdk.config.validate import located
from ai4sdk.errors import ConfigError, UsageError
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.store import find_run

EPILOG = """\
examples:
  ai4sdk run config=quickstart
  ai4sdk run config=quickstart training.max_epochs=3 optimizer.lr=1e-3
  ai4sdk run config=my/job.yaml --detach
  ai4sdk run --plan plan.json
  ai4sdk run config=my/finetune.yaml backend=slurm --after pretraining
  ai4sdk run -m config=quickstart optimizer.lr=1e-2,1e-3 'seed=range(5)'     a study: every combination
"""


def main(command: str, argv: Sequence[str]) -> int:
    """Run a config or a plan."""
    parser = Parser(command, "Run a config or a plan on its backend.", EPILOG)
    parser.add_argument(
        "overrides", nargs="*", metavar="config=NAME KEY=VALUE", help="config and overrides (Hydra's grammar)"
    )
    parser.add_argument("--plan", metavar="FILE", help="run exactly this plan")
    parser.add_argument(
        "--after", metavar="RUN", action="append", default=[], help="begin once that run has succeeded (on Slurm)"
    )
    add_waiting_options(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help="a study: values may be several, as in a=1,2")
    args = parser.parse(argv)
    project = find_project()
    if args.multirun and args.plan is not None:
        raise UsageError("a plan is a single run; -m cannot be given with --plan", hint="leave out -m")
    after = [find_run(reference, project.root / "runs") for reference in args.after]
    if args.multirun:
        return _study(args.overrides, [command, *argv], detach=args.detach, wait=args.wait, after=after)
    composition = None
    if args.plan is not None:
        plan = _read(args.plan, args.overrides)
    else:
        config, overrides = split_config(command, args.overrides)
        composition, job, problems = inspect_job(config, overrides)
        if has_axes(composition):
            return _study(args.overrides, [command, *argv], detach=args.detach, wait=args.wait, after=after)
        if job is None:
            raise ConfigError(problems)
        plan = make_plan(Loaded(job, composition), command=["ai4sdk", command, *argv])
    for warning in warnings_of(plan):
        print(f"warning: {warning}", file=sys.stderr)
    with interrupts_held():
        return follow(_start(plan, project.root, composition, after), plan, detach=args.detach, wait=args.wait)


def _start(plan: Plan, project: Path, composition: Composition | None, after: Sequence[RunPaths]) -> RunPaths:
    """Start a run; what its backend has against the config is given the place where it was written."""
    try:
        return start_run(plan, project, after)
    except ConfigError as error:
        if composition is None:
            raise
        raise ConfigError(located(composition, one.key, one.message, one.fix) for one in error.problems) from None


def _study(words: Sequence[str], command: list[str], *, detach: bool, wait: bool, after: Sequence[RunPaths]) -> int:
    if after:
        raise UsageError("a study does not wait for runs", hint="leave out --after")
    from ai4sdk.cli.study import run_study

    config, overrides = split_config(command[0], words)
    return run_study(config, overrides, ["ai4sdk", *command], detach=detach, wait=wait)


def _read(file: str, words: Sequence[str]) -> Plan:
    if words:
        raise UsageError(
            f"a plan is run as it is; {words[0]} cannot be given with --plan",
            hint="plan again with the override: ai4sdk plan config=NAME " + words[0],
        )
    return read_plan_file(Path(file))
