"""Paths mean what the protocols say."""

import pytest

from ai4sdk.serving.routes import find_route

EVERY = ("v2", "mlflow", "natural")


@pytest.mark.parametrize(
    ("path", "kind", "protocol", "model", "version"),
    [
        ("/predict", "infer", "natural", None, None),
        ("/invocations", "infer", "mlflow", None, None),
        ("/models/fish/predict", "infer", "natural", "fish", None),
        ("/models/fish/invocations", "infer", "mlflow", "fish", None),
        ("/models/fish/versions/2/predict", "infer", "natural", "fish", "2"),
        ("/v2/models/fish/infer", "infer", "v2", "fish", None),
        ("/v2/models/fish/versions/2/infer", "infer", "v2", "fish", "2"),
        ("/v2/models/fish/versions/2/infer/", "infer", "v2", "fish", "2"),
        ("/v2/models/fish", "model", "v2", "fish", None),
        ("/v2/models/fish/versions/2", "model", "v2", "fish", "2"),
        ("/v2/models/fish/versions/2/ready", "model_ready", "v2", "fish", "2"),
        ("/v2", "server", "v2", None, None),
        ("/v2/health/ready", "v2_ready", "v2", None, None),
        ("/ping", "ping", "mlflow", None, None),
        ("/", "index", "natural", None, None),
    ],
)
def test_a_path_is_found(path, kind, protocol, model, version):
    route = find_route(path, EVERY)
    assert (route.kind, route.protocol, route.model, route.version) == (kind, protocol, model, version)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/v2/models", "/models//predict", "/v2/models/fish/infer/more", "/models/fish/infer", "/v2/models/fish/predict",
        "/models/fish/versions", "/models/fish/versions/2/predict/3", "//predict/", "/models/a/b/c/d",
    ],
)  # fmt: skip
def test_any_other_path_is_none(path):
    assert find_route(path, EVERY) is None


def test_a_protocol_that_is_not_spoken_has_no_paths():
    assert find_route("/invocations", ("v2",)) is None
    assert find_route("/health/ready", ("v2",)).kind == "ready"
