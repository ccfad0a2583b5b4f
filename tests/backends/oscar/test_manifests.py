"""The same services for Knative and KServe, beside the schemas that these publish."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml

from ai4sdk.backends.kubernetes.manifests import to_yaml
from ai4sdk.backends.oscar.definition import Served
from ai4sdk.backends.oscar.manifests import Kind, manifest, unsaid
from ai4sdk.errors import UsageError
from ai4sdk.spec import OscarBackend

HERE = Path(__file__).parent
SCHEMAS = {"knative": "knative_service_v1.json", "kserve": "kserve_inferenceservice_v1beta1.json"}
SERVED = Served("Pond 1", "5eed" * 16, trusted=True)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "full": {
        "cpu": 2.5,
        "memory": "4GiB",
        "enable_gpu": True,
        "expose": {"api_port": 9000, "min_scale": 1, "max_scale": 2},
        "environment": {"variables": {"LEVEL": "1e3"}, "secrets": {"TOKEN": "${secret:TOKEN}"}},
        "visibility": "public",
        "image_pull_secrets": ["registry"],
        "labels": {"team": "fish"},
        "annotations": {"note": "it is mine"},
        "timeout": "10min",
    },
}


def options(name: str) -> OscarBackend:
    return OscarBackend.model_validate({"kind": "oscar", "image": "registry.example.org/pond:1", **CASES[name]})


def strict(schema: Any) -> Any:
    """Return a schema that allows nothing it does not name."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def schema_of(kind: str) -> Any:
    return jsonschema.Draft202012Validator(strict(json.loads((HERE / SCHEMAS[kind]).read_text())["schema"]))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_manifest_is_as_it_was_approved(kind: Kind, name: str) -> None:
    text = to_yaml([manifest(kind, options(name), SERVED)])
    golden = HERE / "golden" / f"{kind}-{name}.yaml"
    if os.environ.get("AI4SDK_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_it_has_nothing_that_the_published_schema_does_not_know(kind: Kind, name: str) -> None:
    made = manifest(kind, options(name), SERVED)
    made = {**made, "metadata": {}}  # what any object has; looked at below
    assert [error.message for error in schema_of(kind).iter_errors(made)] == []


def test_a_misspelt_field_would_be_found() -> None:
    made = manifest("knative", options("plain"), SERVED)
    made["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    made["metadata"] = {}
    assert list(schema_of("knative").iter_errors(made))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_its_pods_are_such_that_kubernetes_takes_them(kind: Kind, name: str) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    made = manifest(kind, options(name), SERVED)
    pod = made["spec"]["predictor"] if kind == "kserve" else made["spec"]["template"]["spec"]
    ours = ("containers", "imagePullSecrets", "automountServiceAccountToken", "enableServiceLinks")
    spec = {key: value for key, value in pod.items() if key in ours}
    spec["containers"] = [{"name": "user-container", **container} for container in spec["containers"]]
    template = {"metadata": {key: made["metadata"][key] for key in ("labels", "annotations")}, "spec": spec}
    selector = {"matchLabels": made["metadata"]["labels"]}
    whole = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": made["metadata"],
        "spec": {"selector": selector, "template": template},
    }
    for version in ("1.29", "1.37"):
        validate(whole, version, strict=True)
    api = pytest.importorskip("kubernetes").client.ApiClient()
    read = api.deserialize(SimpleNamespace(data=json.dumps(whole)), "V1Deployment")
    assert api.sanitize_for_serialization(read) == whole


def test_nobody_outside_reaches_a_service_that_is_not_public() -> None:
    for kind in ("knative", "kserve"):
        hidden = {f"networking.{kind}.{'dev' if kind == 'knative' else 'io'}/visibility": "cluster-local"}
        assert hidden.items() <= manifest(kind, options("plain"), SERVED)["metadata"]["labels"].items()
        assert not hidden.items() <= manifest(kind, options("full"), SERVED)["metadata"]["labels"].items()


def test_no_secret_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "sesame")
    for kind in ("knative", "kserve"):
        text = to_yaml([manifest(kind, options("full"), SERVED)])
        assert "sesame" not in text
        (container,) = find(yaml.safe_load(text), "containers")
        (source,) = [one["valueFrom"] for one in container["env"] if one["name"] == "TOKEN"]
        assert source == {"secretKeyRef": {"name": "pond-1", "key": "TOKEN"}}


def find(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value[key] if key in value else next(filter(None, (find(one, key) for one in value.values())), None)
    return None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"image": None}, "needs an image"),
        ({"mount": {"path": "models"}, "expose": {}}, "backend.mount is of OSCAR"),
        ({"volume": {"mount_path": "/data", "name": "models"}}, "backend.volume is of OSCAR"),
    ],
)
def test_what_only_oscar_can_is_refused(values: dict[str, Any], told: str) -> None:
    given = OscarBackend.model_validate({"kind": "oscar", "image": "x", **values})
    with pytest.raises(UsageError, match=told):
        manifest("knative", given, SERVED)


def test_what_says_nothing_is_told() -> None:
    given = {"input": [{"path": "fish/in"}], "output": [{"path": "fish/out"}]}
    assert unsaid(OscarBackend.model_validate({"kind": "oscar", **given})) == ["input", "output"]
    assert unsaid(options("full")) == []
