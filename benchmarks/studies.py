"""Studies beside what one would use instead: Hydra's launchers, Optuna's own loop, a pool written by hand.

    python benchmarks/studies.py [planning] [noop] [trainings] [--rounds 3]

Each contender is a process of its own, started as a person would start it. The joblib row needs hydra-joblib-launcher
(`pip install hydra-joblib-launcher`) and is left out without it.

Aims: planning 100 points at most 1 s, 10,000 at most 30 s and 500 MB; 100 points that do nothing 10 times faster than
Hydra's basic launcher and 3 times faster than joblib on two workers; 20 trainings on two workers 1.7 times faster than
on one, and no slower than the pool written by hand.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from side_by_side import measure, show

NOTHING = "def nothing(x=0):\n    pass\n"
CONFIG = """
defaults: [base, _self_]
name: nothing
function: {_target_: nothing.nothing, x: 0}
hardware: {cpus: 1}
tracking: {kind: none}
sweep: {parallel: 2}
"""
HYDRA_APP = """
import hydra

@hydra.main(version_base="1.3", config_path="configs", config_name="app")
def main(cfg):
    pass

main()
"""
OPTUNA_LOOP = """
import optuna
from nothing import nothing

optuna.logging.set_verbosity(optuna.logging.WARNING)

def objective(trial):
    nothing(trial.suggest_int("x", 0, 99))
    return 0.0

optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).optimize(objective, n_trials=100)
"""
BY_HAND = """
import os
os.environ["OMP_NUM_THREADS"] = "1"
import sys
from concurrent.futures import ProcessPoolExecutor


def prepare():
    global pl, torch, loaders, DigitsClassifier
    import logging, warnings
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    import pytorch_lightning as pl
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch.utils.data import DataLoader, TensorDataset
    from digits_classifier import DigitsClassifier
    torch.set_num_threads(1)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    train, rest = train_test_split(range(len(x)), train_size=0.7, stratify=y, random_state=0)
    val, test = train_test_split(rest, test_size=0.5, stratify=y[rest], random_state=0)
    make = lambda rows, **options: DataLoader(TensorDataset(x[rows], y[rows]), 64, **options)
    loaders = make(train, shuffle=True), make(val), make(test)


def train(seed):
    pl.seed_everything(seed, verbose=False)
    module = DigitsClassifier()
    trainer = pl.Trainer(max_epochs=12, accelerator="cpu", deterministic=True, num_sanity_val_steps=0, logger=False,
                         enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer.fit(module, loaders[0], loaders[1])
    return trainer.test(module, loaders[2], verbose=False)[0]["test_accuracy"]


if __name__ == "__main__":
    with ProcessPoolExecutor(2, initializer=prepare) as pool:
        print(sorted(pool.map(train, range(int(sys.argv[1]))))[-1])
"""

numbers = itertools.count()


def process(folder: Path, *argv: str) -> Callable[[], object]:
    """Return a call that starts a program in a folder and waits for it; ``{n}`` is another number each time."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    modules = Path(__file__).resolve().parents[1] / "modules/digits"
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(modules), env.get("PYTHONPATH")]))

    def call() -> object:
        number = next(numbers)
        filled = [word.replace("{n}", str(number)) for word in argv]
        done = subprocess.run(filled, cwd=folder, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(filled)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return done

    return call


def ai4sdk(folder: Path, *words: str) -> Callable[[], object]:
    """Return a call of our command line."""
    return process(folder, sys.executable, "-m", "ai4sdk", *words)


def planning(folder: Path) -> None:
    """Plan 100 and 10,000 points of the quickstart."""
    for name, axis in {"100 points": "range(50)", "10,000 points": "range(5000)"}.items():
        began = time.perf_counter()
        ai4sdk(folder, "plan", "-m", "config=quickstart", "optimizer.lr=1e-2,1e-3", f"seed={axis}")()
        took = time.perf_counter() - began
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"  planning {name:14} {took:6.2f} s, at most {most:.0f} MiB")
        print(json.dumps({"title": f"planning {name}", "seconds": took, "MiB": most}))


def noop(folder: Path, rounds: int) -> None:
    """Run 100 points that do nothing."""
    contenders = {
        "hydra, basic launcher": process(folder, sys.executable, "app.py", "-m", "x=range(100)"),
        "ai4sdk, two workers": ai4sdk(folder, "run", "-m", "config=nothing", "function.x=range(100)", "runs=runs{n}"),
        "optuna, its own loop": process(folder, sys.executable, "loop.py"),
    }
    if importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
        launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
        contenders["hydra, joblib on two workers"] = process(
            folder, sys.executable, "app.py", "-m", "x=range(100)", *launcher
        )
    show("100 points that do nothing", measure(contenders, rounds), "ai4sdk, two workers")


def trainings(folder: Path, rounds: int, points: int = 20) -> None:
    """Train the quickstart with 20 seeds."""
    job = ("config=quickstart", f"seed=range({points})", "hardware.cpus=1", "tracking=none", "runs=runs{n}")
    contenders = {
        "ai4sdk, one worker": ai4sdk(folder, "run", "-m", *job, "sweep.parallel=1"),
        "ai4sdk, two workers": ai4sdk(folder, "run", "-m", *job, "sweep.parallel=2"),
        "a pool of two by hand": process(folder, sys.executable, "by_hand.py", str(points)),
    }
    show(f"{points} trainings", measure(contenders, rounds), "ai4sdk, two workers")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["planning", "noop", "trainings"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "configs").mkdir()
        files = {
            "nothing.py": NOTHING,
            "configs/nothing.yaml": CONFIG,
            "configs/app.yaml": "x: 1\n",
            "app.py": HYDRA_APP,
            "loop.py": OPTUNA_LOOP,
            "by_hand.py": BY_HAND,
        }
        for name, text in files.items():
            (folder / name).write_text(text)
        if "planning" in options.what:
            planning(folder)
        if "noop" in options.what:
            noop(folder, options.rounds)
        if "trainings" in options.what:
            trainings(folder, options.rounds)


if __name__ == "__main__":
    main()
