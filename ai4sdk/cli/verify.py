"""`ai4sdk verify parity`: whether a job gives the same with several processes as with one."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai4sdk.backends.launch import cancel_run, start_run
from ai4sdk.cli.arguments import Parser, split_config
from ai4sdk.config.load import Loaded, has_axes, inspect_job
from ai4sdk.config.project import find_project
from ai4sdk.errors import ConfigError, EnvironmentFault, RunFailed, UsageError
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.ending import failure_of
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import read_state
from ai4sdk.spec.scale import scale_of

EPILOG = """\
examples:
  ai4sdk verify parity config=quickstart                      as one process and as two
  ai4sdk verify parity config=my/job.yaml training=ddp hardware.gpus=4 --steps 50
"""
_POLL = 0.1


def main(command: str, argv: Sequence[str]) -> int:
    """Check a promise by trying it."""
    parser = Parser(
        command,
        "Train briefly as one process and as several, with as many samples in a step, and compare losses and weights.",
        EPILOG,
    )
    parser.add_argument("what", metavar="parity", help="what to verify")
    parser.add_argument("overrides", nargs="*", metavar="config=NAME KEY=VALUE", help="config and overrides")
    parser.add_argument("--processes", type=int, metavar="N", help="how many (default: the config's, or 2)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="optimizer steps to compare (default: 20)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-6, metavar="X", help="largest relative difference (default: 1e-6)"
    )
    parser.add_argument(
        "--precision",
        default="64-true",
        help="arithmetic to compare in (default: 64-true: in 32 bits optimizers such as Adam make much of rounding)",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse(argv)
    if args.what != "parity":
        raise UsageError(f"nothing is known of {args.what!r}", hint="ai4sdk verify parity config=NAME")
    if args.steps < 1 or (args.processes is not None and args.processes < 2):
        raise UsageError("--steps is at least 1 and --processes at least 2", hint=f"ai4sdk {command} --help")
    config, overrides = split_config(f"{command} parity", args.overrides)
    overrides = [*overrides, f"++training.precision={args.precision}"]
    one, several = _plans(config, overrides, args.processes, args.steps)
    project = find_project().root
    runs = [_execute(plan, project) for plan in (one, several)]
    found = _compare(runs, args.tolerance, project)
    _remove(runs)
    world = scale_of(several.as_job()).world_size
    if args.json:
        print(json.dumps({"processes": world, **found}, indent=2))
    else:
        for line in _lines(found, world, args.tolerance):
            print(line)
    if not found["agree"]:
        raise RunFailed(f"{world} processes do not give what one gives", hint=_advice(found))
    return 0


def _remove(runs: Sequence[RunPaths]) -> None:
    """Remove runs that have served, and their folder if no failed one is in it."""
    for run in runs:
        shutil.rmtree(run.root, ignore_errors=True)
    folder = runs[0].root.parent
    shutil.rmtree(folder / "by-digest", ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _plans(config: str, overrides: Sequence[str], processes: int | None, steps: int) -> tuple[Plan, Plan]:
    """Return the plans to compare: the same samples in a step, the same learning rate, nothing that ends early."""
    asked = _plan(config, overrides) if processes is None else None
    if asked is None or scale_of(asked.as_job()).world_size == 1:
        overrides = [*overrides, "++training.mode=ddp", f"++training.processes={processes or 2}"]
        asked = _plan(config, overrides)
    job = asked.as_job()
    scale = scale_of(job)
    if scale.global_batch_size is None:
        raise UsageError(
            "the loader is the user's own, so one process cannot be given batches as large as those of several",
            hint="let the dataset's target return a dataset, and set dataset.loader.batch_size",
        )
    both = [
        *overrides,
        f"++training.global_batch_size={scale.global_batch_size}",
        f"++training.max_steps={steps}",
        "++training.scale_learning_rate=none",
        "++training.log_every_n_steps=1",
        "++training.early_stopping=null",
        "++training.checkpoint.monitor=null",
        "++tracking.kind=none",
        *([f"++optimizer.lr={scale.learning_rate!r}"] if scale.learning_rate is not None else []),
    ]
    alone = ["mode=single", "processes=null", "sync_batchnorm=false", "find_unused_parameters=null"]
    one = [*both, *(f"++training.{text}" for text in alone), "++hardware.nodes=1"]
    one += ["++hardware.gpus=1"] if job.hardware.gpus else []
    return _aside(_plan(config, one)), _aside(_plan(config, both))


def _aside(plan: Plan) -> Plan:
    """Return the plan with its run apart from the user's; where a run lies is no part of its digest."""
    return plan.model_copy(update={"job": {**plan.job, "runs": str(Path(plan.job["runs"]) / "parity")}})


def _plan(config: str, overrides: Sequence[str]) -> Plan:
    composition, job, problems = inspect_job(config, list(overrides))
    if has_axes(composition):
        raise UsageError("a study is many jobs; parity is of one", hint="give each value once")
    if job is None:
        raise ConfigError(problems)
    if job.function is not None:
        raise UsageError(f"the job {job.name} calls a function; it trains nothing that could be compared")
    return make_plan(Loaded(job, composition))


def _execute(plan: Plan, project: Path) -> RunPaths:
    """Run a plan to its end; raises the error that fits if it does not succeed, and leaves the run to look at."""
    world = plan.tasks[0].world_size
    print(f"training as {world} process{'es' if world > 1 else ''}", file=sys.stderr, flush=True)
    run = start_run(plan, project)
    try:
        while not (state := read_state(run)).state.ended:
            time.sleep(_POLL)
    except KeyboardInterrupt:
        cancel_run(run, now=True)
        raise
    if error := failure_of(run, state):
        error.hint = f"ai4sdk logs --runs {run.root.parent} {run.id}"
        raise error
    return run


def _compare(runs: Sequence[RunPaths], tolerance: float, project: Path) -> dict[str, Any]:
    """Compare in a process of its own, which may import torch."""
    argv = [sys.executable, "-P", "-m", "ai4sdk.worker.parity", *(str(run.root) for run in runs), str(tolerance)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=project, check=False)
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError) as error:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EnvironmentFault(f"the trainings could not be compared: {said}") from error


def _lines(found: dict[str, Any], world: int, tolerance: float) -> list[str]:
    yes = "agree" if found["agree"] else "do not agree"
    lines = [f"1 process and {world} {yes} over {found['steps']} steps (tolerance {tolerance:g})"]
    for name in ("loss", "weights"):
        worst = found[name]
        where = f"  ({worst['where']})" if worst["where"] else ""
        lines.append(f"  {name:8} differ by at most {worst['difference']:.2g}{where}")
    lines += [f"  note      {note}" for note in found["notes"]]
    return lines


def _advice(found: dict[str, Any]) -> str:
    if found["notes"]:
        return "what is noted above may be why: take it out for this check, and it tells about the rest"
    return "see that the loss is a mean over the batch, and that nothing in the module counts batches or processes"
