"""`ai4sdk study`: show, list, resume and cancel studies; and starting one, for `ai4sdk run`."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.backends.standing import is_queued
from ai4sdk.cli.arguments import Parser, add_runs_option, runs_folder, split_config
from ai4sdk.cli.interrupts import interrupts_held
from ai4sdk.cli.plan import warnings_of
from ai4sdk.cli.study_watch import closing_lines, next_step, standing, watch_study
from ai4sdk.config.project import Project, display_path, find_project
from ai4sdk.errors import UsageError
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.digests import find_success
from ai4sdk.runs.state import State, read_state
from ai4sdk.runs.store import find_study, list_runs, list_studies
from ai4sdk.spec.units import format_span
from ai4sdk.studies.launch import Looks, cancel_study, resume_study, start_study
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.results import records
from ai4sdk.studies.view import view_of

if TYPE_CHECKING:
    from ai4sdk.studies.plan import StudyPlan
    from ai4sdk.studies.ready import ReadyEngine

__all__ = ["main", "run_study", "study_lines"]

EPILOG = """\
examples:
  ai4sdk study                    how the latest study stands
  ai4sdk study list
  ai4sdk study show NAME --csv    a row a point, for a spreadsheet
  ai4sdk study resume latest      go on after a kill, a cancel, or with points that the machine made fail
  ai4sdk study cancel latest
