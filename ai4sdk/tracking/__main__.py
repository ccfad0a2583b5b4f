"""``python -m ai4sdk.tracking RUN_DIR``: ship a run to MLflow while it goes on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ai4sdk.tracking.ship import PATIENCE, main

parser = argparse.ArgumentParser(prog="python -m ai4sdk.tracking", description=__doc__)
parser.add_argument("run_dir", type=Path, help="the run directory")
parser.add_argument("--once", action="store_true", help="ship what there is, and stop")
parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to keep trying after the run's end")
arguments = parser.parse_args()
sys.exit(main(arguments.run_dir, once=arguments.once, patience=arguments.patience))
