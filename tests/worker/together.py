"""Trainings of several processes, for test_ddp.py: each process runs this, and writes down what it saw.

Importing torch and Lightning takes longer than all of these trainings, so one start serves them all.
"""

from __future__ import annotations

import copy
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import test_resume as alone
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, TensorDataset

from ai4sdk.errors import RunFailed
from ai4sdk.runs.files import read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.group import Group, join
from ai4sdk.worker.parting import end_at_once
from ai4sdk.worker.randomness import seed_of_rank
from ai4sdk.worker.ranks import read_rank
from ai4sdk.worker.records import Records
from ai4sdk.worker.signals import StopRequest, StopTraining
from ai4sdk.worker.train import _Agreement, fit, quiet_lightning

CASES = (
    "plain",
    "accumulation",
    "plateau of validation",
    "plateau of training",
    "validation within epochs",
    "early stopping within epochs",
    "loaders made anew",
)
DIVIDED = {
    "divided": {"training": {"mode": "fsdp", "checkpoint": {"monitor": "val_loss"}}},
    "divided and accumulated": {
        "training": {
            "mode": "fsdp",
            "accumulate_grad_batches": 4,
            "gradient_clip_val": 0.1,
            "gradient_clip_algorithm": "value",
            "precision": "bf16-mixed",
        }
    },
}
LOADERS = ("weighted sampling", "a generator of its own")


class Snapshots(Records):
    """Keeps a copy of the checkpoints each time one was taken."""

    def event(self, name: str, **details: Any) -> None:
        super().event(name, **details)
        if name == "checkpoint" and self.progress._writes:
            number = len(list(self.paths.root.glob("snapshot-*")))
            shutil.copytree(self.paths.checkpoints, self.paths.root / f"snapshot-{number:03}")


def train(root: Path, group: Group, job: Any, make: Any, **options: Any) -> dict[str, Any]:
    """Train as a worker of several does, and return what it has in the end."""
    paths = RunPaths(root)
    paths.checkpoints.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(7, workers=True, verbose=False)
    module, data = make()
    if not group.is_first:
        pl.seed_everything(seed_of_rank(7, group.rank.rank), workers=True, verbose=False)
    records = Snapshots(paths, writes=group.is_first)
    seen: dict[str, Any] = {"stopped": None}
    try:
        fitted = fit(
            job,
            module,
            data,
            paths=paths,
            records=records,
            stop=options.pop("stop", StopRequest()),
            group=group,
            **options,
        )
        seen["fitted"] = vars(fitted)
    except StopTraining as stopped:
        seen["stopped"] = stopped.reason
    except RunFailed as failed:
        seen["failed"] = str(failed)
    finally:
        records.close()
    seen["step"] = getattr(module, "steps_seen", None)
    seen["weights"] = {
        name: value.full_tensor() if isinstance(value, DTensor) else value.clone()
        for name, value in module.state_dict().items()
    }
    seen["figures"] = {
        (record["step"], record["epoch"], name): value
        for record in read_json_lines(paths.metrics)
        for name, value in record["metrics"].items()
    }
    return seen


def resumed(root: Path, group: Group, job: Any, make: Any) -> dict[str, Any]:
    """Train whole with a checkpoint before every batch, then again from some of these."""
    whole = train(root / "whole", group, job, make, due=alone.always)
    snapshots = group.broadcast(sorted((root / "whole").glob("snapshot-*")))
    again = []
    for number, snapshot in enumerate(snapshots[1::3]):
        into = root / f"from-{number}"
        if group.is_first:
            shutil.copytree(snapshot, into / "checkpoints")
        group.broadcast(None)
        again.append(train(into, group, job, make, due=lambda **_: False))
    return {"whole": whole, "again": again, "snapshots": len(snapshots)}


class Exact(pl.LightningModule):
    """Nothing random, and figures of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.unused = nn.Linear(2, 2)
        self.steps_seen = 0
        self.ask: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        self.steps_seen += 1
        if self.ask is not None and self.steps_seen == 5:
            self.ask()
        loss = nn.functional.mse_loss(self.layers(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("worst", loss, reduce_fx="max", on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log_dict({"val_loss": nn.functional.mse_loss(self.layers(x), y)})

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Wide(alone.Net):
    """Large enough that each of three processes adds up a part of each gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 1))


