"""Loading unpickles nothing, runs no code that the user lacks, says clearly what is wrong, and mixes up no versions."""

import json
import os
import pickle
import shutil
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sounds import sound_file, tone
from torch import nn

from ai4sdk.data.preprocessing import ColumnRule, Preprocessing
from ai4sdk.errors import DataError, NotFound, RunFailed
from ai4sdk.spec import Audio, Images
from ai4sdk.worker.model import load_model

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def edited(package, **changes):
    path = package / "model.json"
    known = json.loads(path.read_text())
    known.update(changes)
    path.write_text(json.dumps(known))
    return package


def resealed(package):
    """Make the checksum fit the weights again, as somebody would who changed them on purpose."""
    import hashlib

    return edited(package, weights_sha256=hashlib.sha256((package / "weights.safetensors").read_bytes()).hexdigest())


@pytest.fixture
def package(make_package):
    return make_package()


@pytest.fixture
def model(package):
    return load_model(package, trust_code=True)


def test_a_model_tells_classes(model):
    found = model(X)
    assert found.probabilities.shape == (5, 3)
    assert found.probabilities.sum(axis=1) == pytest.approx(1)
    assert set(found.labels) <= {"a", "b", "c"}
    record = found.to_records()[0]
    assert record["prediction"] == found.labels[0]
    assert record["probability"] == max(record["probabilities"].values())
    json.dumps(found.to_records(), allow_nan=False)


@pytest.mark.parametrize(
    "form", [X, X.tolist(), list(X), torch.from_numpy(X), pd.DataFrame(X), iter(X), X.astype(float), tuple(X)]
)
def test_samples_come_in_many_forms(model, form):
    assert np.allclose(model(form).outputs, model(X).outputs)


def test_one_sample_is_a_sample(model):
    assert len(model(X[0])) == 1


def test_batches_change_nothing(model):
    assert np.allclose(model(X, batch_size=2).outputs, model(X).outputs)


def test_loading_unpickles_nothing(package, monkeypatch):
    def boom(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, boom)
    monkeypatch.setattr(torch, "load", boom)
    load_model(package, trust_code=True)(X)


class Trap:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


def test_a_pickle_in_the_place_of_the_weights_is_refused_unread(package, tmp_path):
    trap, sprung = Trap(tmp_path / "sprung"), tmp_path / "sprung"
    pickle.loads(pickle.dumps(trap))
    assert sprung.is_dir()
    sprung.rmdir()
    weights = package / "weights.safetensors"
    for content in (pickle.dumps(trap), None):
        if content is None:
            torch.save({"x": trap}, weights)
        else:
            weights.write_bytes(content)
        resealed(package)
        with pytest.raises(DataError, match="no safetensors file"):
            load_model(package, trust_code=True)
        assert not sprung.exists()


def test_damaged_weights_are_refused(package):
    weights = package / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8] + b"\0" * 8)
    with pytest.raises(DataError, match="checksum differs"):
        load_model(package, trust_code=True)
    weights.write_bytes(whole[:-8])
    resealed(package)
    with pytest.raises(DataError, match="no safetensors file"):
        load_model(package, trust_code=True)
    weights.unlink()
    with pytest.raises(DataError, match=r"has no weights\.safetensors"):
        load_model(package, trust_code=True)


def test_weights_of_another_shape_are_refused(package):
    weights = load_file(package / "weights.safetensors")
    weights["head.weight"] = torch.zeros(7, 4)
    save_file(weights, package / "weights.safetensors")
    with pytest.raises(DataError, match=r"do not fit tinynets\.nets\.Table: size mismatch for head\.weight"):
        load_model(resealed(package), trust_code=True)


