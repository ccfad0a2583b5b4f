"""A training that is stopped anywhere and resumed ends with the very weights of one that was not."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)

from ai4sdk.runs.files import read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import Job
from ai4sdk.worker.records import Records
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.train import fit, quiet_lightning

ROWS, BATCH = 22, 4  # six batches, the last one smaller


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws from every global source of random numbers for each sample, and from one of its own."""

    def __init__(self, rows: int = ROWS) -> None:
        self.x = torch.linspace(-1, 1, rows * 3).reshape(rows, 3)
        self.y = self.x.sum(1, keepdim=True).sin()
        self.own = np.random.default_rng(5)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = random.random() + np.random.rand() + torch.rand(()).item() + self.own.random()
        return self.x[index] + 0.1 * noise, self.y[index]


class Data(pl.LightningDataModule):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = {"batch_size": BATCH, "shuffle": True, **options}

    def train_dataloader(self) -> Any:
        return DataLoader(Noisy(), **self.options)

    def val_dataloader(self) -> Any:
        workers = {name: value for name, value in self.options.items() if "workers" in name}
        return DataLoader(Noisy(6), batch_size=3, **workers)


class Net(pl.LightningModule):
    """Dropout, batch normalisation, metrics of every kind, and a value that lives from epoch start to epoch end."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.register_buffer("begun", torch.zeros(()))
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.error = torchmetrics.MeanAbsoluteError()
        self.spread = torchmetrics.CatMetric()

    def on_train_start(self) -> None:
        torch.rand(3)  # after the first iterator was made, before its first batch

    def on_train_epoch_start(self) -> None:
        self.scale = 1.0 + 0.1 * self.current_epoch
        self.begun += 1

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return (self.scale + 0.1 * self.begun) * nn.functional.mse_loss(self.layers(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        x, y = batch
        self.error(self.layers(x), y)
        self.spread(loss.detach())
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(y))
        self.log("train_error", self.error, on_step=False, on_epoch=True)
        self.log("worst", loss, reduce_fx="max", on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("spread", self.spread.compute().std())
        self.spread.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch) + 0.01 * torch.rand(()), batch_size=len(batch[0]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def job(**sections: Any) -> Job:
    training = {"max_epochs": 3, "log_every_n_steps": 1, **sections.pop("training", {})}
    base = {"module": {"_target_": "torch.nn.Identity"}, "dataset": {"_target_": "torch.nn.Identity"}}
    return Job.model_validate({**base, "training": training, **sections})


class _Snapshots(Records):
    """Keeps a copy of the checkpoints each time one was taken."""

    def event(self, name: str, **details: Any) -> None:
        super().event(name, **details)
        if name == "checkpoint":
            number = len(list(self.paths.root.glob("snapshot-*")))
            shutil.copytree(self.paths.checkpoints, self.paths.root / f"snapshot-{number:03}")


def train(root: Path, job: Job, module: pl.LightningModule, data: Any, **options: Any) -> dict[str, Any]:
    """Train as a worker does and return all that must not depend on interruptions."""
    paths = RunPaths(root)
    torch.set_num_threads(1)
    paths.checkpoints.mkdir(parents=True, exist_ok=True)
    records = _Snapshots(paths)
    try:
        fitted = fit(
            job, module, data, paths=paths, records=records, stop=options.pop("stop", StopRequest()), **options
        )
    finally:
        records.close()
    figures = {}
    for record in read_json_lines(paths.metrics):
        for name, value in record["metrics"].items():
            figures[record["step"], record["epoch"], name] = value
    best = torch.load(paths.best_checkpoint)["state_dict"] if paths.best_checkpoint.is_file() else {}
    return {"weights": module.state_dict(), "best": best, "fitted": fitted, "figures": figures}


def seeded(make: Any) -> Any:
    pl.seed_everything(7, workers=True, verbose=False)
    return make()


def assert_same(resumed: dict[str, Any], whole: dict[str, Any], where: str) -> None:
    assert resumed["fitted"] == whole["fitted"], where
    for part in ("weights", "best"):
        assert resumed[part].keys() == whole[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(resumed[part][name], value), f"{where}: {part} {name} differ"
    for place, value in resumed["figures"].items():
        expected = whole["figures"][place]
        assert value == expected or (value != value and expected != expected), f"{where}: {place} {value} {expected}"


def always(**_: Any) -> bool:
    return True


def prove(tmp_path: Path, job: Job, make: Any, *, at_least: int = 10) -> dict[str, Any]:
    """Resume from a checkpoint before every batch of a training, and compare what comes out."""
    quiet_lightning()
    module, data = seeded(make)
    plain = train(tmp_path / "plain", job, module, data, due=lambda **_: False)
    module, data = seeded(make)
    whole = train(tmp_path / "whole", job, module, data, due=always)
    assert_same(whole, plain, "taking checkpoints changed the training")
    snapshots = sorted((tmp_path / "whole").glob("snapshot-*"))
    assert len(snapshots) >= at_least
    for snapshot in snapshots:
        root = tmp_path / f"from-{snapshot.name}"
        shutil.copytree(snapshot, root / "checkpoints")
        module, data = seeded(make)
        resumed = train(root, job, module, data, due=lambda **_: False)
        assert_same(resumed, whole, snapshot.name)
        assert next(event for event in read_json_lines(RunPaths(root).events) if event["event"] == "resumed")
    return whole


def scheduler(name: str, **arguments: Any) -> dict[str, Any]:
    options = {key: arguments.pop(key) for key in ("interval", "monitor", "frequency") if key in arguments}
    return {"schedule": {"_target_": f"torch.optim.lr_scheduler.{name}", **arguments}, **options}


ADAM = {"_target_": "torch.optim.Adam", "lr": 0.05}
EAGER = {"factor": 0.5, "patience": 0, "threshold": 0.5}

PLAIN_CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation": {"training": {"accumulate_grad_batches": 4, "gradient_clip_val": 0.1}},
    "step schedule": {
        "optimizer": ADAM,
        "scheduler": scheduler("OneCycleLR", max_lr=0.1, total_steps=18, interval="step"),
    },
    "epoch schedule": {"optimizer": ADAM, "scheduler": scheduler("StepLR", step_size=1, gamma=0.3)},
    "plateau of validation": {
        "optimizer": ADAM,
        "scheduler": scheduler("ReduceLROnPlateau", monitor="val_loss", **EAGER),
        "training": {"checkpoint": {"monitor": "val_loss"}},
    },
    "plateau of training": {
        "optimizer": ADAM,
        "scheduler": scheduler("ReduceLROnPlateau", monitor="train_loss_epoch", **EAGER),
        "training": {"checkpoint": {"monitor": "spread"}},
    },
    "plateau of steps": {
        "optimizer": ADAM,
        "scheduler": scheduler("ReduceLROnPlateau", monitor="train_loss", interval="step", **EAGER),
        "training": {"trainer": {"val_check_interval": 2}},
    },
    "validation within epochs": {
        "training": {"trainer": {"val_check_interval": 2}, "checkpoint": {"monitor": "val_loss"}}
    },
    "validation by total batches": {
        "training": {"trainer": {"val_check_interval": 4, "check_val_every_n_epoch": None}}
    },
    "validation every second epoch": {
        "training": {
            "max_epochs": 5,
            "trainer": {"check_val_every_n_epoch": 2},
            "checkpoint": {"monitor": "val_loss"},
            "early_stopping": {"monitor": "val_loss", "patience": 1, "min_delta": 5.0},
        },
    },
    "early stopping": {
        "training": {"max_epochs": 9, "early_stopping": {"monitor": "val_loss", "patience": 1, "min_delta": 0.3}}
    },
    "early stopping within epochs": {
        "training": {
            "max_epochs": 9,
            "trainer": {"val_check_interval": 2, "min_epochs": 2},
            "early_stopping": {"monitor": "val_loss", "patience": 2, "min_delta": 0.3},
        }
    },
    "steps": {"training": {"max_epochs": None, "max_steps": 14}},
    "loaders made anew": {"training": {"trainer": {"reload_dataloaders_every_n_epochs": 1}}},
    "the same few batches again": {"training": {"trainer": {"overfit_batches": 3}}},
    "sanity check": {"training": {"trainer": {"num_sanity_val_steps": 2, "limit_train_batches": 4}}},
}


@pytest.mark.parametrize("name", PLAIN_CASES)
def test_resuming_before_any_batch_changes_nothing(name: str, tmp_path: Path) -> None:
    whole = prove(tmp_path, job(**copy.deepcopy(PLAIN_CASES[name])), lambda: (Net(), Data()), at_least=5)
    assert name != "early stopping" or whole["fitted"].reason == "early stopping"


class Scattered(Sampler[list[int]]):
    """A batch sampler that draws from the global random numbers for each batch, as many of users' do."""

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(5):
            yield [*torch.randint(ROWS, (BATCH,)).tolist(), np.random.randint(ROWS)]

    def __len__(self) -> int:
        return 5


