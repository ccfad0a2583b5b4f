"""A whole worker process: killed anywhere, resumed, and ending as if nothing had happened.

``AI4SDK_KILLS`` sets how often it is killed; 6 times if it is not set.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ai4sdk.planning.plan import Plan, TaskPlan, digest_of, read_plan_file, results_of
from ai4sdk.runs.files import read_json, read_json_lines, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import Job
from ai4sdk.worker.failures import Failure, failure_of
from ai4sdk.worker.phases import execute
from ai4sdk.worker.signals import StopRequest

KILLS = int(os.environ.get("AI4SDK_KILLS", "6"))

CODE = {
    "toy_of_worker.py": """
        import random
        import sys
        import time

        import numpy as np
        import pytorch_lightning as pl
        import torch
        from torch import nn

        class Rows(torch.utils.data.Dataset):
            def __init__(self, count=40, pause=0.0):
                self.x = torch.linspace(-1, 1, count * 3).reshape(count, 3)
                self.y = self.x.sum(1, keepdim=True).sin()
                self.pause = pause

            def __len__(self):
                return len(self.x)

            def __getitem__(self, index):
                time.sleep(self.pause)
                noise = random.random() + np.random.rand() + torch.rand(()).item()
                return self.x[index] + 0.1 * noise, self.y[index]

        class OwnGenerators(Rows):
            def __init__(self, count):
                super().__init__(count)
                self.generators = {
                    "torch": torch.Generator().manual_seed(1), "numpy": np.random.default_rng(1), "python": random.Random(1)
                }

            def __getitem__(self, index):
                torchs, numpys, pythons = self.generators.values()
                noise = torch.rand((), generator=torchs).item() + numpys.random() + pythons.random()
                return self.x[index] + 0.1 * noise, self.y[index]

        class Toy(pl.LightningModule):
            def __init__(self, dropout=0.2, act=None):
                super().__init__()
                self.act = act
                self.layers = nn.Sequential(
                    nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1)
                )

            def forward(self, x):
                return self.layers(x)

            def training_step(self, batch, index):
                x, y = batch
                loss = nn.functional.mse_loss(self(x), y)
                self.log("train_loss", loss, on_step=True, on_epoch=True)
                if self.global_step == 3:
                    if self.act == "raise":
                        raise ZeroDivisionError("the learning rate went away")
                    if self.act == "exit":
                        sys.exit(0)
                    if self.act == "memory":
                        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                return loss

            def validation_step(self, batch, index):
                x, y = batch
                self.log("val_loss", nn.functional.mse_loss(self(x), y))
        """
}


def a_job(**changes: Any) -> Job:
    values = {
        "name": "toy",
        "task": "regression",
        "seed": 3,
        "module": {"_target_": "toy_of_worker.Toy"},
        "dataset": {
            "_target_": "toy_of_worker.Rows",
            "count": 60,
            "splits": {"train": 0.7, "val": 0.15, "test": 0.15},
            "loader": {"batch_size": 4},
        },
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.02},
        "scheduler": {
            "schedule": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 0, "factor": 0.5},
            "monitor": "val_loss",
        },
        "training": {
            "max_epochs": 4,
            "accumulate_grad_batches": 2,
            "checkpoint": {"monitor": "val_loss", "every": 0.1},
            "trainer": {"val_check_interval": 4},
        },
        "hardware": {"cpus": 1},
        "tracking": {"kind": "none"},
    }
    return Job.model_validate({**values, **changes})


def make_run(root: Path, job: Job, code: dict[str, str] | None = None) -> RunPaths:
    """Lay out a run directory as a backend does."""
    paths = RunPaths(root)
    for folder in (paths.code, paths.logs):
        folder.mkdir(parents=True)
    for name, text in (CODE if code is None else code).items():
        (paths.code / name).write_text(textwrap.dedent(text))
    digests = {"job": digest_of(results_of(job))}
    plan = Plan(
        digest=digest_of(digests),
        digests=digests,
        name=job.name,
        job=job.model_dump(mode="json", by_alias=True),
        tasks=[TaskPlan(name="train", kind="train", cpus=1)],
        packages={},
        python="3.11",
        code={"paths": [""]},
    )
    paths.plan.write_text(plan.to_json())
    return paths


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[RunPaths, Failure | None]]]:
    """Execute a task in this process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()

    def run(job: Job, code: dict[str, str] | None = None, stop: StopRequest | None = None) -> Any:
        paths = RunPaths(tmp_path / "run")
        if not paths.root.exists():
            make_run(paths.root, job, code)
        try:
            execute(read_plan_file(paths.root), paths, "train", stop or StopRequest())
        except BaseException as error:  # noqa: BLE001 - as in a worker
            return paths, failure_of(error, phase="fit")
        return paths, None

    yield run
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    for name in [name for name in sys.modules if name.startswith("toy_of_worker")]:
        del sys.modules[name]


