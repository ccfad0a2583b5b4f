"""What starting a study starts.

python -m ai4sdk.studies STUDY_DIR LOCK [--failed | --look]
python -m ai4sdk.studies --job STUDY_DIR SUBMISSION [--failed]
"""

import sys
from pathlib import Path

from ai4sdk.studies.layout import StudyPaths

if __name__ == "__main__":
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    folder, number = [word for word in sys.argv[1:] if not word.startswith("--")]
    study = StudyPaths(Path(folder))
    if "--job" in options:
        from ai4sdk.studies.hosted import execute_in_job

        sys.exit(execute_in_job(study, int(number), failed_too="--failed" in options))
    from ai4sdk.studies.engine import execute

    execute(study, int(number), failed_too="--failed" in options, look="--look" in options)
