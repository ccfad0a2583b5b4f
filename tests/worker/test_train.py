"""A job's training: its options reach Lightning, and mistakes are told early and by name."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ai4sdk.errors import EnvironmentFault, RunFailed
from ai4sdk.runs.files import read_json, read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import Job
from ai4sdk.worker.callbacks import BestWeights, Monitors, WorkerCallback
from ai4sdk.worker.checkpoint import AtomicCheckpointIO
from ai4sdk.worker.finetune import freeze
from ai4sdk.worker.records import Records
from ai4sdk.worker.resume import ExactState
from ai4sdk.worker.signals import StopRequest, StopTraining
from ai4sdk.worker.train import Fitted, fit, make_module, make_trainer, quiet_lightning, trained_weights

TARGET = {"_target_": "torch.nn.Identity"}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet_lightning()
    torch.set_num_threads(1)


class Data(pl.LightningDataModule):
    def __init__(self, rows: int = 24) -> None:
        super().__init__()
        x = torch.linspace(-1, 1, rows)[:, None]
        self.rows = TensorDataset(x, x.sin())

    def train_dataloader(self) -> Any:
        return DataLoader(self.rows, batch_size=4, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.rows, batch_size=8)


class Net(pl.LightningModule):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.mse_loss(self.layers(x.to(self.dtype)), y.to(self.dtype))
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.mse_loss(self.layers(x.to(self.dtype)), y.to(self.dtype)))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def job(training: dict[str, Any] | None = None, **sections: Any) -> Job:
    training = {"max_epochs": 2, "log_every_n_steps": 1, **(training or {})}
    return Job.model_validate({"module": TARGET, "dataset": TARGET, "training": training, **sections})


def train(
    root: Path, a_job: Job, module: Any = None, data: Any = None, stop: StopRequest | None = None
) -> tuple[Fitted, pl.LightningModule, RunPaths]:
    paths = RunPaths(root)
    paths.checkpoints.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(1, workers=True, verbose=False)
    module = Net() if module is None else module if isinstance(module, nn.Module) else module()
    records = Records(paths)
    try:
        fitted = fit(a_job, module, data or Data(), paths=paths, records=records, stop=stop or StopRequest())
    finally:
        records.close()
    return fitted, module, paths


def trainer_of(root: Path, a_job: Job) -> pl.Trainer:
    paths = RunPaths(root)
    records = Records(paths)
    best = BestWeights(paths.best_checkpoint, a_job.training.checkpoint)
    ours = WorkerCallback(ExactState(Net(), Data()), records, best, Monitors({}))
    return make_trainer(a_job, paths, records, ours, AtomicCheckpointIO(paths.last_checkpoint))


def metrics(paths: RunPaths, name: str) -> list[float]:
    return [line["metrics"][name] for line in read_json_lines(paths.metrics) if name in line["metrics"]]


def events(paths: RunPaths) -> list[str]:
    return [line["event"] for line in read_json_lines(paths.events)]


# Options --------------------------------------------------------------------------------------------------------------


def test_every_option_reaches_the_trainer(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        job(
            {
                "max_epochs": 7,
                "max_steps": 90,
                "max_time": "2h",
                "precision": "bf16-mixed",
                "accumulate_grad_batches": 3,
                "gradient_clip_val": 0.5,
                "gradient_clip_algorithm": "value",
                "deterministic": "warn",
                "log_every_n_steps": 5,
                "trainer": {
                    "limit_train_batches": 4,
                    "check_val_every_n_epoch": 2,
                    "profiler": {"_target_": "pytorch_lightning.profilers.SimpleProfiler"},
                },
                "callbacks": [{"_target_": "pytorch_lightning.callbacks.LearningRateMonitor"}],
            }
        ),
    )
    assert (trainer.max_epochs, trainer.max_steps, trainer.precision) == (7, 90, "bf16-mixed")
    assert (trainer.accumulate_grad_batches, trainer.log_every_n_steps) == (3, 5)
    assert (trainer.gradient_clip_val, trainer.gradient_clip_algorithm.value) == (0.5, "value")
    assert (trainer.limit_train_batches, trainer.check_val_every_n_epoch) == (4, 2)
    assert type(trainer.profiler).__name__ == "SimpleProfiler"
    kinds = [type(callback).__name__ for callback in trainer.callbacks]
    assert kinds == ["Timer", "LearningRateMonitor", "WorkerCallback"] or kinds == [
        "LearningRateMonitor",
        "Timer",
        "WorkerCallback",
    ]
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)


def test_nothing_but_our_own_files_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    _, _, paths = train(tmp_path / "run", job())
    assert list(here.iterdir()) == []
    assert {path.name for path in paths.root.iterdir()} == {
        "checkpoints",
        "events.jsonl",
        "metrics.jsonl",
        "progress.json",
    }
    assert {path.name for path in paths.checkpoints.iterdir()} == {"fit.json", "last.ckpt", "last.prev.ckpt"}


def test_an_unknown_trainer_option_is_an_error_by_name(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="has no option 'limit_batches'"):
        trainer_of(tmp_path, job({"trainer": {"limit_batches": 4}}))


def test_options_that_lightning_refuses_are_an_error_without_traceback(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="Lightning refuses these options"):
        trainer_of(tmp_path, job({"trainer": {"limit_train_batches": -2}}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="torch sees 0"):
        trainer_of(tmp_path, job(hardware={"gpus": 1}))


@pytest.mark.parametrize(
    ("training", "reason", "steps"),
    [
        ({"max_epochs": 2}, "all epochs made", 12),
        ({"max_epochs": None, "max_steps": 8}, "all steps made", 8),
        ({"accumulate_grad_batches": 4}, "all epochs made", 4),
        (
            {"max_epochs": 50, "early_stopping": {"monitor": "val_loss", "patience": 1, "min_delta": 9.0}},
            "early stopping",
            12,
        ),
    ],
)
def test_the_training_ends_when_it_should(training: dict[str, Any], reason: str, steps: int, tmp_path: Path) -> None:
    fitted, _, paths = train(tmp_path, job(training))
    assert (fitted.reason, fitted.steps) == (reason, steps)
    assert read_json(paths.checkpoints / "fit.json") == {"finished": True, **vars(fitted)}
    assert events(paths)[-1] == "fit ended"


def test_double_precision(tmp_path: Path) -> None:
    _, module, _ = train(tmp_path, job({"precision": "64-true", "max_epochs": 1}))
    assert module.dtype == torch.float64


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first, module, paths = train(tmp_path, job())
    written = paths.last_checkpoint.stat().st_mtime_ns
    again, _, _ = train(tmp_path, job())
    assert again == first
    assert paths.last_checkpoint.stat().st_mtime_ns == written
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in trained_weights(paths, "last").items())


# Optimizers -----------------------------------------------------------------------------------------------------------


def test_optimizer_and_schedule_come_from_the_yaml(tmp_path: Path) -> None:
    sections = {
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.25, "betas": [0.8, 0.9]},
        "scheduler": {
            "schedule": {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "gamma": 0.5},
            "interval": "step",
            "frequency": 3,
        },
    }
    _, module, _ = train(tmp_path, job({"max_epochs": 1}, **sections))
    optimizer = module.optimizers().optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    assert tuple(optimizer.param_groups[0]["betas"]) == (0.8, 0.9)
    assert optimizer.param_groups[0]["lr"] == 0.25 * 0.5**2


def test_frozen_parameters_are_not_handed_to_the_optimizer(tmp_path: Path) -> None:
    module = Net()
    before = module.layers[0].weight.detach().clone()
    freeze(module, ["layers.0.*"])
    train(tmp_path, job(optimizer={"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.5}), module)
    assert torch.equal(module.layers[0].weight, before)
    assert len(module.optimizers().optimizer.param_groups[0]["params"]) == 2


def test_an_optimizer_that_refuses_its_arguments_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"optimizer: torch\.optim\.SGD raised ValueError: Invalid learning rate"):
        train(tmp_path, job(optimizer={"_target_": "torch.optim.SGD", "lr": -1.0}))


# Metrics --------------------------------------------------------------------------------------------------------------


def test_metrics_progress_and_events_are_recorded(tmp_path: Path) -> None:
    _, _, paths = train(tmp_path, job())
    assert len(metrics(paths, "train_loss_step")) == 12
    assert len(metrics(paths, "train_loss_epoch")) == len(metrics(paths, "val_loss")) == 2
    epochs = [(line["epoch"], line["step"]) for line in read_json_lines(paths.metrics) if "val_loss" in line["metrics"]]
    assert epochs == [(0, 5), (1, 11)]
    progress = read_json(paths.progress)
    assert (progress["epochs"], progress["batches"]) == (2, 6)
    assert events(paths)[0] == "checkpoint"


class Swinging(Net):
    """Its validation loss is best in the second of three epochs."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", torch.tensor([3.0, 1.0, math.nan, 2.0][self.current_epoch]))


