"""ONNX Runtime computes only what it computes as torch does, and only where it is wanted or faster."""

import numpy as np
import pytest
import torch

from ai4sdk.errors import RunFailed
from ai4sdk.serving import engines
from ai4sdk.serving.engines import choose
from ai4sdk.worker.model import load_model

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(make_package):
    return load_model(make_package(), trust_code=True)


@pytest.mark.slow
def test_onnx_runtime_answers_as_torch_does(model):
    expected = model(X)
    chosen = choose(model, list(X[:3]), "onnx", 2)
    assert chosen.engine == "onnx"
    assert set(chosen.seconds) == {"onnx 1"}  # it is too fast for two threads to help
    assert type(model.module).__name__ == "_OnnxModule"
    for rows in (X[:1], X, X.astype(np.float64)):
        found = model(rows)
        assert np.allclose(found.outputs, expected.outputs[: len(rows)], atol=1e-5)
        assert found.labels.tolist() == expected.labels[: len(rows)].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["torch", "onnx"])
def test_a_module_that_writes_into_its_input_is_measured_and_answers_alike(writing, wanted):
    model = load_model(writing, trust_code=True)
    expected, before = model(X).outputs, X.copy()
    assert choose(model, list(X[:3]), wanted, 1).engine == wanted
    assert np.allclose(model(X).outputs, expected, atol=1e-5)
    assert np.array_equal(X, before)


@pytest.mark.slow
@pytest.mark.parametrize("faster", ["torch 1", "onnx 1"])
def test_the_faster_one_is_taken(model, monkeypatch, faster):
    ways = iter(["torch 1", "onnx 1"])  # in this order
    monkeypatch.setattr(engines, "_timed", lambda compute: 0.001 if next(ways) == faster else 0.002)
    chosen = choose(model, list(X[:3]), "auto", 1)
    assert f"{chosen.engine} {chosen.threads}" == faster
    assert chosen.why_not is None


@pytest.mark.parametrize(("one", "three", "taken"), [(0.02, 0.01, 3), (0.01, 0.02, 1), (0.001, None, 1)])
def test_threads_are_as_many_as_help(model, monkeypatch, one, three, taken):
    times = iter([one, three])
    monkeypatch.setattr(engines, "_timed", lambda compute: next(times))
    monkeypatch.setattr(engines, "_rows", lambda *_: 4)
    assert choose(model, list(X[:3]), "torch", 3).threads == taken
    assert torch.get_num_threads() == taken


@pytest.mark.parametrize(
    ("took", "rows"),
    [([1, 2, 4, 8, 16, 32], 32), ([1, 3, 8, 20, 40, 80], 1), ([1, 1, 1, 2.08, 9, 20], 8), (None, None)],
)
def test_as_many_samples_at_once_as_suit_it(model, monkeypatch, took, rows):
    times = iter([0.001] if took is None else [0.02, *took])
    monkeypatch.setattr(engines, "_timed", lambda compute: next(times))
    assert choose(model, list(X[:3]), "torch", 1).rows == rows


@pytest.mark.slow
def test_what_cannot_be_exported_is_told_or_left_to_torch(faulty):
    model = load_model(faulty, trust_code=True)
    with pytest.raises(RunFailed, match="cannot be computed by ONNX Runtime"):
        choose(model, list(X[:3]), "onnx", 1)
    chosen = choose(model, list(X[:3]), "auto", 1)
    assert chosen.engine == "torch"
    assert "cannot be computed by ONNX Runtime" in chosen.why_not


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_of_another_precision_is_measured_with_what_it_takes(model, dtype):
    model.module.to(dtype)
    expected = model(X)
    assert choose(model, list(X[:3]), "torch", 1).engine == "torch"
    assert np.array_equal(model(X).outputs, expected.outputs)


@pytest.mark.slow
def test_another_answer_is_refused(model, monkeypatch):
    exact = engines._OnnxModule.run
    monkeypatch.setattr(engines._OnnxModule, "run", lambda self, array: exact(self, array) + 0.1)
    with pytest.raises(RunFailed, match="answers otherwise"):
        choose(model, list(X[:3]), "onnx", 1)
