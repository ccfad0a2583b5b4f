"""A model in MLflow's registry is served by its alias, and when the alias moves, the new one is."""

import json
import os
import signal
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(900)]


def train(folder, seed):
    argv = [
        "run", "config=quickstart", "training.max_epochs=1", "hardware.cpus=1", f"seed={seed}", "tracking.register_as=digits",
        "tracking.alias=champion",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "ai4sdk", *argv], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alias_is_served_and_followed(start, tmp_path):
    (tmp_path / ".ai4sdk").touch()
    train(tmp_path, 1)
    server = start("models:/digits@champion").ready()
    first = json.loads(server.ask("/models/digits").body)
    train(tmp_path, 2)
    os.kill(server.process.pid, signal.SIGHUP)
    server.ready(times=2)
    second = json.loads(server.ask("/models/digits").body)
    assert first["name"] == second["name"] == "digits"
    assert first["run"] != second["run"]
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}
    assert server.ask("/v2/models/digits/infer", {"inputs": [tensor]}).status == 200


def told(folder, source, **env):
    argv = [sys.executable, "-m", "ai4sdk", "serve", source, "serving.port=0"]
    done = subprocess.run(
        argv, cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Make a project whose registry has a model without versions."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / ".ai4sdk").touch()
    (folder / "runs").mkdir()
    make = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1], sys.argv[1]).create_registered_model('digits')"
    store = f"sqlite:///{folder}/runs/mlflow.db"
    subprocess.run([sys.executable, "-c", make, store], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("source", "words"),
    [("models:/nothing@champion", "nothing"), ("models:/digits/99", "99"), ("models:/digits@nobody", "nobody")],
)
def test_what_is_not_there_is_told(empty, source, words):
    said = told(empty, source)
    assert f"MLflow has no {source}: " in said
    assert words in said.partition(f"MLflow has no {source}: ")[2]


def test_without_a_store_it_is_told_how_to_name_one(tmp_path):
    (tmp_path / ".ai4sdk").touch()
    address = "http://127.0.0.1:5055"
    said = told(tmp_path, "models:/digits@champion", MLFLOW_TRACKING_URI=address)
    assert "there is no MLflow store" in said
    assert f"tracking.uri={address}, if MLFLOW_TRACKING_URI is meant" in said