@pytest.mark.parametrize(("mode", "epoch", "value"), [("min", 1, 1.0), ("max", 0, 3.0)])
def test_the_best_weights_are_kept(mode: str, epoch: int, value: float, tmp_path: Path) -> None:
    settings = {"max_epochs": 4, "checkpoint": {"monitor": "val_loss", "mode": mode}}
    fitted, module, paths = train(tmp_path, job(settings), Swinging())
    assert fitted.best == value
    best = torch.load(paths.best_checkpoint)
    assert (best["epoch"], best["value"]) == (epoch, value)
    weights = trained_weights(paths, "best")
    assert not torch.equal(weights["layers.0.weight"], module.layers[0].weight)
    assert torch.equal(trained_weights(paths, "last")["layers.0.weight"], module.layers[0].weight)


def test_metrics_of_the_training_can_choose_the_best_too(tmp_path: Path) -> None:
    fitted, _, paths = train(tmp_path, job({"checkpoint": {"monitor": "train_loss_epoch"}}))
    assert fitted.best == min(metrics(paths, "train_loss_epoch"))


@pytest.mark.parametrize(
    ("training", "key"),
    [
        ({"checkpoint": {"monitor": "val_los"}}, "training.checkpoint.monitor"),
        ({"early_stopping": {"monitor": "val_los"}}, "training.early_stopping.monitor"),
        ({"checkpoint": {"monitor": "val_los"}, "trainer": {"val_check_interval": 2}}, "training.checkpoint.monitor"),
    ],
)
def test_a_metric_that_is_never_logged_is_told_after_the_first_validation(
    training: dict[str, Any], key: str, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed) as caught:
        train(tmp_path, job({"max_epochs": 50, **training}))
    assert key in caught.value.message
    assert "train_loss_epoch" in caught.value.message
    assert caught.value.hint == f"{key}=val_loss"
    paths = RunPaths(tmp_path)
    assert len(metrics(paths, "train_loss_step")) <= (2 if "trainer" in training else 6)


