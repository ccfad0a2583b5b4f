"""A package holds all that is needed to predict again, the same bytes each time, and appears whole or not at all."""

import hashlib
import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import nn

from ai4sdk.data.preprocessing import ColumnRule, Preprocessing
from ai4sdk.errors import RunFailed
from ai4sdk.spec import Audio, Images
from ai4sdk.worker.model import load_model
from ai4sdk.worker.package import write_package

TABLE = Preprocessing(
    "table",
    (4,),
    "classification",
    (
        ColumnRule("age", "number", 40.0, 10.0),
        ColumnRule("smokes", "bool"),
        ColumnRule("colour", "text", categories=("blue", "red")),
    ),
    class_names=("a", "b", "c"),
)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_package_holds(make_package):
    package = make_package(metadata={"metadata_version": "2.3.0", "title": "Tiny"})
    assert sorted(contents(package)) == [
        "MLmodel",
        "README.md",
        "ai4-metadata.yml",
        "code/tinynets/__init__.py",
        "code/tinynets/nets.py",
        "code/tinynets/parts.py",
        "conda.yaml",
        "golden/requests.json",
        "golden/responses.json",
        "input_example.json",
        "model.json",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
        "weights.safetensors",
    ]
    known = json.loads((package / "model.json").read_text())
    assert known["weights_sha256"] == hashlib.sha256((package / "weights.safetensors").read_bytes()).hexdigest()
    assert known["target"] == {"_target_": "tinynets.nets.Table", "features": 4, "classes": 3}
    assert yaml.safe_load((package / "ai4-metadata.yml").read_text())["title"] == "Tiny"
    assert "torch==2.13.0\n" in (package / "requirements.txt").read_text()
    assert "| accuracy | 0.9 |" in (package / "README.md").read_text()


def test_the_same_run_gives_the_same_bytes(make_package, make_code):
    code = make_code()
    one, two = contents(make_package("one", code=code)), contents(make_package("two", code=code))
    mlmodels = [yaml.safe_load(files.pop("MLmodel")) for files in (one, two)]
    assert one == two
    for each in mlmodels:
        each.pop("utc_time_created")
    assert mlmodels[0] == mlmodels[1]


def test_golden_requests_are_answered_as_recorded(make_package):
    package = make_package()
    model = load_model(package, trust_code=True)
    requests = json.loads((package / "golden" / "requests.json").read_text())
    responses = json.loads((package / "golden" / "responses.json").read_text())
    assert len(requests) == len(responses) == 3
    for request, response in zip(requests, responses, strict=True):
        assert model(request["inputs"]).to_records() == response["predictions"]


def test_examples_of_a_table_are_records_as_people_write_them(make_package):
    inputs = np.array([[0.5, 1, 0, 1], [-1.0, 0, 1, 0]], np.float32)
    package = make_package(preprocessing=TABLE, example_input=inputs, column_names=TABLE.column_names)
    assert json.loads((package / "input_example.json").read_text()) == {
        "columns": ["age", "smokes", "colour"],
        "data": [[45.0, True, "red"], [30.0, False, "blue"]],
    }
    inputs_schema = json.loads(yaml.safe_load((package / "MLmodel").read_text())["signature"]["inputs"])
    assert inputs_schema == [
        {"type": "any", "name": "age", "required": True},
        {"type": "boolean", "name": "smokes", "required": True},
        {"type": "string", "name": "colour", "required": True},
    ]
    model = load_model(package, trust_code=True)
    golden = json.loads((package / "golden" / "responses.json").read_text())
    assert model([{"age": 45, "smokes": True, "colour": "red"}]).to_records() == golden[0]["predictions"]
    bare = load_model(make_package("bare"), trust_code=True)
    assert np.allclose(model({"age": 45, "smokes": 1, "colour": "red"}).outputs, bare(inputs[:1]).outputs)


def test_examples_of_pictures_are_whole_numbers(make_package):
    rules = Preprocessing("images", (1, 8, 8), "classification", images=Images(size=[8, 8], mode="L"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8))
    package = make_package(net="Pictures", preprocessing=rules, example_input=torch.from_numpy(pixels / 255).float())
    assert json.loads((package / "input_example.json").read_text()) == pixels[:3, 0].tolist()
    schema = json.loads(yaml.safe_load((package / "MLmodel").read_text())["signature"]["inputs"])
    assert schema == [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, -1, -1]}}]


def test_examples_of_recordings_are_whole_numbers(make_package):
    how = Audio(rate=100, seconds=0.5)
    rules = Preprocessing("audio", how.shape, "classification", audio=how)
    whole = np.random.default_rng(0).integers(-32768, 32768, (4, 1, 50))
    package = make_package(net="Sounds", preprocessing=rules, example_input=torch.from_numpy(whole / 32768).float())
    assert json.loads((package / "input_example.json").read_text()) == whole[:3, 0].tolist()
    schema = json.loads(yaml.safe_load((package / "MLmodel").read_text())["signature"]["inputs"])
    assert schema == [{"type": "tensor", "tensor-spec": {"dtype": "int16", "shape": [-1, -1]}}]
    known = json.loads((package / "model.json").read_text())
    assert known["preprocessing"]["kind"] == "audio"
    assert known["preprocessing"]["audio"] == {"rate": 100, "seconds": 0.5}
    assert "soundfile==" in (package / "requirements.txt").read_text()
    assert "- In: recordings;" in (package / "README.md").read_text()


