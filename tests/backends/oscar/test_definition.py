"""What a cluster is given, word for word. `AI4SDK_GOLDEN=write` writes the golden files anew; then read the diff."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ai4sdk.backends.oscar.definition import DIGEST, Definition, Served, define
from ai4sdk.errors import UsageError
from ai4sdk.spec import OscarBackend

GOLDEN = Path(__file__).parent / "golden"
OPENAPI = yaml.safe_load((Path(__file__).parent / "openapi" / "api-v3.6.0-openapi.yaml").read_text())
SINCE_4 = {"vo", "image_prefetch", "expose", "volume", "visibility", "allowed_users"}
"""What services have that the published description, of version 3.6, does not know; OSCAR 4's source does."""

CASES: dict[str, dict[str, Any]] = {
    "plain": {"image": "registry.example.org/fish:1"},
    "events": {
        "image": "registry.example.org/fish:1",
        "input": [{"path": "/fish/in/", "prefix": ["catch"], "suffix": [".csv", ".json"]}],
        "output": [
            {"path": "fish/out", "prefix": ["results/", "errors/"]},
            {"path": "fish/logs", "prefix": ["logs/"], "storage_provider": "s3.ours"},
        ],
        "storage_providers": {
            "s3": {"ours": {"access_key": "${secret:KEY}", "secret_key": "${secret:SECRET}", "region": "eu-west-1"}}
        },
    },
    "everything": {
        "cluster": "https://inference.example.org",
        "cluster_id": "inference",
        "service": "fish-of-the-day",
        "image": "registry.example.org/fish@sha256:00",
        "package": "/mnt/models/fish",
        "cpu": 2.5,
        "memory": 3000 * 10**6,
        "enable_gpu": True,
        "total_cpu": 10,
        "total_memory": "20GiB",
        "mount": {"path": "models"},
        "volume": {"mount_path": "/data", "size": "5GiB", "lifecycle_policy": "retain"},
        "synchronous": {"min_scale": 1, "max_scale": 3},
        "expose": {"api_port": 9000, "max_scale": 2},
        "environment": {"variables": {"LEVEL": "1e3", "ANSWER": "yes"}, "secrets": {"TOKEN": "${secret:TOKEN}"}},
        "visibility": "restricted",
        "allowed_users": ["ana@example.org"],
        "isolation_level": "USER",
        "vo": "vo.example.org",
        "image_pull_secrets": ["registry"],
        "image_prefetch": True,
        "alpine": True,
        "log_level": "DEBUG",
        "labels": {"team": "fish"},
        "annotations": {"note": "it is mine"},
    },
}


def made(name: str) -> Definition:
    return define(
        OscarBackend.model_validate({"kind": "oscar", **CASES[name]}),
        Served("Pond 1", "5eed" * 16, "c0de" * 16, trusted=True),
    )


@pytest.mark.parametrize("name", CASES)
def test_the_definition_is_as_it_was_approved(name: str) -> None:
    text = f"{made(name).to_fdl()}---\n# script.sh\n{made(name).script}"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("AI4SDK_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def service_schema() -> dict[str, Any]:
    """Return the published schema of a service, closed: nothing else may be in it."""
    schemas = json.loads(json.dumps(OPENAPI["components"]["schemas"]).replace("#/components/schemas/", "#/$defs/"))
    return {**schemas["Service"], "$defs": schemas, "additionalProperties": False}


@pytest.mark.parametrize("name", CASES)
def test_the_service_is_one_of_the_published_api(name: str) -> None:
    service = {key: value for key, value in made(name).service.items() if key not in SINCE_4}
    jsonschema.Draft7Validator(service_schema()).validate(service)


def test_a_number_of_processors_would_be_refused_by_that() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(service_schema()).validate({**made("plain").service, "cpu": 1})


@pytest.mark.parametrize("name", CASES)
def test_the_fdl_file_says_what_the_api_is_given(name: str) -> None:
    read = yaml.safe_load(made(name).to_fdl())
    ((cluster, service),) = read["functions"]["oscar"][0].items()
    assert cluster == made(name).cluster_id
    assert service.pop("script") == "script.sh"
    expected = {key: value for key, value in made(name).service.items() if key not in ("script", "storage_providers")}
    assert service == expected
    assert read.get("storage_providers") == made(name).service.get("storage_providers")


def test_no_secret_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY", "SECRET", "TOKEN"):
        monkeypatch.setenv(name, "sesame")
    for name in CASES:
        assert "sesame" not in made(name).to_fdl() + json.dumps(made(name).service)


def test_the_digest_is_of_all_that_is_asked_for() -> None:
    digests = {made(name).digest for name in CASES}
    assert len(digests) == len(CASES)
    other = define(OscarBackend.model_validate({"kind": "oscar", **CASES["plain"]}), Served("Pond 1", "0" * 64))
    assert other.digest != made("plain").digest
    assert other.service["annotations"] == {DIGEST: other.digest}


def test_labels_and_annotations_are_such_that_kubernetes_takes_them() -> None:
    service = made("everything").service
    for name in (*service["labels"], *service["annotations"]):
        assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", name)


@pytest.mark.parametrize(
    ("job", "name"),
    [("Pond 1", "pond-1"), ("pond_of.fish", "pond-of-fish"), ("x" * 39, "x" * 39)],
)
def test_a_service_is_called_like_its_job(job: str, name: str) -> None:
    assert define(OscarBackend.model_validate({"kind": "oscar"}), Served(job)).name == name


@pytest.mark.parametrize(("job", "why"), [("x" * 40, "has 40 characters"), ("1st", "does not begin with a letter")])
def test_a_name_that_oscar_does_not_take_is_refused_with_what_to_do(job: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        define(OscarBackend.model_validate({"kind": "oscar"}), Served(job))
    assert caught.value.hint == "backend.service=NAME"