Run = Callable[..., tuple[RunPaths, Failure | None]]


def test_a_task_leaves_evaluation_report_and_package(run_here: Run) -> None:
    paths, failure = run_here(a_job())
    assert failure is None
    assert read_json(paths.progress)["phase"] == "done"
    assert read_json(paths.progress)["finished"] == ["fit", "evaluate", "package"]
    assert read_json(paths.scores)["task"] == "regression"
    assert paths.report.is_file()
    best = torch.load(paths.best_checkpoint)["state_dict"]
    packaged = load_file(paths.package / "weights.safetensors")
    assert all(torch.equal(packaged[name], value) for name, value in best.items())
    phases = [line["phase"] for line in read_json_lines(paths.events) if line["event"] == "phase"]
    assert phases == ["fit", "evaluate", "package"]


def test_a_finished_task_does_nothing_more(run_here: Run) -> None:
    paths, _ = run_here(a_job())
    written = {path: path.stat().st_mtime_ns for path in paths.root.rglob("*.*ckpt")}
    events = len(list(read_json_lines(paths.events)))
    assert run_here(a_job())[1] is None
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(list(read_json_lines(paths.events))) == events


def test_a_dataset_with_its_own_generators_is_judged_alike_in_a_resumed_task(run_here: Run) -> None:
    dataset = {"_target_": "toy_of_worker.OwnGenerators", "count": 40, "loader": {"batch_size": 4}}
    scores, examples = [], []
    for _ in range(2):
        paths, failure = run_here(a_job(dataset=dataset))
        assert failure is None, failure.traceback
        scores.append({name: value for name, value in read_json(paths.scores).items() if name != "seconds"})
        examples.append((paths.package / "input_example.json").read_text())
        for folder in (paths.evaluation, paths.package):
            shutil.rmtree(folder)
        write_json(paths.progress, {**read_json(paths.progress), "phase": "fit", "finished": ["fit"]})
    assert scores[0] == scores[1]
    assert examples[0] == examples[1]


def test_phases_that_are_finished_are_not_repeated(run_here: Run) -> None:
    paths, _ = run_here(a_job())
    progress = read_json(paths.progress)
    paths.progress.write_text(json.dumps({**progress, "finished": ["fit", "evaluate"]}))
    paths.scores.write_text(json.dumps({**read_json(paths.scores), "note": "kept"}))
    assert run_here(a_job())[1] is None
    assert read_json(paths.scores)["note"] == "kept"
    phases = [line["phase"] for line in read_json_lines(paths.events) if line["event"] == "phase"]
    assert phases == ["fit", "evaluate", "package", "package"]


@pytest.mark.parametrize(
    ("act", "kind", "code", "cause"),
    [
        ("raise", "user", 4, "ZeroDivisionError: the learning rate went away"),
        ("exit", "user", 4, "the code called sys.exit(0) during fit"),
        ("memory", "environment", 7, "out of memory"),
    ],
)
def test_a_module_that_breaks_off_is_a_failure(act: str, kind: str, code: int, cause: str, run_here: Run) -> None:
    _, failure = run_here(a_job(module={"_target_": "toy_of_worker.Toy", "act": act}))
    assert failure is not None
    assert (failure.kind, failure.exit_code) == (kind, code)
    assert cause in failure.cause
    assert "toy_of_worker.py" in failure.traceback


