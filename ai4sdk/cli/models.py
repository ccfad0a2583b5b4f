"""Which model a command is about."""

from __future__ import annotations

import argparse
from pathlib import Path

from ai4sdk.cli.arguments import runs_folder
from ai4sdk.config.project import find_project
from ai4sdk.errors import NotFound
from ai4sdk.planning.plan import read_plan_file
from ai4sdk.runs.store import find_run

__all__ = ["model_folder"]


def model_folder(args: argparse.Namespace) -> Path:
    """Return the folder of the package or of the run that ``args.run`` names.

    Raises
    ------
    NotFound
        If there is neither, or the run has no model.
    """
    folder = Path(args.run)
    if (folder / "model.json").is_file():
        return folder
    run = find_run(args.run, runs_folder(args, find_project().root))
    if not run.package.is_dir():
        if read_plan_file(run.root).job.get("function"):
            raise NotFound(f"{run.id} called a function; it has no model", hint=f"ai4sdk status {run.id}")
        raise NotFound(f"{run.id} has no model package yet", hint=f"ai4sdk status {run.id}")
    return run.root
