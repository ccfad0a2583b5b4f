"""How long many small trainings take on two workers: the quickstart with many seeds, by ours and by hand.

    python benchmarks/study_training.py [--points 20] [--rounds 3] [--epochs 12]

- ``ai4sdk, 2 at once`` and ``ai4sdk, 1 at once``: `ai4sdk run -m config=quickstart 'seed=range(N)'` with
  sweep.parallel=2 and 1, one thread each, tracking=none. Each point leaves a run that can be resumed, judged (figures,
  pictures, report) and served (a model package).
- ``by hand``: a pool of two processes that import everything once, and train the same module with Lightning on as many
  samples for as many epochs, one thread each, with Lightning's own checkpoints and a CSV of metrics, and test it.

Everything is started as its own process, as a person would start it, each time in an empty folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from side_by_side import measure, run_process, show

MODULE = Path(__file__).parents[1] / "modules" / "digits"
BATCH = 64


def import_everything() -> None:
    """Pay for the imports, once a process."""
    global datasets, digits_classifier, model_selection, pl, torch
    import digits_classifier
    import pytorch_lightning as pl
    import torch
    from sklearn import datasets, model_selection

    torch.set_num_threads(1)


def train(seed: int, epochs: int) -> float:
    """Train and test with a seed, as the quickstart does, and return the accuracy."""

    class Digits(digits_classifier.DigitsClassifier):  # type: ignore[misc, name-defined] # imported by the pool
        def configure_optimizers(self) -> Any:
            adam = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
            return [adam], [torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=epochs)]

    def loader(x: Any, y: Any, shuffle: bool = False) -> Any:
        data = torch.utils.data.TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
        return torch.utils.data.DataLoader(data, BATCH, shuffle=shuffle)

    pl.seed_everything(seed, workers=True, verbose=False)
    x, y = datasets.load_digits(return_X_y=True)
    x, x_rest, y, y_rest = model_selection.train_test_split(x, y, train_size=0.7, stratify=y, random_state=0)
    x_val, x_test, y_val, y_test = model_selection.train_test_split(
        x_rest, y_rest, train_size=0.5, stratify=y_rest, random_state=0
    )
    folder = Path(f"seed-{seed}")
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        deterministic=True,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=pl.loggers.CSVLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Digits()
    trainer.fit(module, loader(x, y, shuffle=True), loader(x_val, y_val))
    return float(trainer.test(module, loader(x_test, y_test), verbose=False)[0]["test_accuracy"])


def by_hand(points: int, epochs: int) -> None:
    """Train with many seeds on two processes."""
    with ProcessPoolExecutor(2, initializer=import_everything) as pool:
        accuracies = list(pool.map(train, range(points), [epochs] * points))
    print(f"best: seed {accuracies.index(max(accuracies))}, accuracy {max(accuracies):.4f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--by-hand", action="store_true", help="only train by hand, here and now")
    options = parser.parse_args()
    points, epochs = options.points, options.epochs
    if options.by_hand:
        return by_hand(points, epochs)
    with tempfile.TemporaryDirectory() as scratch:

        def started(*argv: str, **env: str) -> Callable[[], None]:
            return lambda: run_process(sys.executable, *argv, folder=tempfile.mkdtemp(dir=scratch), env=env)

        ours = ["-m", "ai4sdk", "run", "-m", "config=quickstart", f"seed=range({points})", "hardware.cpus=1"]
        ours += ["tracking=none", f"training.max_epochs={epochs}"]
        path = os.pathsep.join(filter(None, [str(MODULE), os.environ.get("PYTHONPATH")]))
        by_hand_here = [str(Path(__file__).resolve()), "--by-hand", f"--points={points}", f"--epochs={epochs}"]
        contenders = {
            "ai4sdk, 2 at once": started(*ours, "sweep.parallel=2"),
            "ai4sdk, 1 at once": started(*ours, "sweep.parallel=1"),
            "by hand": started(*by_hand_here, PYTHONPATH=path, OMP_NUM_THREADS="1"),
        }
        medians = measure(contenders, options.rounds)
        show(f"{points} trainings of {epochs} epochs", medians, "ai4sdk, 2 at once")


if __name__ == "__main__":
    main()
