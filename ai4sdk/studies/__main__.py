"""python -m ai4sdk.studies STUDY_DIR LOCK [--failed | --look]: what starting a study starts."""

import sys
from pathlib import Path

from ai4sdk.studies.engine import execute
from ai4sdk.studies.layout import StudyPaths

if __name__ == "__main__":
    options = sys.argv[3:]
    execute(StudyPaths(Path(sys.argv[1])), int(sys.argv[2]), failed_too="--failed" in options, look="--look" in options)
