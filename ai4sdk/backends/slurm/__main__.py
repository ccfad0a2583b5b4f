"""python -m ai4sdk.backends.slurm RUN_DIR NUMBER: what the batch script executes."""

import sys
from pathlib import Path

from ai4sdk.backends.slurm.supervisor import supervise_job
from ai4sdk.runs.layout import RunPaths

if __name__ == "__main__":
    sys.exit(supervise_job(RunPaths(Path(sys.argv[1])), int(sys.argv[2])))