def test_examples_of_long_recordings_are_their_beginning(make_package):
    how = Audio(rate=16_000, seconds=60)
    rules = Preprocessing("audio", how.shape, "classification", audio=how)
    package = make_package(net="Sounds", preprocessing=rules, example_input=np.full((3, *how.shape), 0.5, np.float32))
    golden = json.loads((package / "golden" / "requests.json").read_text())
    assert [len(request["inputs"][0]) for request in golden] == [100_000] * 3
    assert load_model(package, trust_code=True).description.input_shape == [1, 960_000]


def test_examples_of_scaled_arrays_are_scaled_back(make_package):
    rules = Preprocessing("array", (4,), "classification", mean=(1.0, 2, 3, 4), std=(1.0, 2, 1, 2))
    package = make_package(preprocessing=rules, example_input=np.array([[0, 1, -1, 0.5]], np.float32))
    assert json.loads((package / "input_example.json").read_text()) == [[1.0, 4.0, 2.0, 5.0]]


def test_large_samples_give_fewer_golden_requests(make_package):
    package = make_package(net="Pictures", example_input=np.zeros((5, 1, 400, 500), np.float32))
    assert len(json.loads((package / "golden" / "requests.json").read_text())) == 1


def test_the_module_is_left_as_found(make_package, tmp_path):
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    write_plain(tmp_path / "p", module)
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def write_plain(folder, module, **options):
    settings = {
        "module_target": {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 2},
        "task": "regression",
        "example_input": np.ones((2, 4), np.float32),
        "plan_digest": "sha256:0",
        "run_id": "r",
        "packages": {},
        "name": "plain",
        **options,
    }
    return write_package(folder, module=module, **settings)


def test_tied_weights_are_stored_once(tmp_path):
    module = nn.Linear(4, 4)
    module.twin = nn.Linear(4, 4)
    module.twin.weight = module.weight
    package = write_plain(tmp_path / "p", module)
    known = json.loads((package / "model.json").read_text())
    assert known["shared_weights"] == {"twin.weight": "weight"}
    assert (package / "weights.safetensors").stat().st_size < 500


def test_weights_that_are_views_of_one_storage_are_kept_apart(tmp_path):
    storage = torch.arange(20.0)
    module = nn.Linear(4, 2)
    module.weight = nn.Parameter(storage[:8].view(2, 4))
    module.bias = nn.Parameter(storage[6:8])
    package = write_plain(tmp_path / "p", module)
    loaded = load_model(package)
    assert torch.equal(loaded.module.weight, storage[:8].view(2, 4))
    assert torch.equal(loaded.module.bias, storage[6:8])


class WithState(nn.Linear):
    def __init__(self, state):
        super().__init__(4, 2)
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


def test_plain_extra_state_is_kept(tmp_path):
    package = write_plain(tmp_path / "p", WithState({"seen": [1, 2.5, "x", None]}))
    assert json.loads((package / "model.json").read_text())["extra_state"] == {
        "_extra_state": {"seen": [1, 2.5, "x", None]}
    }


@pytest.mark.parametrize("state", [object(), {"when": {1, 2}}, (1, 2), {1: "a"}, float("nan"), b"bytes"])
def test_extra_state_that_json_would_change_is_refused(tmp_path, state):
    with pytest.raises(RunFailed, match="_extra_state of the module cannot be packaged") as caught:
        write_plain(tmp_path / "p", WithState(state))
    assert "buffer" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_are_no_plain_data_are_refused(tmp_path):
    with pytest.raises(RunFailed, match="the module's arguments cannot be packaged"):
        write_plain(tmp_path / "p", nn.Linear(4, 2), module_target={"_target_": "torch.nn.Linear", "x": object()})


def test_a_module_that_answers_nothing_is_refused(tmp_path):
    with pytest.raises(RunFailed, match="no package can be made"):
        write_plain(tmp_path / "p", pl.LightningModule())


def test_a_package_is_replaced_as_a_whole(make_package, make_code, tmp_path):
    code = make_code()
    package = make_package(code=code)
    (package / "stray.txt").write_text("old")
    make_package(code=code, seed=1)
    assert not (package / "stray.txt").exists()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_failure_leaves_the_old_package(make_package, make_code, tmp_path, monkeypatch):
    code = make_code()
    before = contents(make_package(code=code))
    monkeypatch.setattr("ai4sdk.worker.package._flush", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make_package(code=code, seed=1)
    assert contents(tmp_path / "package") == before
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_regressors_of_one_and_several_outputs(tmp_path):
    for width, expected in ((1, "prediction"), (2, None)):
        target = {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": width}
        package = write_plain(tmp_path / str(width), nn.Linear(4, width), module_target=target)
        schema = json.loads(yaml.safe_load((package / "MLmodel").read_text())["signature"]["outputs"])
        assert schema[0].get("name") == expected
        value = json.loads((package / "golden" / "responses.json").read_text())[0]["predictions"][0]["prediction"]
        assert isinstance(value, float) if width == 1 else len(value) == 2


def test_double_precision_is_kept(tmp_path):
    module = nn.Linear(4, 2).double()
    model = load_model(write_plain(tmp_path / "p", module))
    assert model.module.weight.dtype == torch.float64
    assert torch.equal(model.module.weight, module.weight)


def test_other_tasks_give_arrays(tmp_path):
    package = write_plain(tmp_path / "p", nn.Linear(4, 2), task="auto")
    model = load_model(package)
    assert model.task == "other"
    assert model(np.ones((3, 4), np.float32)).outputs.shape == (3, 2)
