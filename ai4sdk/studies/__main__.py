"""What starting a study starts.

python -m ai4sdk.studies STUDY_DIR LOCK [--failed | --look]
python -m ai4sdk.studies --ready                               told all that over the socket that is its standard input
python -m ai4sdk.studies --job STUDY_DIR SUBMISSION [--failed]
"""

import sys
from pathlib import Path

from ai4sdk.studies.layout import StudyPaths

if __name__ == "__main__":
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if "--job" in options:
        from ai4sdk.studies.hosted import execute_in_job

        sys.exit(execute_in_job(StudyPaths(Path(words[0])), int(words[1]), failed_too="--failed" in options))
    from ai4sdk.studies.engine import execute

    if "--ready" in options:
        from ai4sdk.studies.ready import wait_for_study

        if (told := wait_for_study()) is None:
            sys.exit(0)
        study, lock, options = told
    else:
        study, lock = StudyPaths(Path(words[0])), int(words[1])
    execute(study, lock, failed_too="--failed" in options, look="--look" in options)