def test_missing_and_spare_weights_are_refused(package):
    weights = load_file(package / "weights.safetensors")
    weights["spare"] = weights.pop("head.bias")
    save_file(weights, package / "weights.safetensors")
    with pytest.raises(DataError, match=r"head\.bias.*spare"):
        load_model(resealed(package), trust_code=True)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ('{"format": 2}', DataError, "format 2"),
        ('{"format": 1}', DataError, "describes no model: name"),
        ("[]", DataError, "describes no model"),
        ('{"for', DataError, "is damaged"),
        (None, NotFound, "is no model package"),
    ],
)
def test_damaged_and_newer_descriptions_are_refused(package, content, error, words):
    (package / "model.json").unlink()
    if content is not None:
        (package / "model.json").write_text(content)
    with pytest.raises(error, match=words) as caught:
        load_model(package, trust_code=True)
    assert caught.value.hint or content in ("[]", '{"format": 1}')


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(NotFound, match="no run or model package"):
        load_model(tmp_path / "nowhere")


def test_a_packages_own_code_is_run_only_where_trusted(package):
    with pytest.raises(NotFound, match=r"tinynets\.nets\.Table cannot be imported here") as caught:
        load_model(package)
    assert "trust_code=True" in str(caught.value)
    assert load_model(package, trust_code=True)(X).outputs.shape == (5, 3)


def test_code_the_user_has_byte_for_byte_needs_no_trust(package, monkeypatch, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(package / "code", project / "modules" / "tiny")
    (project / ".ai4sdk").touch()
    monkeypatch.chdir(project)
    assert load_model(package)(X).outputs.shape == (5, 3)
    (project / "modules" / "tiny" / "tinynets" / "parts.py").write_text("def scale(x):\n    return x * 9\n")
    with pytest.raises(NotFound, match="cannot be imported"):
        load_model(package)


def test_an_installed_class_is_used_and_a_difference_is_warned_of(package, monkeypatch):
    installed = package.parent / "site"
    shutil.copytree(package / "code", installed)
    nets = installed / "tinynets" / "nets.py"
    nets.write_text(nets.read_text() + "\n# a later version\n")
    monkeypatch.syspath_prepend(str(installed))
    try:
        with pytest.warns(UserWarning, match="differs from the code"):
            loaded = load_model(package)
        assert type(loaded.module).__module__ == "tinynets.nets"
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tinynets"]:
            del sys.modules[name]


@pytest.mark.parametrize(
    "target",
    [
        {"_target_": "torch.load", "f": "weights.safetensors"},
        {"_target_": "os.system", "command": "touch sprung"},
        {"_target_": "torch.nn.Linear", "in_features": {"_target_": "os.getpid"}, "out_features": 3},
        {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "builtins.exec", "_args_": ["raise SystemExit"]}]},
        {"_target_": "pathlib.Path", "_args_": ["x"]},
    ],
)
def test_packages_of_others_may_name_only_parts_of_networks(package, target):
    with pytest.raises(NotFound, match="which is no torch module"):
        load_model(edited(package, target=target))


def test_code_outside_the_package_is_refused(package):
    with pytest.raises(DataError, match="outside its folder"):
        load_model(edited(package, code_paths=["../.."]), trust_code=True)


def test_a_run_uses_its_own_snapshot(package, as_run):
    run = as_run(package, package / "code")
    shutil.rmtree(run / "package" / "code")
    assert load_model(run)(X).outputs.shape == (5, 3)
    with pytest.raises(NotFound, match="cannot be imported"):
        load_model(run, trust_code=False)


def test_a_run_without_a_model_says_so(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "plan.json").write_text("{}")
    with pytest.raises(NotFound, match="the run r has no model"):
        load_model(tmp_path / "r")


def test_samples_stay_as_they_are_although_the_module_writes_into_them(writing):
    requests, responses = (
        json.loads((writing / "golden" / f"{name}.json").read_text()) for name in ("requests", "responses")
    )
    model = load_model(writing, trust_code=True)
    for request, response in zip(requests, responses, strict=True):
        samples = np.array(request["inputs"], np.float32)
        for _ in range(3):
            assert model(samples).to_records() == response["predictions"]
        assert samples.tolist() == request["inputs"]


def test_a_model_may_be_asked_in_inference_mode(model, writing):
    for each in (model, load_model(writing, trust_code=True)):
        plain = each(X).outputs
        with torch.inference_mode():
            assert np.array_equal(each(X).outputs, plain)


