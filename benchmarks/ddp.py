"""What training on several processes through ai4sdk costs, beside a hand-written Lightning script under torchrun.

    python benchmarks/ddp.py [--rounds 5] [--epochs 6] [--rows 6400] [--processes 2]

Both train the same module on the same data with the same batches, over gloo on CPU, one thread a process. Each is
started as a person would start it. The module notes when each epoch begins, so there are two figures: seconds from the
command to the first batch, and steps a second from the second epoch on. Printed are medians, and the median over the
rounds of the difference (start) and of the ratio (steps) within a round.

Aims: the start costs at most 1 s more than torchrun's, and at least 0.98 of its steps a second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODULE = '''
import json, os, time
import pytorch_lightning as pl
import torch
from torch import nn


class Digits(pl.LightningModule):
    """A network of the size that suits pictures of 8×8 pixels; rank 0 notes when epochs begin."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10),
        )

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def on_train_epoch_start(self):
        self.mark()

    def on_train_end(self):
        self.mark()

    def mark(self):
        if self.global_rank == 0:
            with open(os.environ["MARKS"], "a") as file:
                file.write(json.dumps([time.time(), self.global_step]) + "\\n")


def rows(count):
    from torch.utils.data import TensorDataset
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 1, 8, 8, generator=generator)
    return TensorDataset(x, torch.randint(10, (count,), generator=generator))


class Data(pl.LightningDataModule):
    def __init__(self, count):
        super().__init__()
        self.rows = rows(count)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.rows, 64, shuffle=True)

    def test_dataloader(self):
        return torch.utils.data.DataLoader(torch.utils.data.Subset(self.rows, range(64)), 64)
'''
SCRIPT = """
import sys
import pytorch_lightning as pl
from bench_module import Data, Digits

pl.seed_everything(42, workers=True, verbose=False)
trainer = pl.Trainer(
    max_epochs=int(sys.argv[1]), accelerator="cpu", strategy="ddp", devices=int(sys.argv[3]), deterministic=True,
    log_every_n_steps=10, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(Digits(), datamodule=Data(int(sys.argv[2])))
"""
CONFIG = """
defaults: [base, override training: ddp, _self_]
name: bench
module: {_target_: bench_module.Digits}
dataset: {_target_: bench_module.Data, count: 0}
optimizer: null
tracking: {kind: none}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    epochs, rows, processes = map(str, (options.epochs, options.rows, options.processes))
    ours = [
        sys.executable, "-m", "ai4sdk", "run", "config=bench", f"training.max_epochs={epochs}", f"dataset.count={rows}",
        f"training.processes={processes}", f"hardware.cpus={processes}", "evaluation.split=test",
    ]  # fmt: skip
    theirs = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "script.py",
        epochs, rows, processes,
    ]  # fmt: skip
    contenders = {"ai4sdk": ours, "torchrun": theirs}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / ".ai4sdk").touch()
        (folder / "configs").mkdir()
        (folder / "configs/bench.yaml").write_text(CONFIG)
        (folder / "bench_module.py").write_text(MODULE)
        (folder / "script.py").write_text(SCRIPT)
        for turn in range(-1, options.rounds):  # the first turn warms up and does not count
            for name in list(contenders) if turn % 2 else list(reversed(contenders)):
                both = once(contenders[name], folder)
                if turn >= 0:
                    found[name].append(both)
    for name, values in found.items():
        start, rate = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:9} {start:6.2f} s to the first batch   {rate:8.1f} steps/s")
    pairs = list(zip(found["ai4sdk"], found["torchrun"], strict=True))
    later = statistics.median(own[0] - other[0] for own, other in pairs)
    pace = statistics.median(own[1] / other[1] for own, other in pairs)
    print(f"ai4sdk's first batch comes {later:+.2f} s after torchrun's; its steps a second are {pace:.3f} of it")
    print(json.dumps({"found": found, "start_difference_s": round(later, 3), "pace_ratio": round(pace, 4)}))


def once(command: list[str], folder: Path) -> tuple[float, float]:
    """Return seconds to the first batch, and steps a second from the second epoch on."""
    marks = folder / "marks"
    marks.unlink(missing_ok=True)
    began = time.time()
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "MARKS": str(marks), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        sys.exit(f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}")
    lines = [json.loads(line) for line in marks.read_text().splitlines()]
    (second, first_step), (end, last_step) = lines[1], lines[-1]
    return lines[0][0] - began, (last_step - first_step) / (end - second)


if __name__ == "__main__":
    main()
