"""Editors get schemas that accept our configs and refuse typos."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from ai4sdk.catalog.shipped import shipped_configs, shipped_modules
from ai4sdk.cli.schema import schema_text
from ai4sdk.config.schema import GROUPS, group_schema, job_schema

FILES = sorted([*shipped_configs().rglob("*.yaml"), *shipped_modules().glob("*/configs/**/*.yaml")])


def named_schema(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# yaml-language-server: $schema="):
            return line.partition("=")[2]
    raise AssertionError(f"{file} names no schema")


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_config_we_ship_names_its_schema_and_satisfies_it(file):
    name = named_schema(file)
    schema = (file.parent / name).resolve()
    assert schema.is_file(), f"{file} names {name}"
    text = schema.read_text(encoding="utf-8")
    Draft202012Validator(yaml.safe_load(text)).validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})


@pytest.mark.parametrize("group", ["job", *GROUPS])
def test_the_schemas_in_the_tree_are_those_of_the_models(group):
    stored = shipped_configs() / "schemas" / f"{group}.json"
    assert stored.read_text(encoding="utf-8") == schema_text(group), "ai4sdk schema --out configs/schemas"


@pytest.mark.parametrize(
    "job",
    [
        {"trainning": {}},
        {"training": {"max_epoch": 3}},
        {"training": {"max_epochs": "ten"}},
        {"hardware": {"memory": "12 elephants"}},
    ],
)
def test_typos_are_refused(job):
    assert list(Draft202012Validator(job_schema()).iter_errors(job))


@pytest.mark.parametrize(
    "job",
    [
        {"training": {"max_epochs": "${epochs}"}},
        {"seed": "???"},
        {"hardware": {"memory": "16GiB", "wall_time": "1h30m"}},
        {"module": {"_target_": "a.B", "anything": 1}},
        {"defaults": ["base", {"module": "digits"}, "_self_"]},
    ],
)
def test_layers_with_references_pass(job):
    assert not list(Draft202012Validator(job_schema()).iter_errors(job))


def test_every_property_is_described():
    for group in GROUPS:
        for name, value in group_schema(group)["properties"].items():
            assert value.get("description"), f"{group}.{name}"
