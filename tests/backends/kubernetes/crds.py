"""TrainJobs beside the schema that Kubeflow Trainer publishes; the file names its source and licence.

An API server with that definition refuses what the schema does and, asked strictly, what it does not know. Its further
rules, written in CEL (``x-kubernetes-validations``), are not looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["complaints"]

SCHEMA = Path(__file__).parent / "trainjob_v1alpha1.json"


def complaints(train_job: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is wrong with a TrainJob: places, and what is wrong there."""
    validator = Draft202012Validator(_strict(json.loads(SCHEMA.read_text())["schema"]))
    return [(".".join(map(str, error.absolute_path)), error.message) for error in validator.iter_errors(train_job)]


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found
