"""python -m ai4sdk.backends.kubernetes PLAN RUN_DIR NUMBER LAST_WORD: what the pod of a Job executes."""

import sys
from pathlib import Path

from ai4sdk.backends.kubernetes.pod import execute
from ai4sdk.runs.layout import RunPaths

if __name__ == "__main__":
    sys.exit(execute(Path(sys.argv[1]), RunPaths(Path(sys.argv[2])), int(sys.argv[3]), Path(sys.argv[4])))