def test_code_that_cannot_be_imported_is_a_failure(run_here: Run) -> None:
    _, failure = run_here(a_job(), {"toy_of_worker.py": "def Toy(:"})
    assert failure is not None
    assert (failure.kind, failure.exit_code) == ("user", 4)
    assert "SyntaxError" in failure.cause


def test_files_of_a_dataset_that_changed_after_planning_are_refused(run_here: Run, tmp_path: Path) -> None:
    dataset = {"_target_": "toy_of_worker.Rows", "file": str(tmp_path / "rows.txt")}
    job = a_job(dataset=dataset)
    (tmp_path / "rows.txt").write_text("1")
    paths = make_run(tmp_path / "run", job)
    plan = read_json(paths.plan)
    plan["data"] = {"dataset": {"uri": "toy", "fingerprint": "x", "paths": {"file": "sha256:of something else"}}}
    paths.plan.write_text(json.dumps(plan))
    _, failure = run_here(job)
    assert failure is not None
    assert (failure.kind, failure.exit_code) == ("data", 3)
    assert "dataset.file" in failure.cause


def test_weights_of_another_run_are_the_start(run_here: Run, tmp_path: Path) -> None:
    source, _ = run_here(a_job())
    source.root.rename(tmp_path / "first")
    weights = tmp_path / "first" / "package" / "weights.safetensors"
    job = a_job(training={"max_epochs": 1, "init_from": "first", "freeze": ["layers.0.*"]}, scheduler=None)
    paths = make_run(tmp_path / "run", job)
    plan = read_json(paths.plan)
    plan["inputs"] = {"init_from": {"source": "first", "path": str(weights), "fingerprint": "x"}}
    paths.plan.write_text(json.dumps(plan))
    _, failure = run_here(job)
    assert failure is None
    before, after = load_file(weights), load_file(paths.package / "weights.safetensors")
    assert torch.equal(before["layers.0.weight"], after["layers.0.weight"])
    assert not torch.equal(before["layers.4.weight"], after["layers.4.weight"])
    loaded = next(line for line in read_json_lines(paths.events) if line["event"] == "weights loaded")
    assert (loaded["loaded"], loaded["missing"]) == (len(before), [])


def test_a_stop_between_phases_is_kept_for_later(run_here: Run) -> None:
    stop = StopRequest()
    stop.ask()
    paths, failure = run_here(a_job(), stop=stop)
    assert failure is not None
    assert failure.exit_code == 130
    assert read_json(paths.progress)["finished"] == []
    assert run_here(a_job())[1] is None


# Processes ------------------------------------------------------------------------------------------------------------


def slow_job() -> Job:
    dataset = {**a_job().dataset.as_config(), "pause": 0.004}  # type: ignore[union-attr]
    loader, splits = {"batch_size": 4}, {"train": 0.7, "val": 0.15, "test": 0.15}
    return a_job(
        dataset={**dataset, "loader": loader, "splits": splits},
        training={
            "max_epochs": 12,
            "accumulate_grad_batches": 2,
            "checkpoint": {"monitor": "val_loss", "every": 0.1},
            "trainer": {"val_check_interval": 4},
        },
    )


def start(paths: RunPaths) -> subprocess.Popen[bytes]:
    with open(paths.log("train"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ai4sdk.worker", str(paths.root), "train"],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONHASHSEED": "3", "OMP_NUM_THREADS": "1"},
        )