class Flow(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples without a known number, mixed with the same random numbers that dropout draws from."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rows = Noisy()
        for _ in range(18):
            yield rows[int(torch.randint(ROWS, ()))]


class Batches:
    """No DataLoader at all."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(6):
            yield torch.rand(BATCH, 3), torch.rand(BATCH, 1)


class Loaders(Data):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def train_dataloader(self) -> Any:
        return self.make()


def own_generator() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    return DataLoader(Noisy(), batch_size=BATCH, shuffle=True, generator=generator)


def weighted() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=BATCH, sampler=WeightedRandomSampler(torch.arange(1.0, 23), 20))


def replacing() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    rows = Noisy()
    sampler = RandomSampler(rows, replacement=True, num_samples=90, generator=generator)
    return DataLoader(rows, batch_size=15, sampler=sampler)


LOADERS: dict[str, Any] = {
    "a generator of its own": own_generator,
    "weighted sampling": weighted,
    "sampling with replacement": replacing,
    "a sampler that draws for each batch": lambda: DataLoader(Noisy(), batch_sampler=Scattered()),
    "a stream without length": lambda: DataLoader(Flow(), batch_size=BATCH),
    "any iterable": Batches,
    "a last batch left out": lambda: DataLoader(Noisy(), batch_size=BATCH, shuffle=True, drop_last=True),
}


@pytest.mark.parametrize("name", LOADERS)
def test_any_loader_continues_where_it_was(name: str, tmp_path: Path) -> None:
    training = {"max_epochs": 2} if "stream" not in name else {"max_epochs": 2, "checkpoint": {"monitor": "val_loss"}}
    prove(tmp_path, job(training=training), lambda: (Net(), Loaders(LOADERS[name])), at_least=8)


@pytest.mark.parametrize("persistent", [False, True])
def test_worker_processes_continue_with_their_random_numbers(persistent: bool, tmp_path: Path) -> None:
    data = lambda: Data(num_workers=2, persistent_workers=persistent)  # noqa: E731
    prove(tmp_path, job(training={"max_epochs": 2}), lambda: (Net(), data()))


class TwoSources(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch["long"]) + self.loss(batch["short"])
        self.log("train_loss", loss, batch_size=BATCH)
        return loss

    on_train_epoch_end = pl.LightningModule.on_train_epoch_end


def test_several_loaders_continue_together(tmp_path: Path) -> None:
    def make() -> Any:
        return {
            "long": DataLoader(Noisy(), batch_size=BATCH, shuffle=True),
            "short": DataLoader(Noisy(10), batch_size=BATCH, shuffle=True),
        }

    prove(tmp_path, job(training={"max_epochs": 2}), lambda: (TwoSources(), Loaders(make)))


class Manual(Net):
    """Steps by hand every second batch, so that gradients are often pending."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        loss = self.loss(batch)
        self.manual_backward(loss)
        if batch_idx % 4 == 1:
            optimizer.step()
            optimizer.zero_grad()
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(batch[0]))

    on_train_epoch_end = pl.LightningModule.on_train_epoch_end


