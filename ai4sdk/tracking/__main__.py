"""``python -m ai4sdk.tracking FOLDER``: ship a run or a study to MLflow while it goes on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ai4sdk.errors import Ai4Error, EnvironmentFault
from ai4sdk.runs.state import is_study
from ai4sdk.tracking.catch_up import sync
from ai4sdk.tracking.ship import PATIENCE, main


def _catch_up(run: Path, patience: float) -> int:
    try:
        report = sync(run, patience=patience)
    except Ai4Error as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if not report.uri:
        sys.stdout.write(f"{report.run}: not recorded in MLflow (tracking=none)\n")
    elif report.pending or report.problem:
        sys.stderr.write(f"{report.run}: {report.pending} records and files are not in MLflow: {report.problem}\n")
        return EnvironmentFault.exit_code
    else:
        sent = f"{report.sent} records and files sent" if report.sent else "all is there"
        sys.stdout.write(f"{report.run}: {sent}, MLflow run {report.mlflow_run_id} in {report.uri}\n")
    return 0


parser = argparse.ArgumentParser(prog="python -m ai4sdk.tracking", description=__doc__)
parser.add_argument("folder", type=Path, help="the run directory, or the study directory")
parser.add_argument("--study", action="store_true", help="the folder must be a study's")
what = parser.add_mutually_exclusive_group()
what.add_argument("--once", action="store_true", help="ship what there is, and stop")
what.add_argument("--sync", action="store_true", help="the same, and say what came of it")
parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to keep trying while nothing arrives")

if __name__ == "__main__":
    arguments = parser.parse_args()
    if arguments.study and not is_study(arguments.folder):
        parser.error(f"{arguments.folder} is no study directory: it has no study.json")
    if arguments.sync:
        sys.exit(_catch_up(arguments.folder, arguments.patience))
    sys.exit(main(arguments.folder, once=arguments.once, patience=arguments.patience))
