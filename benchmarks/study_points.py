"""What a point costs beside its work: many calls of a function that does nothing, by ours and by what others use.

    python benchmarks/study_points.py [--points 100] [--rounds 5]

- ``ai4sdk``: `ai4sdk run -m` of a `function:` job on two workers, tracking=none. Each point is a process and a run
  directory of its own, and no point that is on the disk as succeeded can be lost.
- ``hydra basic``: Hydra's own launcher, `python app.py -m`, one point after the other in one process.
- ``hydra joblib``: hydra-joblib-launcher on two workers. It is left out unless it can be imported:
  `pip install --target FOLDER --no-deps hydra-joblib-launcher`, then run this with `PYTHONPATH=FOLDER`.
- ``optuna``: Optuna's loop over the same function in one process, every value of a grid, nothing written.

Everything is started as its own process, as a person would start it, each time in an empty folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from side_by_side import measure, run_process, show

FILES = {
    "nothing.py": "def do_nothing(x):\n    pass\n",
    "nothing.yaml": """\
defaults: [base, _self_]
name: nothing
function: {_target_: nothing.do_nothing, x: 0}
hardware: {cpus: 1}
tracking: {kind: none}
sweep: {parallel: 2}
""",
    "app.yaml": "x: 0\n",
    "app.py": """\
import hydra

@hydra.main(version_base="1.3", config_path=".", config_name="app")
def main(cfg):
    pass

main()
""",
    "loop.py": """\
import sys
import optuna

def objective(trial):
    trial.suggest_int("x", 0, points - 1)
    return 0.0

points = int(sys.argv[1])
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(sampler=optuna.samplers.GridSampler({"x": range(points)}))
study.optimize(objective, n_trials=points)
""",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    points = options.points
    with tempfile.TemporaryDirectory() as scratch:

        def started(*argv: str) -> Callable[[], None]:
            return lambda: run_process(sys.executable, *argv, folder=_new_folder(scratch))

        basic = ["app.py", "-m", f"x=range(0,{points})"]
        contenders = {
            "ai4sdk": started("-m", "ai4sdk", "run", "-m", "config=nothing.yaml", f"function.x=range({points})"),
            "hydra basic": started(*basic),
            "optuna": started("loop.py", str(points)),
        }
        if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
            contenders["hydra joblib"] = started(*basic, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
        else:
            print("hydra joblib is left out: it cannot be imported, see --help")
        show(f"{points} points that do nothing", measure(contenders, options.rounds), "ai4sdk")


def _new_folder(scratch: str) -> Path:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


if __name__ == "__main__":
    main()