class Changing(Exact):
    """Leaves a part out of the loss in some steps, on some ranks."""

    def __init__(self, leaves_out: Any) -> None:
        super().__init__()
        self.unused.requires_grad_(False)
        self.branch, self.norm = nn.Linear(3, 1), nn.BatchNorm1d(3)
        self.leaves_out = leaves_out

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        left_out = self.leaves_out(self.global_step, self.global_rank)
        out = self.layers(self.norm(x)) + (0 if left_out else self.branch(x))
        self.steps_seen += 1
        return nn.functional.mse_loss(out, y)


def changing(leaves_out: Any) -> Any:
    return lambda: (Changing(leaves_out), exact(2)()[1])


def exact(batch_size: int, rows: int = 24) -> Any:
    def make() -> Any:
        x = torch.linspace(-1, 1, 3 * rows).reshape(rows, 3)
        samples, seven = TensorDataset(x, x.sum(1, keepdim=True).sin()), TensorDataset(x[:7], x[:7, :1])
        data = pl.LightningDataModule.from_datasets(samples, batch_size=batch_size)
        data.train_dataloader = lambda: DataLoader(samples, batch_size=batch_size, shuffle=True)
        data.val_dataloader = lambda: DataLoader(seven, batch_size=3)
        return Exact(), data

    return make


def main(out: Path) -> None:
    quiet_lightning()
    torch.set_num_threads(1)
    pace, _Agreement._MOST_STEPS = _Agreement._MOST_STEPS, 1  # a checkpoint before every batch needs a word before each
    group = join(read_rank(int(os.environ["WORLD_SIZE"]), os.environ))
    seen: dict[str, Any] = {}
    if group.size > 2:  # the order in which gradients are added up makes a difference
        seen["three"] = resumed(out / "three", group, alone.job(), lambda: (Wide(), alone.Data()))
        torch.save(seen, out / f"seen.{group.rank.rank}")
        return
    for name in CASES:
        job = alone.job(**copy.deepcopy(alone.PLAIN_CASES[name]))
        seen[name] = resumed(out / name, group, job, lambda: (alone.Net(), alone.Data()))
    for name, sections in DIVIDED.items():
        seen[name] = resumed(out / name, group, alone.job(**sections), lambda: (alone.Net(), alone.Data()))
    for name in LOADERS:
        job = alone.job(training={"max_epochs": 2})
        seen[name] = resumed(
            out / name, group, job, lambda name=name: (alone.Net(), alone.Loaders(alone.LOADERS[name]))
        )

    _Agreement._MOST_STEPS = pace

    short = alone.job(training={"max_epochs": 3, "checkpoint": {"monitor": "val_loss"}})
    seen["exact"] = train(out / "exact", group, short, exact(4 // group.size))
    clipped = alone.job(training={"max_epochs": 3, "gradient_clip_val": 0.1, "mode": "fsdp"})
    seen["exact divided"] = train(out / "exact divided", group, clipped, exact(4 // group.size))
    if group.is_first:
        seen["exact divided alone"] = train(out / "exact divided alone", Group(), clipped, exact(4))
        seen["exact alone"] = train(out / "exact alone", Group(), short, exact(4))
    group.broadcast(None)

    for name, look in (("changing", None), ("changing, not looked for", False), ("changing, looked for", True)):
        looking = alone.job(training={"mode": "ddp", "max_epochs": 1, "find_unused_parameters": look})
        seen[name] = train(out / name, group, looking, changing(lambda step, rank: step > 1))
    seen["left out at first"] = train(
        out / "left out at first", group, short, changing(lambda step, rank: step % group.size == rank)
    )

    stop = StopRequest()

    def asked() -> Any:
        module, data = exact(2)()
        if not group.is_first:
            module.ask = stop.ask  # only one process is told to stop
        return module, data

    seen["stop"] = train(out / "stop", group, short, asked, stop=stop)
    seen["stop resumed"] = train(out / "stop", group, short, exact(2))
    torch.save(seen, out / f"seen.{group.rank.rank}")
    group.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    end_at_once(0)