"""

ACTIONS = ("show", "list", "resume", "cancel")


def main(command: str, argv: Sequence[str]) -> int:
    """Do something with a study."""
    parser = Parser(command, "Show, resume and cancel studies; `ai4sdk run -m` starts one.", EPILOG)
    parser.add_argument(
        "action", nargs="?", default="show", metavar="ACTION", help=f"{', '.join(ACTIONS)} (default: show)"
    )
    parser.add_argument(
        "study", nargs="?", default="latest", metavar="STUDY", help="id, prefix, job name, folder, latest"
    )
    parser.add_argument("--json", action="store_true", help="show: print as JSON, an object a point")
    parser.add_argument("--csv", action="store_true", help="show: print as CSV, a row a point")
    parser.add_argument("-n", type=int, default=20, metavar="N", help="show: how many points (default: 20; 0 for all)")
    parser.add_argument("--failed", action="store_true", help="resume: points that failed by their own code, too")
    parser.add_argument("--now", action="store_true", help="cancel: at once, without checkpoints")
    parser.add_argument("-d", "--detach", action="store_true", help="resume: return at once")
    parser.add_argument("-w", "--wait", action="store_true", help="resume: watch it, though it be on a cluster")
    add_runs_option(parser)
    args = parser.parse(argv)
    if args.action not in ACTIONS:
        hint = f"one of {', '.join(ACTIONS)}; for a study of that name: ai4sdk study show {args.action}"
        raise UsageError(f"ai4sdk study has no action {args.action!r}", hint=hint)
    if args.json and args.csv:
        raise UsageError("--json and --csv are two formats", hint="leave out one of them")
    if args.n < 0:
        raise UsageError(f"-n {args.n} is no number of points", hint="-n 0 shows all")
    folder = runs_folder(args, find_project().root)
    if args.action == "list":
        return _list(folder)
    if re.fullmatch(r".+/\d+", args.study) and not Path(args.study).exists():
        raise UsageError(f"{args.study} is a point, not a study", hint=f"a point is a run: ai4sdk status {args.study}")
    paths = StudyPaths(find_study(args.study, folder).root)
    if args.action == "resume":
        with interrupts_held():
            resume_study(paths, failed_too=args.failed)
            return _follow(paths, detach=args.detach or (read_state(paths).scheduler is not None and not args.wait))
    if args.action == "cancel":
        cancel_study(paths, now=args.now)
        return watch_study(paths) and 0
    return _show(paths, as_json=args.json, as_csv=args.csv, most=args.n)


def run_study(
    words: Sequence[str], command: Sequence[str], *, detach: bool, wait: bool, engine: ReadyEngine | None = None
) -> int:
    """Plan a study, say what it will be, and run it."""
    from ai4sdk.studies.plan import make_study

    config, overrides = split_config(command[1], words)
    project = find_project()
    study = make_study(config, overrides, project, command=command)
    for line in study_lines(study, project):
        print(line, file=sys.stderr)
    with interrupts_held():
        paths = start_study(study, project.root, engine)
        return _follow(paths, detach=detach or (is_queued(study.first) and not wait))


def study_lines(study: StudyPlan, project: Project) -> list[str]:
    """Return what a study will do, as a person reads it: axes, points, what is done already, how long it may take."""
    from ai4sdk.studies.plan import axis_text

    runs = Path(project.root, study.job["runs"])
    done = sum(find_success(runs, digest) is not None for digest in {point.digest for point in study.points})
    count = (
        "as many points as its sweeper asks for"
        if study.total is None
        else f"{study.total} point{'s' if study.total != 1 else ''}"
    )
    different = len({point.digest for point in study.points})
    same = f" ({different} different: equal plans run once)" if different < len(study.points) else ""
    already = f", {done} of them done already" if done else ""
    lines = [f"study {study.name}: {study.sweep.search}, {count}{same}{already}"]
    width = max(len(axis.key) for axis in study.space)
    lines += [f"  {axis.key:{width}}  {axis_text(axis)}" for axis in study.space]
    if study.objectives:
        lines.append("  objective: " + ", ".join(f"{one.name} ({one.direction})" for one in study.objectives))
    lines += [f"  warning: {text}" for text in warnings_of(study.largest)]
    left = (study.total or 0) - done
    slots = _slots(study.largest, study.sweep.parallel)
    if left and slots:
        each = _usual_time(runs, study.name)
        time = f", about {format_span(round(each * left / slots))} by earlier runs" if each else ""
        lines.append(f"  {slots} at once{time}")
    return lines


def _slots(plan: Plan, parallel: int | None) -> int | None:
    from ai4sdk.backends.local.machine import slots_for

    if plan.job["backend"]["kind"] != "local":
        return parallel
    return parallel or min(slots_for(task) for task in plan.tasks)


def _usual_time(runs: Path, name: str) -> float | None:
    """Return the median seconds that the latest runs of a job took."""
    took = [
        run.state.ended - run.state.started
        for run in list_runs(runs)
        if run.name == name and run.state.state is State.SUCCEEDED and run.state.ended and run.state.started
    ]
    return statistics.median(took[-5:]) if took else None


def _follow(paths: StudyPaths, *, detach: bool) -> int:
    if detach and not read_state(paths).state.ended:
        print(paths.id)
        print(f"  → ai4sdk study show {paths.id}", file=sys.stderr)
        return 0
    return watch_study(paths)


def _list(folder: Path) -> int:
    studies = list_studies(folder)
    if not studies:
        print(f"no studies in {display_path(folder)}\n  → ai4sdk run -m config=quickstart optimizer.lr=1e-2,1e-3")
        return 0
    width, code = max(len(study.id) for study in studies), 0
    for study in studies:
        try:
            text = standing(view_of(StudyPaths(study.paths.root)))
        except UsageError as error:  # one that is damaged must not hide the others
            text, code = error.message, error.exit_code
        print(f"{study.id:{width}}  {study.state.state:11}  {text}".rstrip())
    return code


def _strict(value: Any) -> Any:
    """Write numbers that JSON has no word for as text: readers other than Python's refuse a bare NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value


def _show(paths: StudyPaths, *, as_json: bool, as_csv: bool, most: int) -> int:
    looks = Looks(paths)
    looks.look(wait=True)
    view = view_of(paths)
    state = read_state(paths)
    if as_json:
        facts = {"id": view.id, "state": view.state, "cause": state.cause, "total": view.total, "points": records(view)}
        print(json.dumps(_strict(facts), indent=2, ensure_ascii=False, default=str, allow_nan=False))
    elif as_csv:
        rows = records(view)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        for line in closing_lines(paths, view, state, most=most or len(view.results)):
            print(line)
        if state.cause:
            print(f"  cause      {state.cause}")
        if not state.state.ended:
            print(f"  {standing(view)}")
            if looks.note:
                print(f"  engine     {looks.note}")
        elif state.cause:
            print(f"  → {next_step(paths, state)}")
    return 0
