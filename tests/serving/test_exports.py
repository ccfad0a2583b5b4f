"""An export is made once for a package, and again when it is damaged or of no use."""

import os
import time

import numpy as np
import pytest

from ai4sdk.serving import engines, exports
from ai4sdk.serving.engines import choose
from ai4sdk.serving.exports import keep_export, kept_export
from ai4sdk.worker.model import load_model

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ai4sdk" / "onnx"


@pytest.fixture
def package(make_package):
    return make_package()


def test_what_is_kept_is_found_for_the_same_package_only(package, cache):
    known = load_model(package, trust_code=True).description
    assert kept_export(known) is None
    keep_export(known, b"a graph")
    assert kept_export(known) == b"a graph"
    assert kept_export(known.model_copy(update={"weights_sha256": "0" * 64})) is None
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert kept_export(known) is None


def test_what_nobody_used_for_long_is_deleted_and_what_is_used_stays(package, cache):
    known = load_model(package, trust_code=True).description
    for name in "abc":
        keep_export(known.model_copy(update={"run": name}), b"a graph")
    long_ago = time.time() - exports._UNUSED_FOR - 1
    for file in cache.iterdir():
        os.utime(file, (long_ago, long_ago))
    assert kept_export(known.model_copy(update={"run": "a"})) == b"a graph"
    keep_export(known.model_copy(update={"run": "d"}), b"a graph")
    assert [kept_export(known.model_copy(update={"run": name})) is not None for name in "abcd"] == [
        True, False, False, True,
    ]  # fmt: skip


def test_where_nothing_can_be_kept_nothing_breaks(package, cache):
    known = load_model(package, trust_code=True).description
    cache.parent.mkdir()
    cache.write_text("a file where a folder should be")
    keep_export(known, b"a graph")
    assert kept_export(known) is None


@pytest.mark.slow
def test_a_second_start_exports_nothing_and_a_wrong_export_is_made_again(package, monkeypatch):
    made = []
    export = engines._graph
    monkeypatch.setattr(engines, "_graph", lambda *given: made.append(1) or export(*given))
    expected = load_model(package, trust_code=True)(X).outputs
    for times in (1, 1):
        model = load_model(package, trust_code=True)
        assert choose(model, list(X[:3]), "onnx", 1).engine == "onnx"
        assert np.allclose(model(X).outputs, expected, atol=1e-5)
        assert len(made) == times
    keep_export(load_model(package, trust_code=True).description, b"no graph at all")
    model = load_model(package, trust_code=True)
    choose(model, list(X[:3]), "onnx", 1)
    assert np.allclose(model(X).outputs, expected, atol=1e-5)
    assert len(made) == 2