def test_a_schedule_that_watches_a_metric_that_is_never_logged(tmp_path: Path) -> None:
    schedule = {"schedule": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, "monitor": "val_acc"}
    with pytest.raises(RunFailed, match=r"scheduler\.monitor is 'val_acc', which the module does not log"):
        train(tmp_path, job(optimizer={"_target_": "torch.optim.SGD", "lr": 0.1}, scheduler=schedule))


def test_metrics_logged_at_the_end_of_epochs_may_be_watched(tmp_path: Path) -> None:
    class Late(Net):
        def on_train_epoch_end(self) -> None:
            self.log("late", 5.0 - self.current_epoch)

    fitted, _, _ = train(tmp_path, job({"checkpoint": {"monitor": "late"}}), Late())
    assert fitted.best == 4.0


def test_without_validation_a_metric_of_validation_is_told_after_an_epoch(tmp_path: Path) -> None:
    class NoValidation(Data):
        def val_dataloader(self) -> Any:
            return []

    with pytest.raises(RunFailed, match="'val_loss', which the module does not log"):
        train(tmp_path, job({"max_epochs": 9, "early_stopping": {"monitor": "val_loss"}}), data=NoValidation())


# Stopping -------------------------------------------------------------------------------------------------------------


class Asking(Net):
    """Asks its own training to stop at a step."""

    def __init__(self, stop: StopRequest, at: int) -> None:
        super().__init__()
        self.stop, self.at = stop, at

    def on_train_batch_end(self, *_: Any) -> None:
        if self.global_step == self.at:
            self.stop.ask()


