"""Running one config or one plan."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ai4sdk.backends.launch import start_run
from ai4sdk.cli.arguments import split_config
from ai4sdk.cli.following import follow
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

__all__ = ["run_one"]


def run_one(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what `ai4sdk run` was given, which may turn out to be a study: its config may have axes."""
    project = find_project()
    after = [find_run(reference, project.root / "runs") for reference in args.after]
    composition = None
    if args.plan is not None:
        plan = _read(args.plan, args.overrides)
    else:
        config, overrides = split_config(words[1], args.overrides)
        composition, job, problems = inspect_job(config, overrides)
        if has_axes(composition):
            if after:
                raise UsageError("a study does not wait for runs", hint="leave out --after")
            from ai4sdk.cli.study import run_study

            return run_study(args.overrides, words, detach=args.detach, wait=args.wait)
        if job is None:
            raise ConfigError(problems)
        plan = make_plan(Loaded(job, composition), command=words)
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


def _read(file: str, words: Sequence[str]) -> Plan:
    if words:
        raise UsageError(
            f"a plan is run as it is; {words[0]} cannot be given with --plan",
            hint="plan again with the override: ai4sdk plan config=NAME " + words[0],
        )
    return read_plan_file(Path(file))