def test_gradients_that_code_adds_up_by_hand_are_kept(tmp_path: Path) -> None:
    prove(tmp_path, job(), lambda: (Manual(), Data()))


class Taking(Net):
    """Fetches its own batches."""

    def training_step(self, dataloader_iter: Iterator[Any]) -> Tensor:
        batch, _, _ = next(dataloader_iter)
        return self.loss(batch)

    on_train_epoch_end = pl.LightningModule.on_train_epoch_end


def test_a_module_that_fetches_its_own_batches(tmp_path: Path) -> None:
    prove(tmp_path, job(training={"max_epochs": 2}), lambda: (Taking(), Data()), at_least=5)


def test_loaders_of_the_module_itself(tmp_path: Path) -> None:
    class Whole(Net):
        def train_dataloader(self) -> Any:
            return DataLoader(Noisy(), batch_size=BATCH, shuffle=True)

        def val_dataloader(self) -> Any:
            return DataLoader(Noisy(6), batch_size=3)

    prove(tmp_path, job(training={"max_epochs": 2}), lambda: (Whole(), None))


CALLBACKS: dict[str, dict[str, Any]] = {
    "averaging": {"_target_": "pytorch_lightning.callbacks.StochasticWeightAveraging", "swa_lrs": 0.02},
    "accumulation": {"_target_": "pytorch_lightning.callbacks.GradientAccumulationScheduler", "scheduling": {1: 2}},
    "a counter": {"_target_": f"{__name__}.Counting"},
    "a checkpoint of its own": {
        "_target_": "pytorch_lightning.callbacks.ModelCheckpoint",
        "monitor": "val_loss",
        "save_top_k": 2,
    },
}


class Counting(pl.Callback):
    """Lowers the learning rate every second time an epoch begins, counted in its own state."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.count += 1

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.optimizers[0].param_groups[0]["lr"] = 0.05 / self.count


class Impatient(pl.Callback):
    """Asks to stop once, early."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            trainer.should_stop = True


def test_a_stop_that_waits_for_the_fewest_epochs_is_remembered(tmp_path: Path) -> None:
    training = {"max_epochs": 9, "trainer": {"min_epochs": 2}, "callbacks": [{"_target_": f"{__name__}.Impatient"}]}
    whole = prove(tmp_path, job(training=training), lambda: (Net(), Data()))
    assert whole["fitted"].epochs == 2


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_that_act_at_the_start_of_epochs(name: str, tmp_path: Path) -> None:
    prove(tmp_path, job(training={"max_epochs": 3, "callbacks": [CALLBACKS[name]]}), lambda: (Net(), Data()))