def test_two_versions_of_a_module_are_not_mixed_up(make_package, make_code, as_run):
    versions = []
    for number, factor in enumerate((1.0, 100.0)):
        code = make_code(f"v{number}", factor=factor)
        package = make_package(f"p{number}", code=code)
        versions.append((as_run(package, code, f"run{number}"), package))
    models = [load_model(run) for run, _ in versions]
    assert not np.allclose(models[0](X).outputs, models[1](X).outputs)
    for (_, package), model in zip(versions, models, strict=True):
        for side in ("requests", "responses"):
            assert (package / "golden" / f"{side}.json").is_file()
        request = json.loads((package / "golden" / "requests.json").read_text())[0]["inputs"]
        answer = json.loads((package / "golden" / "responses.json").read_text())[0]["predictions"]
        assert model(request).to_records() == answer
    again = load_model(versions[0][0])
    assert np.allclose(again(X).outputs, models[0](X).outputs)


def test_a_class_that_cannot_be_made_is_told(package):
    target = {"_target_": "tinynets.nets.Table", "features": 4}
    with pytest.raises(RunFailed, match="could not be made: TypeError"):
        load_model(edited(package, target=target), trust_code=True)
    with pytest.raises(RunFailed, match="not a torch module"):
        load_model(edited(package, target={"_target_": "tinynets.parts.scale", "x": 1}), trust_code=True)


def test_a_device_that_is_not_there_is_told(package):
    with pytest.raises(DataError, match="cannot be put on"):
        load_model(package, trust_code=True, device="cuda:99")


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (X[:, :3], r"sample 1 has the shape \(3,\)"),
        ([X[0], X[0, :2]], "sample 2 has the shape"),
        ([["a", "b", "c", "d"]], "sample 1 is no array of numbers"),
        ([[1, 2, 3, None]], "sample 1 is no array of numbers"),
        ([[1, 2, 3, 4], [1, 2, 3, -1e300]], "sample 2 holds a number too large for float32"),
        (np.array([[1, 2, 3, 1e300]]), "sample 1 holds a number too large for float32"),
        (["cat.png"], "sample 1 is text"),
        ([{"a": 1}], "sample 1 is a record"),
        ([], "no sample"),
        (np.empty((0, 4)), "no sample"),
    ],
)
def test_samples_that_do_not_fit_are_named(model, samples, words):
    with pytest.raises(DataError, match=words):
        model(samples)


def test_records_without_preprocessing(make_package):
    model = load_model(make_package(column_names=["p", "q", "r", "s"]), trust_code=True)
    rows = [dict(zip("pqrs", map(float, row), strict=True)) for row in X]
    expected = model(X).outputs
    assert np.allclose(model(rows).outputs, expected)
    assert np.allclose(model(pd.DataFrame(rows)[list("srqp")]).outputs, expected)
    assert np.allclose(model([{key: str(value) for key, value in row.items()} for row in rows]).outputs, expected)
    with pytest.raises(DataError, match="sample 2 lacks 's'"):
        model([rows[0], {"p": 1, "q": 2, "r": 3}])
    with pytest.raises(DataError, match="sample 1, column 'q': 'x' is no number"):
        model([{**rows[0], "q": "x"}])


def test_tables_with_preprocessing(make_package):
    rules = Preprocessing(
        "table", (4,), "classification", tuple(ColumnRule(name, "number", 1.0, 2.0) for name in "pqrs")
    )
    model = load_model(make_package(preprocessing=rules, column_names=list("pqrs")), trust_code=True)
    rows = [dict(zip("pqrs", map(float, row), strict=True)) for row in X]
    assert np.allclose(model(rows).outputs, model(X).outputs)
    assert np.allclose(model(pd.DataFrame(rows)).outputs, model(X).outputs)
    assert len(model(rows[0])) == 1
    with pytest.raises(DataError, match=r"sample 2 has no column 's'"):
        model([rows[0], {"p": 1, "q": 2, "r": 3}])


