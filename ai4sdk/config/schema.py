"""JSON Schema of a job and of its config groups, for editors that complete and check YAML.

A config file is a layer, not a whole job: nothing is required in it, it may have a defaults list, and any value may be
a reference (`${…}`) or still missing (`???`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from ai4sdk.config.keys import docs_of, field_at, fields_of, models_by_name, models_in
from ai4sdk.spec import Job

__all__ = ["GROUPS", "group_schema", "job_schema", "reference_page"]

GROUPS = (
    "function",
    "module",
    "dataset",
    "optimizer",
    "scheduler",
    "training",
    "federation",
    "evaluation",
    "hardware",
    "storage",
    "tracking",
    "backend",
    "sweep",
    "serving",
)
"""Sections of a job that are config groups, too."""

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {
    "type": "string",
    "pattern": r"\$\{.+\}|^\?\?\?$",
    "description": "A reference, or ??? for a value to give.",
}


def job_schema() -> dict[str, Any]:
    """Return the schema of a whole config, such as ``configs/quickstart.yaml``."""
    schema = Job.model_json_schema(by_alias=True)
    for name, model in _models().items():
        target = schema if model is Job else schema["$defs"].get(name)
        if target is None:
            continue
        docs = docs_of(model)
        for field_name, info in fields_of(model).items():
            property_ = target.get("properties", {}).get(field_name)
            attribute = next(key for key, value in model.model_fields.items() if value is info)
            if property_ is not None and docs.get(attribute):
                property_["description"] = docs[attribute]
    schema["$defs"]["Reference"] = _REFERENCE
    for part in [schema, *schema["$defs"].values()]:
        _loosen(part)
    schema["properties"]["defaults"] = {
        "type": "array",
        "description": "Hydra's defaults list: the options to build on.",
    }
    return {"$schema": _DRAFT, **schema}


def group_schema(group: str) -> dict[str, Any]:
    """Return the schema of an option of a group, such as ``configs/hardware/laptop.yaml``.

    Raises
    ------
    KeyError
        If there is no such group.
    """
    whole = job_schema()
    section = whole["properties"][group]
    alternatives = [part for part in _references(section) if part != "#/$defs/Reference"]
    schemas = [whole["$defs"][part.removeprefix("#/$defs/")] for part in alternatives]
    merged: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    for schema in schemas:
        for name, value in schema.get("properties", {}).items():
            merged["properties"][name] = _either(merged["properties"].get(name, value), value)
        if schema.get("additionalProperties") is not False:
            merged["additionalProperties"] = True
    merged["properties"]["defaults"] = whole["properties"]["defaults"]
    return {"$schema": _DRAFT, "title": f"{group} option", **merged, "$defs": _needed(merged, whole["$defs"])}


def _either(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a key that two alternatives have; what it means is told as the first tells it."""
    if one == other:
        return one
    shapes = [shape for shape in other["anyOf"] if shape not in one["anyOf"]]
    return {**one, "anyOf": [*shapes, *one["anyOf"]]}


def _needed(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions a schema refers to, and those they refer to."""
    found: set[str] = set()
    open_ends = [schema]
    while open_ends:
        names = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(open_ends.pop()))) - found
        found |= names
        open_ends += [definitions[name] for name in names]
    return {name: definition for name, definition in definitions.items() if name in found}


def _references(schema: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"]
    for key in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(key, []):
            yield from _references(part)


def _loosen(schema: dict[str, Any]) -> None:
    """Let every property be a reference, and require none."""
    schema.pop("required", None)
    properties = schema.get("properties", {})
    for name, value in properties.items():
        value.pop("affects_results", None)
        outer = {key: value.pop(key) for key in ("description", "default", "title") if key in value}
        outer.pop("title", None)
        properties[name] = {**outer, "anyOf": [value, {"$ref": "#/$defs/Reference"}]}


def _models() -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}

    def walk(model: type[BaseModel]) -> None:
        if model.__name__ in found:
            return
        found[model.__name__] = model
        for info in model.model_fields.values():
            for child in (*models_in(info.annotation), *models_by_name(info.annotation)):
                walk(child)

    walk(Job)
    return found


def reference_page() -> str:
    """Return the configuration reference as Markdown: every section, key, type, default and meaning."""
    lines = [
        "# Configuration reference",
        "",
        "Generated from `ai4sdk/spec/` by `ai4sdk schema --reference`; do not edit.",
        "",
        "Keys marked ○ change nothing in the results and are not part of a plan's digest.",
    ]
    for name, model in _models().items():
        docs = docs_of(model)
        key = next((group for group in GROUPS if _is_section(group, model)), None)
        title = "The job" if model is Job else f"`{key}`: {name}" if key else name
        lines += ["", f"## {title}", "", " ".join((model.__doc__ or "").split()), ""]
        lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for attribute, info in model.model_fields.items():
            extra = info.json_schema_extra
            mark = " ○" if isinstance(extra, dict) and extra.get("affects_results") is False else ""
            meaning = docs.get(attribute, "").replace("``", "`").replace("|", "\\|")
            kind = _type_text(info.annotation, attribute, model)
            lines.append(f"| `{info.alias or attribute}`{mark} | {kind} | {_default_text(info)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _is_section(group: str, model: type[BaseModel]) -> bool:
    info = field_at(group)
    return info is not None and model in models_in(info.annotation) and model.__name__ != "Target"


def _default_text(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see there"
    return f"`{json.dumps(value)}`".replace("|", "\\|") if value is not None else "nothing"


def _type_text(annotation: Any, attribute: str, model: type[BaseModel]) -> str:
    schema = model.model_json_schema(by_alias=True)
    name = model.model_fields[attribute].alias or attribute
    return _schema_text(schema["properties"][name]).replace("|", "\\|")


def _named(schema: dict[str, Any]) -> Any:
    """Return the schema of what stands below each name of a mapping, if it has one."""
    named = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return next((found for found in named if isinstance(found, dict)), {})


def _schema_text(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            parts = [_schema_text(part) for part in schema[key]]
            if len(schema[key]) == 2 and "Size" in str(schema.get("title", "")):
                return "size"
            return " or ".join(dict.fromkeys(parts))
    if schema.get("type") == "object" and "$ref" in str(named := _named(schema)):
        return f"mapping of names to {_schema_text(named)}"
    if schema.get("type") == "array":
        return f"list of {_schema_text(schema.get('items', {}))}"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return names.get(
        str(schema.get("type")), {"object": "mapping", "null": "nothing"}.get(str(schema.get("type")), "any")
    )
