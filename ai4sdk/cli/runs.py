"""`ai4sdk ps`, `status`, `logs`, `report`, `cancel`, `resume`, `rerun`, `fetch`, `sync`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ai4sdk.backends.launch import cancel_run, fetch_results, resume_run, start_run
from ai4sdk.backends.standing import Watch, current_state, current_states
from ai4sdk.cli.arguments import Parser, add_runs_option, add_waiting_options, runs_folder
from ai4sdk.cli.closing import headline_figures
from ai4sdk.cli.following import follow
from ai4sdk.cli.interrupts import interrupts_held
from ai4sdk.cli.watch import round_text
from ai4sdk.config.project import display_path, find_project
from ai4sdk.errors import NotFound, UsageError
from ai4sdk.planning.plan import read_plan_file
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state
from ai4sdk.runs.store import FoundRun, find_run, find_study, list_runs, list_studies, read_progress
from ai4sdk.spec.units import format_size, format_span
from ai4sdk.studies.layout import study_of
from ai4sdk.tracking.ledger import read_ledger

WHICH = "run: id, unique prefix, job name, folder, or latest; STUDY/NUMBER for a point of a study"


def main(command: str, argv: Sequence[str]) -> int:
    """Do one of the commands on runs."""
    return {
        "ps": _ps,
        "status": _status,
        "logs": _logs,
        "report": _report,
        "cancel": _cancel,
        "resume": _resume,
        "rerun": _rerun,
        "fetch": _fetch,
        "sync": _sync,
    }[command](command, argv)


def _ps(command: str, argv: Sequence[str]) -> int:
    parser = Parser(command, "List runs, the newest last.")
    parser.add_argument("-n", type=int, default=20, metavar="N", help="how many of the newest (default: 20; 0 for all)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_runs_option(parser)
    args = parser.parse(argv)
    folder = runs_folder(args, find_project().root)
    runs = list_runs(folder)[-args.n if args.n > 0 else None :]
    standings = current_states([(run.paths, run.state) for run in runs])
    runs = [FoundRun(run.paths, standing.state) for run, standing in zip(runs, standings, strict=True)]
    if args.json:
        print(
            json.dumps([{"id": run.id, "folder": str(run.paths.root), **asdict(run.state)} for run in runs], indent=2)
        )
        return 0
    studies = list_studies(folder)
    if not runs and not studies:
        print(f"no runs in {display_path(folder)}\n  → ai4sdk run config=quickstart")
        return 0
    width = max((len(run.id) for run in runs), default=0)
    for run, standing in zip(runs, standings, strict=True):
        note = "  ".join(part for part in (_note(run.paths, run.state), standing.note) if part)
        print(f"{run.id:{width}}  {run.state.state:11}  {_took(run.state):>9}  {note}".rstrip())
    if studies:
        count = "a study" if len(studies) == 1 else f"{len(studies)} studies"
        print(f"and {count}: ai4sdk study list")
    return 0


def _status(command: str, argv: Sequence[str]) -> int:
    args, run = _one(command, "Tell how a run stands.", argv, json_option=True)
    standing = current_state(run)
    state = standing.state
    if args.json:
        facts = {"id": run.id, "folder": str(run.root), **asdict(state), "progress": read_progress(run)}
        facts |= {"note": standing.note} if standing.note else {}
        print(json.dumps(facts, indent=2))
        return 0
    plan = read_plan_file(run.root)
    print(f"{run.id}  {state.state}")
    rows = [("cause", state.cause), ("digest", plan.digest), ("attempt", str(state.attempt)), ("took", _took(state))]
    if not state.state.ended:
        rows.append(("progress", _note(run, state)))
    rows.append(("scheduler", standing.note or (f"job {state.job}" if state.job else "")))
    rows += _accounting(state)
    rows += headline_figures(run)
    rows += [("folder", display_path(run.root)), ("results", state.extra.get("results"))]
    if run.report.exists():
        rows.append(("report", display_path(run.report)))
    if tracking := _tracking(run):
        rows.append(("tracking", tracking))
    for name, text in rows:
        if text:
            print(f"  {name:18}  {text}")
    if state.state in (State.INTERRUPTED, State.CANCELLED, State.FAILED):
        print(f"  → ai4sdk resume {run.id}")
    return 0


def _logs(command: str, argv: Sequence[str]) -> int:
    args, run = _one(command, "Show what a run printed.", argv, log_options=True)
    path = run.log(args.task or read_plan_file(run.root).tasks[0].name, args.rank)
    watch = Watch(run)
    standing = watch.look()
    said = watch.bring_log()
    if said:
        print(said, file=sys.stderr)
    if not path.exists() and standing.state.state.ended:
        tasks = ", ".join(sorted(file.stem for file in run.logs.glob("*.log"))) or "none yet"
        raise NotFound(f"{run.id} has no log of {path.stem!r}", hint=f"logs there are: {tasks}")
    if not path.exists() and standing.note:
        print(f"nothing yet: {standing.note}", file=sys.stderr)
    position = 0
    while True:
        ended = not args.follow or watch.look().state.state.ended
        if args.follow and not ended and (note := watch.bring_log()) and note != said:
            said = note
            print(said, file=sys.stderr)
        if path.exists():
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(position)
                while text := file.read(1 << 16):
                    sys.stdout.write(text)
                position = file.tell()
            sys.stdout.flush()
        if ended:
            return 0
        time.sleep(0.2)


def _report(command: str, argv: Sequence[str]) -> int:
    _, run = _one(command, "Draw the report of a run, with pictures; of one that goes on, as it stands.", argv)
    # In a process of its own: this one must not pay for importing matplotlib.
    status = subprocess.run([sys.executable, "-P", "-m", "ai4sdk.worker.report", str(run.root)], check=False).returncode
    if status == 0:
        print(display_path(run.report))
    return status


def _cancel(command: str, argv: Sequence[str]) -> int:
    args, run = _one(command, "Stop a run with a checkpoint.", argv, now_option=True)
    state = cancel_run(run, now=args.now, wait=90)
    print(f"{run.id} {state}")
    return 0 if state.ended else 1


def _resume(command: str, argv: Sequence[str]) -> int:
    args, run = _one(command, "Go on with a run that was interrupted, cancelled or failed.", argv, detach_option=True)
    with interrupts_held():
        resume_run(run, find_project().root)
        return _follow(run, detach=args.detach, wait=args.wait)


def _rerun(command: str, argv: Sequence[str]) -> int:
    args, run = _one(command, "Run the plan of a run again, as a new run.", argv, detach_option=True)
    plan = read_plan_file(run.root)
    with interrupts_held():
        return _follow(start_run(plan, find_project().root), detach=args.detach, wait=args.wait)


def _fetch(command: str, argv: Sequence[str]) -> int:
    _, run = _one(command, "Bring what a run left elsewhere to its folder here.", argv)
    new = fetch_results(run)
    print(f"{run.id}: {new or 'no'} new file{'s' if new != 1 else ''} in {display_path(run.root)}")
    return 0


def _sync(command: str, argv: Sequence[str]) -> int:
    parser = Parser(command, "Send to MLflow what could not be sent yet, of one run or of all.")
    parser.add_argument("run", nargs="?", metavar="RUN", help=WHICH)
    add_runs_option(parser)
    args = parser.parse(argv)
    folder = runs_folder(args, find_project().root)
    runs = [_run_or_study(args.run, folder)] if args.run else []
    if not args.run:
        runs = [run.paths for run in (*list_runs(folder), *list_studies(folder))]
    status = 0
    for run in runs:
        # In a process of its own: this one must not pay for importing MLflow, nor die with it.
        command_line = [sys.executable, "-P", "-m", "ai4sdk.tracking", "--sync", str(run.root)]
        status = max(status, subprocess.run(command_line, check=False).returncode)
    return status


def _run_or_study(reference: str, folder: Path) -> RunPaths:
    try:
        return find_study(reference, folder)
    except NotFound:
        return find_run(reference, folder)


def _one(
    command: str,
    description: str,
    argv: Sequence[str],
    *,
    json_option: bool = False,
    log_options: bool = False,
    now_option: bool = False,
    detach_option: bool = False,
) -> tuple[argparse.Namespace, RunPaths]:
    parser = Parser(command, description)
    parser.add_argument("run", nargs="?", default="latest", metavar="RUN", help=WHICH)
    if json_option:
        parser.add_argument("--json", action="store_true", help="print as JSON")
    if log_options:
        parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
        parser.add_argument("--task", help="which task's log (default: the first)")
        parser.add_argument("--rank", type=int, default=0, metavar="N", help="of several processes, which (default: 0)")
    if now_option:
        parser.add_argument("--now", action="store_true", help="at once, without a checkpoint")
    if detach_option:
        add_waiting_options(parser)
    add_runs_option(parser)
    args = parser.parse(argv)
    run = find_run(args.run, runs_folder(args, find_project().root))
    try:
        read_state(run)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"the state of {run.id} cannot be read: {error}", hint=f"ls {display_path(run.root)}"
        ) from error
    return args, run


def _follow(run: RunPaths, *, detach: bool, wait: bool) -> int:
    return follow(run, read_plan_file(run.root), detach=detach, wait=wait)


def _took(state: RunState) -> str:
    if not state.started:
        return ""
    return format_span(max(0.0, (state.ended or time.time()) - state.started))


def _accounting(state: RunState) -> list[tuple[str, str]]:
    """Return what a scheduler counted, as (name, text)."""
    found = state.extra.get("accounting", {})
    rows = [("waited", format_span(found["waited"]))] if "waited" in found else []
    rows += [("peak memory", format_size(int(found["max_rss"])))] if "max_rss" in found else []
    rows += [("CPU efficiency", f"{found['cpu_efficiency']:.0%}")] if "cpu_efficiency" in found else []
    return rows


def _note(run: RunPaths, state: RunState) -> str:
    if state.cause:
        return state.cause
    if state.state is State.SUCCEEDED:
        return "  ".join(f"{name} {value}" for name, value in headline_figures(run)[:2])
    progress = read_progress(run)
    if progress.get("phase") == "fit" and "round" in progress:
        return round_text(progress)
    if progress.get("phase") == "fit" and isinstance(epoch := progress.get("epoch"), int):
        of = f" of {progress['epochs']}" if progress.get("epochs") else ""
        return f"epoch {epoch + 1}{of}"
    return str(progress.get("phase") or "")


def _tracking(run: RunPaths) -> str:
    ledger = read_ledger(run.tracking)
    if ledger.last_error:
        return f"not all sent: {ledger.last_error}  → ai4sdk sync {(study_of(run.root) or run).id}"
    return f"MLflow run {ledger.run_id}" if ledger.run_id else ""
