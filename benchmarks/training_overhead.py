"""What training through ai4sdk costs, beside the same module in a hand-written Lightning script.

    python benchmarks/training_overhead.py [--rounds 9] [--epochs 8] [--rows 6400] [--threads 1] [--json FILE]

Three trainings of a small convolutional network for digits take turns: ``bare`` (Lightning with logger, checkpoints
and progress bar switched off), ``script`` (Lightning as people write it: CSVLogger and its own ModelCheckpoint) and
``ai4sdk`` (everything on: metrics, progress, events, checkpoints that resume exactly, best weights). Each gives steps
a second from the second epoch on, validation included, by the clock on the wall and by the processor time of the
process, which a busy machine disturbs less. Printed are medians, and the median over the rounds of the ratio of times
within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import Job
from ai4sdk.worker.records import Records
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.train import fit, quiet_lightning

BATCH = 64


class Digits(pl.LightningModule):
    """A network of the size that suits pictures of 8×8 pixels; it notes when epochs begin."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(256, 10),
        )
        self.marks: list[tuple[float, float, int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train."""
        x, y = batch
        loss = nn.functional.cross_entropy(self.layers(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Judge."""
        x, y = batch
        logits = self.layers(x)
        self.log("val_loss", nn.functional.cross_entropy(logits, y))
        self.log("val_accuracy", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        """Use Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def on_train_epoch_start(self) -> None:
        """Note the time."""
        self.marks.append((time.perf_counter(), time.process_time(), self.global_step))

    def on_train_end(self) -> None:
        """Note the time."""
        self.marks.append((time.perf_counter(), time.process_time(), self.global_step))

    @property
    def rates(self) -> tuple[float, float]:
        """Steps a second of wall time and of processor time, from the second epoch on."""
        (began, cpu_began, first), (ended, cpu_ended, last) = self.marks[1], self.marks[-1]
        return (last - first) / (ended - began), (last - first) / (cpu_ended - cpu_began)


class Data(pl.LightningDataModule):
    """Random pictures of ten classes."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x = torch.rand(rows, 1, 8, 8, generator=generator)
        self.y = torch.randint(10, (rows,), generator=generator)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return training batches."""
        return DataLoader(TensorDataset(self.x, self.y), BATCH, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return validation batches."""
        return DataLoader(TensorDataset(self.x[:320], self.y[:320]), BATCH)


def by_hand(data: Data, epochs: int, folder: Path, *, usual: bool) -> tuple[float, float]:
    """Train as a script would."""
    pl.seed_everything(42, workers=True, verbose=False)
    module = Digits()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        deterministic=True,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=CSVLogger(folder) if usual else False,
        enable_checkpointing=usual,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return module.rates


def by_ai4sdk(data: Data, epochs: int, folder: Path) -> tuple[float, float]:
    """Train as a worker does."""
    pl.seed_everything(42, workers=True, verbose=False)
    training = {"max_epochs": epochs, "checkpoint": {"monitor": "val_loss"}}
    target = {"_target_": "torch.nn.Identity"}
    job = Job.model_validate({"module": target, "dataset": target, "training": training})
    paths = RunPaths(folder)
    paths.checkpoints.mkdir(parents=True)
    module, records = Digits(), Records(paths)
    fit(job, module, data, paths=paths, records=records, stop=StopRequest())
    records.close()
    return module.rates


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quiet_lightning()
    torch.set_num_threads(options.threads)
    data = Data(options.rows)
    ways = {
        "bare": lambda folder: by_hand(data, options.epochs, folder, usual=False),
        "script": lambda folder: by_hand(data, options.epochs, folder, usual=True),
        "ai4sdk": lambda folder: by_ai4sdk(data, options.epochs, folder),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(-1, options.rounds):  # the first turn warms up and does not count
            order = list(ways) if turn % 2 else list(reversed(ways))
            for name in order:
                both = ways[name](Path(scratch) / f"{name}{turn}")
                if turn >= 0:
                    rates[name].append(both)
    result: dict[str, Any] = {
        "steps_per_second": {
            name: round(statistics.median(wall for wall, _ in values), 1) for name, values in rates.items()
        },
        "time_over_bare": _ratio(rates["bare"], rates["ai4sdk"], 0),
        "time_over_script": _ratio(rates["script"], rates["ai4sdk"], 0),
        "cpu_over_bare": _ratio(rates["bare"], rates["ai4sdk"], 1),
        "cpu_over_script": _ratio(rates["script"], rates["ai4sdk"], 1),
        "rounds": options.rounds,
        "steps_per_epoch": -(-options.rows // BATCH),
        "threads": options.threads,
    }
    for name, rate in result["steps_per_second"].items():
        print(f"{name:8} {rate:8.1f} steps/s")
    for what, name in (("bare Lightning", "bare"), ("a usual script", "script")):
        wall, cpu = result[f"time_over_{name}"], result[f"cpu_over_{name}"]
        print(f"ai4sdk takes {wall:.3f} times the time of {what} ({cpu:.3f} times its processor time)")
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def _ratio(theirs: list[tuple[float, float]], ours: list[tuple[float, float]], clock: int) -> float:
    return round(statistics.median(a[clock] / b[clock] for a, b in zip(theirs, ours, strict=True)), 4)


if __name__ == "__main__":
    main()
