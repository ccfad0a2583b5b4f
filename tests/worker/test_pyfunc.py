"""MLflow loads a package, enforces its schema and gives the answers that `load_model` gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ai4sdk.data.preprocessing import ColumnRule, Preprocessing
from ai4sdk.spec import Images
from ai4sdk.worker.model import load_model

RULES = Preprocessing(
    "table",
    (4,),
    "classification",
    (
        ColumnRule("age", "number", 40.0, 10.0),
        ColumnRule("smokes", "bool"),
        ColumnRule("colour", "text", categories=("blue", "red")),
    ),
)
FRAME = pd.DataFrame({"age": [45, 30], "smokes": [True, False], "colour": ["red", "blue"]})


@pytest.fixture
def mlflow(monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.pyfunc

    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow adds the package's code for good
    return mlflow


@pytest.fixture
def package(make_package):
    example = np.array([[0.5, 1, 0, 1]], np.float32)
    return make_package(preprocessing=RULES, example_input=example, column_names=RULES.column_names)


def test_frames_are_answered(mlflow, package):
    loaded = mlflow.pyfunc.load_model(str(package))
    found = loaded.predict(FRAME)
    expected = load_model(package, trust_code=True)(FRAME)
    assert list(found.columns) == ["prediction", "probability", "probabilities"]
    assert found.to_dict("records") == expected.to_records()
    assert loaded.predict(FRAME[["colour", "smokes", "age"]]).equals(found)
    assert loaded.predict(FRAME.astype({"age": float})).equals(found)
    assert len(loaded.predict(loaded.input_example)) == 1


def test_a_missing_column_is_refused(mlflow, package):
    with pytest.raises(mlflow.exceptions.MlflowException, match="colour"):
        mlflow.pyfunc.load_model(str(package)).predict(FRAME[["age", "smokes"]])


def test_arrays_are_answered(mlflow, make_package):
    rules = Preprocessing("images", (1, 8, 8), "classification", images=Images(size=[8, 8], mode="L"))
    package = make_package(net="Pictures", preprocessing=rules, example_input=np.zeros((1, 1, 8, 8), np.float32))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 12)).astype(np.uint8)
    found = mlflow.pyfunc.load_model(str(package)).predict(pixels)
    assert found.to_dict("records") == load_model(package, trust_code=True)(pixels).to_records()


def test_regressors(mlflow, make_package):
    for width in (1, 2):
        package = make_package(
            f"r{width}", task="regression", class_names=None, arguments={"features": 4, "classes": width}
        )
        found = mlflow.pyfunc.load_model(str(package)).predict(np.ones((3, 4), np.float32))
        if width == 1:
            assert list(found.columns) == ["prediction"]
        else:
            assert found.shape == (3, 2)


def test_the_metadata_is_what_mlflow_would_write(mlflow, package, tmp_path):
    """Save a model with MLflow itself, with the same signature, and compare everything but the values of this one."""
    from mlflow.models import Model

    ours = Model.load(str(package))
    (tmp_path / "loader_for_comparison.py").write_text("def _load_pyfunc(path):\n    return None\n")
    sys.path.insert(0, str(tmp_path))
    mlflow.pyfunc.save_model(
        str(tmp_path / "theirs"),
        loader_module="loader_for_comparison",
        code_paths=[str(package / "code" / "tinynets")],
        signature=ours.signature,
        pip_requirements=["numpy"],
    )
    read = [yaml.safe_load((folder / "MLmodel").read_text()) for folder in (package, tmp_path / "theirs")]
    assert read[0]["signature"] == read[1]["signature"]
    assert read[0]["mlflow_version"] == read[1]["mlflow_version"]
    assert set(read[1]) - set(read[0]) <= {"model_size_bytes"}
    flavors = [each["flavors"]["python_function"] for each in read]
    assert set(flavors[1]) <= set(flavors[0])
    for key in ("code", "env", "python_version", "streamable"):
        assert flavors[0][key] == flavors[1][key]
    python = [yaml.safe_load((folder / "python_env.yaml").read_text()) for folder in (package, tmp_path / "theirs")]
    assert python[0].keys() == python[1].keys()


@pytest.mark.slow
def test_the_mlflow_command_answers(package, tmp_path):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "MLFLOW_DISABLE_TELEMETRY": "true"}
    mlflow = Path(sys.executable).with_name("mlflow")
    done = subprocess.run(
        [mlflow, "models", "predict", "-m", package, "-i", package / "serving_input_example.json",
         "-t", "json", "-o", tmp_path / "out.json", "--env-manager", "local"],
        env=env, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    golden = json.loads((package / "golden" / "responses.json").read_text())[0]
    assert json.loads((tmp_path / "out.json").read_text()) == golden
