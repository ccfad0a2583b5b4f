"""How long one waits for the command line: ours beside Hydra's, Flower's and MLflow's.

    python benchmarks/startup.py [ROUNDS]

Everything is started as its own process, as a person would start it, in an empty folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from side_by_side import measure, show

WORKER = """
from ai4sdk.worker.startup import quick_imports
with quick_imports():
    import ai4sdk.worker.phases
"""
HYDRA_APP = """
import hydra

@hydra.main(version_base="1.3", config_path="configs", config_name="app")
def main(cfg):
    pass

main()
"""


def process(*argv: str, folder: str) -> Callable[[], object]:
    """Return a call that starts a program and waits for it."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def call() -> object:
        return subprocess.run(argv, cwd=folder, env=env, capture_output=True, check=True)

    return call


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    python, scripts = sys.executable, Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder, "app.py")
        app.write_text(HYDRA_APP)
        Path(folder, "configs").mkdir()
        Path(folder, "configs/app.yaml").write_text("a: 1\n")
        contenders = {
            "python -c pass": process(python, "-c", "pass", folder=folder),
            "import ai4sdk": process(python, "-c", "import ai4sdk", folder=folder),
            "ai4sdk --help": process(python, "-m", "ai4sdk", "--help", folder=folder),
            "ai4sdk plan config=quickstart": process(
                python, "-m", "ai4sdk", "plan", "config=quickstart", folder=folder
            ),
            "hydra app --help": process(python, str(app), "--help", folder=folder),
            "hydra app": process(python, str(app), folder=folder),
            "mlflow --help": process(str(scripts / "mlflow"), "--help", folder=folder),
            "import pytorch_lightning": process(python, "-c", "import pytorch_lightning", folder=folder),
            "what a worker imports": process(python, "-c", WORKER, folder=folder),
        }
        if (scripts / "flwr").exists():
            contenders["flwr --help"] = process(str(scripts / "flwr"), "--help", folder=folder)
        show("start-up", measure(contenders, rounds), "python -c pass")


if __name__ == "__main__":
    main()