@pytest.mark.parametrize("at", [1, 5, 6, 9])
def test_a_stop_saves_what_was_done_and_resuming_ends_the_same(at: int, tmp_path: Path) -> None:
    _, whole, _ = train(tmp_path / "whole", job())
    stop = StopRequest()
    with pytest.raises(StopTraining):
        train(tmp_path / "run", job(), lambda: Asking(stop, at), stop=stop)
    paths = RunPaths(tmp_path / "run")
    assert torch.load(paths.last_checkpoint)["global_step"] == at
    assert events(paths)[-1] == "stopping"
    _, resumed, _ = train(tmp_path / "run", job())
    assert "resumed" in events(paths)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_a_stop_before_the_first_batch_leaves_nothing_to_resume_from(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.ask()
    with pytest.raises(StopTraining):
        train(tmp_path, job(), stop=stop)
    assert not RunPaths(tmp_path).last_checkpoint.exists()


def test_the_wall_time_ends_a_training_with_a_checkpoint(tmp_path: Path) -> None:
    now = [0.0]
    stop = StopRequest(100.0, clock=lambda: now[0])

    class Slow(Net):
        def on_train_batch_end(self, *_: Any) -> None:
            now[0] += 30

    with pytest.raises(StopTraining, match="wall time reached"):
        train(tmp_path, job(), Slow(), stop=stop)
    assert torch.load(RunPaths(tmp_path).last_checkpoint)["global_step"] == 3


def test_a_full_disk_ends_the_training_and_it_goes_on_once_there_is_room(tmp_path: Path) -> None:
    slow = job(optimizer={"_target_": "torch.optim.SGD", "lr": 1e-4})
    _, whole, _ = train(tmp_path / "whole", slow, lambda: Net(3000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(EnvironmentFault, match="disk full"):
            train(tmp_path / "run", slow, lambda: Net(3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    paths = RunPaths(tmp_path / "run")
    assert list(paths.checkpoints.iterdir()) == []
    _, resumed, _ = train(tmp_path / "run", slow, lambda: Net(3000))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_signals_are_left_to_the_worker(tmp_path: Path) -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    seen = []

    class Looking(Net):
        def on_train_start(self) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))

    train(tmp_path, job(), Looking())
    assert seen == [before]


# Modules --------------------------------------------------------------------------------------------------------------


def test_what_is_no_lightning_module_is_refused() -> None:
    with pytest.raises(RunFailed, match=r"torch\.nn\.Identity gives a Identity, which is no LightningModule"):
        make_module(job())


@pytest.mark.parametrize("text", [None, "{"])
def test_a_kill_between_the_last_checkpoint_and_its_mark_costs_nothing(text: str | None, tmp_path: Path) -> None:
    first, _, paths = train(tmp_path, job())
    written = paths.last_checkpoint.stat().st_mtime_ns
    mark = paths.checkpoints / "fit.json"
    mark.write_text(text) if text else mark.unlink()
    again, _, _ = train(tmp_path, job())
    assert again == first
    assert paths.last_checkpoint.stat().st_mtime_ns == written
    assert json.loads(mark.read_text())["finished"]
