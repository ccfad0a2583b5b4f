"""python -m ai4sdk.backends.local RUN_DIR LOCK: what `submit` starts."""

import sys
from pathlib import Path

from ai4sdk.backends.local.supervisor import supervise
from ai4sdk.runs.layout import RunPaths

if __name__ == "__main__":
    supervise(RunPaths(Path(sys.argv[1])), int(sys.argv[2]))