def log_of(paths: RunPaths) -> str:
    return paths.log("train").read_text()[-3000:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """Execute a run that nobody disturbs."""
    paths = make_run(tmp_path_factory.mktemp("whole") / "run", slow_job())
    assert start(paths).wait(120) == 0, log_of(paths)
    return paths


def assert_same_end(paths: RunPaths, whole: RunPaths) -> None:
    mine, theirs = (load_file(run.package / "weights.safetensors") for run in (paths, whole))
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name
    for name in ("last_checkpoint", "best_checkpoint"):
        mine, theirs = (torch.load(getattr(run, name))["state_dict"] for run in (paths, whole))
        for weight, value in theirs.items():
            assert torch.equal(mine[weight], value), (name, weight)
    drop = {"seconds"}
    scores = [{k: v for k, v in read_json(run.scores).items() if k not in drop} for run in (paths, whole)]
    assert scores[0] == scores[1]
    figures = []
    for run in (paths, whole):
        lines = read_json_lines(run.metrics)
        figures.append({(line["step"], name): value for line in lines for name, value in line["metrics"].items()})
    assert figures[0] == figures[1]


def fit_began(paths: RunPaths, attempt: int) -> bool:
    phases = [line for line in read_json_lines(paths.events) if line.get("phase") == "fit"]
    return len(phases) >= attempt


@pytest.mark.slow
def test_a_task_killed_after_the_training_judges_alike(whole: RunPaths, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    shutil.copytree(whole.root, paths.root)
    for folder in (paths.evaluation, paths.package):
        shutil.rmtree(folder)
    write_json(paths.progress, {**read_json(paths.progress), "phase": "fit", "finished": ["fit"]})
    assert start(paths).wait(120) == 0, log_of(paths)
    assert_same_end(paths, whole)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_very_weights(whole: RunPaths, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"random moments of seed {seed}")
    chance = random.Random(seed)
    paths = make_run(tmp_path / "run", slow_job())
    training = [line["time"] for line in read_json_lines(whole.events) if line["event"] in ("phase", "fit ended")]
    span = training[1] - training[0]
    began = 0
    for kill in range(KILLS):
        process = start(paths)
        if kill % 5 == 4:  # at any time since the start, imports included
            delay = chance.uniform(0, 8)
        else:
            deadline = time.monotonic() + 90
            while not fit_began(paths, began + 1) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            delay = chance.uniform(0, 0.5 + 1.5 * span / KILLS)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        began = len([line for line in read_json_lines(paths.events) if line.get("phase") == "fit"])
    assert start(paths).wait(120) == 0, log_of(paths)
    resumed = [line for line in read_json_lines(paths.events) if line["event"] == "resumed"]
    print(f"resumed at steps {[line['step'] for line in resumed]}")
    assert resumed, "no kill hit the training"
    assert_same_end(paths, whole)


@pytest.mark.slow
def test_told_to_stop_it_saves_and_goes_on_where_it_was(whole: RunPaths, tmp_path: Path) -> None:
    paths = make_run(tmp_path / "run", slow_job())
    process = start(paths)
    while not any(line["event"] == "checkpoint" for line in read_json_lines(paths.events)):
        assert process.poll() is None, log_of(paths)
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130, log_of(paths)
    assert read_json(paths.failure)["cause"] == "stopped on request"
    saved = [line["step"] for line in read_json_lines(paths.events) if line["event"] == "checkpoint"]
    assert start(paths).wait(120) == 0, log_of(paths)
    resumed = next(line for line in read_json_lines(paths.events) if line["event"] == "resumed")
    assert resumed["step"] == saved[-1] > 0
    assert_same_end(paths, whole)


@pytest.mark.slow
def test_its_failure_is_told_in_a_file_and_by_its_exit_code(tmp_path: Path) -> None:
    paths = make_run(tmp_path / "run", a_job(module={"_target_": "toy_of_worker.Toy", "act": "exit"}))
    assert start(paths).wait(120) == 4
    failure = read_json(paths.failure)
    assert failure["cause"] == "the code called sys.exit(0) during fit"
    assert failure["kind"] == "user"
    assert "toy_of_worker.py" in log_of(paths)
