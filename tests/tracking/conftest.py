"""Run directories as a training leaves them, and the real shipper to ship them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.runs.files import append_json_line, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, hold_lock
from ai4sdk.studies.layout import StudyPaths

ROOT = Path(__file__).resolve().parents[2]
STARTED = 1_772_360_100.0
NUMBERS = itertools.count()
"""No two runs have the same id, as several are recorded on one server."""


def plan_of(**tracking: Any) -> dict[str, Any]:
    """A plan, with the fields that `ai4sdk plan` writes."""
    return {
        "format": "ai4sdk.plan/1",
        "digest": "sha256:" + "d" * 64,
        "digests": {"job": "sha256:" + "e" * 64},
        "name": "digits",
        "job": {
            "name": "digits",
            "description": "Handwritten digits.",
            "tags": {"team": "vision"},
            "task": "classification",
            "seed": 42,
            "module": {"_target_": "classifier.Net", "hidden": 32, "layers": [32, 16], "dropout": None},
            "dataset": {"uri": "data/digits.npz", "loader": {"batch_size": 64}},
            "training": {"max_epochs": 3, "trainer": {}},
            "storage": {"protocol": "webdav", "username": "ana", "password": "${secret:NEXTCLOUD}"},
            "hardware": {"cpus": 2},
            "tracking": tracking,
            "backend": {"kind": "local"},
        },
        "tasks": [{"name": "train", "kind": "train", "cpus": 2}],
        "data": {
            "dataset": {
                "uri": "data/digits.npz",
                "fingerprint": "sha256:" + "f" * 64,
                "files": 1,
                "bytes": 123456,
                "summary": {"rows": 1797, "shape": [1, 8, 8], "classes": ["0", "1"]},
            }
        },
        "inputs": {},
        "packages": {"torch": "2.13.0", "mlflow": "3.17.2"},
        "python": "3.11",
        "created": {
            "time": STARTED - 1,
            "host": "bench",
            "user": "ana",
            "command": ["ai4sdk", "run", "config=digits"],
            "git_commit": "c0ffee",
        },
        "code": {"paths": [""], "files": {}},
    }


class Run:
    """A run directory that a test writes as a worker and its supervisor would."""

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.paths = RunPaths(folder)
        self.paths.logs.mkdir(parents=True)
        write_json(self.paths.plan, plan)
        self.paths.config.write_text("name: digits\n", encoding="utf-8")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.lock: int | None = None
        self.say("running")

    def say(self, state: str, *, attempt: int = 1, ended: float | None = None, cause: str | None = None) -> None:
        """Write state.json, and hold the run's lock as long as it goes on."""
        if not State(state).ended and self.lock is None:
            self.lock = hold_lock(self.paths)
        values = RunState(State(state), cause=cause, attempt=attempt, created=STARTED, started=STARTED, ended=ended)
        write_json(self.paths.state, asdict(values))
        if State(state).ended:
            self.let_go()

    def let_go(self) -> None:
        """Let go of the run's lock."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def log(self, step: int, *, later: float = 0, **metrics: float) -> None:
        """Append a record of metrics, so many seconds later than steps usually take."""
        record = {"time": STARTED + step / 1000 + later, "step": step, "epoch": step // 100, "metrics": metrics}
        append_json_line(self.paths.metrics, record)

    def end(self, state: str = "succeeded", **details: Any) -> None:
        """End the run."""
        self.say(state, ended=STARTED + 60, **details)

    def leave_results(self) -> None:
        """Write what a worker leaves: evaluation, report, logs, package."""
        self.paths.evaluation.mkdir(exist_ok=True)
        scores = {
            "accuracy": 0.975,
            "roc_auc": None,
            "macro_average": {"f1": 0.97},
            "classes": [{"name": "zero", "recall": 1.0}, {"name": "a(b", "recall": 0.5}],
            "confusion_matrix": [[1, 0], [0, 1]],
            "task": "classification",
            "samples": 270,
        }
        write_json(self.paths.scores, scores)
        (self.paths.evaluation / "confusion.png").write_bytes(b"\x89PNG\r\n")
        self.paths.report.write_text("<html>report</html>", encoding="utf-8")
        self.paths.log("train").write_text("epoch 1\n", encoding="utf-8")
        append_json_line(self.paths.events, {"time": STARTED, "event": "running"})
        write_package(self.paths.package)

    def start_shipper(self, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the shipper, in a current folder that must stay empty."""
        here = self.paths.root.parent.parent / "here"
        here.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "ai4sdk.tracking", str(self.paths.root), *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        environment.pop("PYTEST_CURRENT_TEST", None)
        with open(self.paths.root.parent.parent / "stderr.txt", "ab") as output:
            process = subprocess.Popen(command, cwd=here, env=environment, stdout=output, stderr=output)
        self.processes.append(process)
        return process

    def ship(self, *options: str, env: dict[str, str] | None = None) -> None:
        """Ship to the end."""
        assert self.start_shipper(*options, env=env).wait(timeout=180) == 0, self.said

    @property
    def ledger(self) -> dict[str, Any]:
        """What tracking.json holds."""
        try:
            values: dict[str, Any] = json.loads(self.paths.tracking.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return values

    @property
    def said(self) -> str:
        """What logs/tracking.log holds."""
        file = self.paths.log("tracking")
        return file.read_text(encoding="utf-8") if file.exists() else ""


class Study(Run):
    """A study directory that a test writes as its engine would, with points that ran."""

    paths: StudyPaths

    def __init__(self, folder: Path, plan: dict[str, Any], objectives: dict[str, str]) -> None:
        self.paths = StudyPaths(folder)
        self.paths.points.mkdir(parents=True)
        self.paths.logs.mkdir()
        self.plan = plan
        record = {
            "format": "ai4sdk.study/1",
            "id": self.paths.id,
            "name": plan["name"],
            "config": "digits",
            "search": "grid",
            "axes": {"training.lr": "0.1,0.01", "module.hidden": "range(1,5)"},
            "objectives": [{"name": name, "direction": direction} for name, direction in objectives.items()],
            "job": plan["job"],
            "created": plan["created"],
            "digest": "sha256:" + "5" * 64,
        }
        write_json(self.paths.study, record)
        self.processes = []
        self.lock = None
        self.say("running")

    def event(self, event: str, number: int, **details: Any) -> None:
        """Append to points.jsonl."""
        append_json_line(self.paths.ledger, {"time": STARTED + number, "event": event, "number": number, **details})

    def start_point(self, number: int, *, attempt: int = 1, steps: int = 3) -> Run:
        """Start a point: its run directory, and records of a training."""
        params = {"training.lr": 0.1 / (number + 1), "module.hidden": number}
        digest = f"sha256:{number:064d}"
        if attempt == 1:
            self.event("asked", number, params=params, overrides=[], digest=digest)
        self.event("started", number, run=f"points/{number:05d}", attempt=attempt)
        job = {**self.plan["job"], "module": {**self.plan["job"]["module"], "hidden": number}}
        point = Run(self.paths.point(number).root, {**self.plan, "job": job, "digest": digest})
        write_json(point.paths.membership, {"study": self.paths.id, "number": number, "params": params})
        for step in range(steps):
            point.log(step, loss=number + step / 10)
        return point

    def end_point(self, point: Run, *values: float, state: str = "succeeded", **details: Any) -> None:
        """End a point."""
        point.end("failed" if state == "pruned" else state, **details)
        self.event("ended", int(point.paths.root.name), state=state, values=list(values) or None, took=1.5)

    def run_point(self, number: int, *values: float, state: str = "succeeded") -> Run:
        """Start a point and end it."""
        point = self.start_point(number)
        self.end_point(point, *values, state=state)
        return point

    def leave_results(self) -> None:
        """Write what an engine leaves."""
        self.paths.report.write_text("<html>study</html>", encoding="utf-8")
        self.paths.best.write_text("training: {lr: 0.1}\n", encoding="utf-8")


def write_package(folder: Path) -> None:
    """Write a package that MLflow loads: a function of the user's code, no weights."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature

    class Double(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame) -> pd.DataFrame:
            return model_input * 2

    example = pd.DataFrame({"x": [1.0]})
    mlflow.pyfunc.save_model(
        folder, python_model=Double(), signature=infer_signature(example, example), pip_requirements=["mlflow"]
    )


def wait_until(true: Callable[[], Any], what: str, seconds: float = 120) -> None:
    """Wait for something, and fail with its name if it does not come."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def stop(runs: Iterable[Run]) -> None:
    """Let go of runs, and kill what was started for them."""
    for run in runs:
        run.let_go()
        for process in run.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Make run directories in one runs folder; what was started for them is stopped at the end."""
    made: list[Run] = []

    def make(folder: str = "runs", change: Any = None, **tracking: Any) -> Run:
        plan = plan_of(**{"flush_every": 0.2, **tracking})
        if change is not None:
            change(plan)
        made.append(Run(tmp_path / folder / f"20260301-101500-digits-{next(NUMBERS):04d}", plan))
        return made[-1]

    yield make
    stop(made)


@pytest.fixture
def make_study(tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """Make study directories in the same runs folder as `make_run`."""
    made: list[Study] = []

    def make(objectives: dict[str, str] | None = None, **tracking: Any) -> Study:
        folder = tmp_path / "runs" / f"20260301-101500-digits-{next(NUMBERS):04d}"
        plan = plan_of(**{"flush_every": 0.2, **tracking})
        made.append(Study(folder, plan, {"val/acc": "max"} if objectives is None else objectives))
        return made[-1]

    yield make
    stop(made)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Server:
    """A real MLflow server on loopback that can be killed and started again on its port."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.folder = folder
        self.store = store or f"sqlite:///{folder}/server.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.store]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        env.pop("PYTEST_CURRENT_TEST", None)
        with open(self.folder / "server.log", "ab") as output:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=output, stderr=output, start_new_session=True
            )
        wait_until(self._answers, f"the server at {self.uri}")

    def _answers(self) -> bool:
        import requests

        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
        try:
            return requests.get(f"{self.uri}/health", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """Kill it and all it started, at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One MLflow server for all tests of a module."""
    started = Server(tmp_path_factory.mktemp("server"))
    started.start()
    yield started
    started.kill()


def expected_history(metrics: Path) -> dict[str, list[tuple[int, int, float]]]:
    """What a user must see of metrics.jsonl: per metric, (step, time in ms, value), the first value of each step."""
    found: dict[str, dict[int, tuple[int, float]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for name, value in record["metrics"].items():
            found.setdefault(name, {}).setdefault(record["step"], (round(record["time"] * 1000), value))
    return {name: sorted((step, *rest) for step, rest in steps.items()) for name, steps in found.items()}


def history(client: Any, run_id: str) -> dict[str, list[tuple[int, int, float]]]:
    """What MLflow has of a run's metrics, but for those of the machine and the evaluation."""
    found = {}
    for name in client.get_run(run_id).data.metrics:
        if not name.startswith(("system/", "test/")):
            points = client.get_metric_history(run_id, name)
            found[name] = sorted((point.step, point.timestamp, point.value) for point in points)
    return found


def client_of(uri: str) -> Any:
    """Return an MLflow client that finds artifacts and models at an address."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri)