def test_pictures(make_package, tmp_path):
    from PIL import Image

    rules = Preprocessing("images", (1, 8, 8), "classification", images=Images(size=[8, 8], mode="L"))
    example = np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)
    model = load_model(make_package(net="Pictures", preprocessing=rules, example_input=example), trust_code=True)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 8)).astype(np.uint8)
    expected = model(pixels).outputs
    assert expected.shape == (5, 3)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, each in zip(paths, pixels, strict=True):
        Image.fromarray(each).save(path)
    assert np.allclose(model(paths, batch_size=2).outputs, expected)
    assert np.allclose(model(str(paths[0])).outputs, expected[:1])
    assert np.allclose(model(paths[0]).outputs, expected[:1])
    assert np.allclose(model(pixels[0]).outputs, expected[:1])
    assert np.allclose(model([Image.open(path) for path in paths]).outputs, expected)
    with pytest.raises(DataError, match=r"no picture .*nowhere\.png"):
        model([paths[0], tmp_path / "nowhere.png"])


def test_recordings(make_package, tmp_path):
    how = Audio(rate=8000, seconds=0.1)
    rules = Preprocessing("audio", how.shape, "classification", audio=how)
    example = np.random.default_rng(0).uniform(-1, 1, (3, 1, 800)).astype(np.float32)
    model = load_model(make_package(net="Sounds", preprocessing=rules, example_input=example), trust_code=True)
    sounds = [np.round(tone(pitch) * 32767).astype(np.int16) for pitch in (200, 400, 900, 1500, 3000)]
    expected = model(sounds).outputs
    assert expected.shape == (5, 3)
    paths = [tmp_path / f"{number}.wav" for number in range(5)]
    for path, each in zip(paths, sounds, strict=True):
        path.write_bytes(sound_file(each))
    assert np.allclose(model(paths, batch_size=2).outputs, expected)
    assert np.allclose(model([path.read_bytes() for path in paths], batch_size=3).outputs, expected)
    assert np.allclose(model(np.stack(sounds)).outputs, expected)
    for one in (str(paths[0]), paths[0], paths[0].read_bytes(), sounds[0], sounds[0][None]):
        assert np.allclose(model(one).outputs, expected[:1])
    with pytest.raises(DataError, match=r"no recording .*nowhere\.wav"):
        model([paths[0], tmp_path / "nowhere.wav"])


def test_colour_pictures_of_any_size(make_package):
    rules = Preprocessing("images", (3, 8, 8), "classification", images=Images(size=[8, 8]))
    target = {
        "_target_": "torch.nn.Sequential",
        "_args_": [
            {"_target_": "torch.nn.Flatten"},
            {"_target_": "torch.nn.Linear", "in_features": 192, "out_features": 3},
        ],
    }
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    model = load_model(
        make_package(
            module=module, module_target=target, preprocessing=rules, example_input=np.zeros((2, 3, 8, 8), np.float32)
        )
    )
    assert len(model(np.zeros((20, 30, 3), np.uint8))) == 1
    assert len(model(np.zeros((4, 20, 30, 3), np.uint8))) == 4
    assert len(model(np.zeros((3, 8, 8), np.float32))) == 1


def test_predictions_that_are_no_numbers_become_null(package):
    weights = load_file(package / "weights.safetensors")
    weights["head.bias"][0] = float("nan")
    save_file(weights, package / "weights.safetensors")
    found = load_model(resealed(package), trust_code=True)(X[:1])
    assert found.labels[0] == ""
    record = found.to_records()[0]
    assert record["prediction"] is None
    assert record["probabilities"] == {"a": None, "b": None, "c": None}


def test_a_model_says_what_it_is(model):
    text = repr(model)
    for word in ("tiny", "classification", "3 classes: a, b, c", "tinynets.nets.Table", "20260101-000000-tiny-abcd"):
        assert word in text
    model.description.__dict__["name"] = "<script>"
    assert "<script>" not in model._repr_html_()
    assert repr(model(X)).startswith("<Prediction of 5 samples: ")


def test_calls_from_several_threads_agree(model):
    expected, wrong = model(X).outputs, []

    def work():
        for _ in range(20):
            if not np.array_equal(model(X).outputs, expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_loading_draws_no_random_numbers(package):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_model(package, trust_code=True)
    assert torch.rand(1) == expected
