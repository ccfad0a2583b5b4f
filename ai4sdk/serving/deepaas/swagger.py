"""The API described in Swagger 2.0, as DEEPaaS does it: its UI makes a form of this, its clients their calls. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ai4sdk.serving.deepaas.arguments import Argument, Description

__all__ = ["render_swagger"]

_PLACES = {
    "query": "query",
    "querystring": "query",
    "json": "body",
    "headers": "header",
    "form": "formData",
    "files": "formData",
}
_ONLY_IN_SCHEMAS = {"properties", "title", "example", "readOnly"}
"""What Swagger 2.0 allows in schemas and not in parameters."""

_TRAINING = {
    "type": "object",
    "required": ["date", "status", "uuid"],
    "properties": {
        "uuid": {"type": "string", "format": "uuid", "description": "Training identifier"},
        "date": {"type": "string", "description": "Training start time"},
        "args": {"type": "object", "description": "What it was started with"},
        "status": {"type": "string", "enum": ["running", "done", "error", "cancelled"]},
        "message": {"type": "string", "description": "Why it failed"},
        "result": {
            "type": "object",
            "properties": {
                "output": {"description": "What the training answered"},
                "finish_date": {"type": "string"},
                "duration": {"type": "string"},
            },
        },
    },
}
_LINKS = {
    "type": "object",
    "required": ["href", "rel"],
    "properties": {"rel": {"type": "string"}, "href": {"type": "string"}, "type": {"type": "string"}},
}
_DEFINITIONS: dict[str, Any] = {
    "Failure": {
        "type": "object",
        "required": ["message"],
        "properties": {"message": {"type": "string", "description": "Failure message"}},
    },
    "Invalid": {
        "type": "object",
        "description": "By argument, why it is not taken",
        "additionalProperties": {},
    },
    "Location": _LINKS,
    "Version": {
        "type": "object",
        "required": ["id", "version"],
        "properties": {
            "version": {"type": "string"},
            "id": {"type": "string"},
            "type": {"type": "string"},
            "links": {"type": "array", "items": {"$ref": "#/definitions/Location"}},
        },
    },
    "Versions": {
        "type": "object",
        "properties": {"versions": {"type": "array", "items": {"$ref": "#/definitions/Version"}}},
    },
    "ModelMeta": {
        "type": "object",
        "required": ["id", "name"],
        "properties": {
            **{
                name: {"type": "string", "description": f"Model {text}"}
                for name, text in [
                    ("id", "identifier"),
                    ("name", "name"),
                    ("description", "description"),
                    ("license", "license"),
                    ("author", "author"),
                    ("version", "version"),
                    ("url", "url"),
                ]
            },
            "links": {"type": "array", "items": {"$ref": "#/definitions/Location"}},
        },
    },
    "Models": {
        "type": "object",
        "properties": {"models": {"type": "array", "items": {"$ref": "#/definitions/ModelMeta"}}},
    },
    "Training": _TRAINING,
    "TrainingList": {"type": "array", "items": {"$ref": "#/definitions/Training"}},
    "Prediction": {
        "type": "object",
        "required": ["predictions", "status"],
        "properties": {
            "status": {"type": "string", "description": "Response status message"},
            "predictions": {"description": "What the model answered"},
        },
    },
}


def render_swagger(models: Mapping[str, Description], *, version: str, base_path: str = "") -> dict[str, Any]:
    """Describe the API.

    Parameters
    ----------
    models
        What is served, by name.
    version
        Version of the server.
    base_path
        What all paths stand under, such as ``/models``; empty at the root.
    """
    definitions = dict(_DEFINITIONS)
    paths: dict[str, Any] = {
        "/": {"get": _operation("versions", "Get available API versions", _refer("Versions"))},
        "/v2/": {"get": _operation("versions", "Get V2 API version information", _refer("Version"))},
        "/v2/debug/": {
            "get": {
                "tags": ["debug"],
                "summary": "Return debug information if enabled by API.",
                "parameters": [],
                "produces": ["text/plain"],
                "responses": {"204": {"description": "Debug endpoint not enabled"}},
            }
        },
        "/v2/models/": {
            "get": _operation("models", "Return loaded models and its information", _refer("Models")),
        },
    }
    for name, description in models.items():
        paths |= _paths(name, description, definitions)
    return {
        "swagger": "2.0",
        "info": {
            "title": "DEEPaaS V2 API of " + (", ".join(models) or "no model"),
            "description": "Models by the DEEPaaS V2 protocol.",
            "version": version,
        },
        **({"basePath": base_path} if base_path else {}),
        "paths": paths,
        "definitions": definitions,
    }


def _paths(name: str, description: Description, definitions: dict[str, Any]) -> dict[str, Any]:
    answer = "Prediction"
    if description.answer is not None:
        answer = _free_name(description.answer.name, definitions)
        definitions[answer] = {"type": "object", "properties": dict(description.answer.properties)}
    prefix = f"/v2/models/{name}"
    predict = _operation(
        "models", "Make a prediction given the input data", _refer(answer), description.predict, description.produces
    )
    train = _operation("models", "Retrain model with available data", _refer("Training"), description.train)
    uuid = {"in": "path", "name": "uuid", "required": True, "type": "string"}
    one = _operation("models", "Get status of a training", _refer("Training"))
    stop = _operation("models", "Cancel a running training", _refer("Training"))
    for operation in (one, stop):
        operation["parameters"] = [uuid]
    return {
        f"{prefix}/": {"get": _operation("models", "Return model's metadata", _refer("ModelMeta"))},
        f"{prefix}/predict/": {"post": predict},
        f"{prefix}/train/": {
            "post": train,
            "get": _operation("models", "Get a list of trainings (running or ended)", _refer("TrainingList")),
        },
        f"{prefix}/train/{{uuid}}": {"get": one, "delete": stop},
    }


def _operation(
    tag: str,
    summary: str,
    answer: dict[str, Any],
    arguments: Sequence[Argument] | None = None,
    produces: Sequence[str] = ("application/json",),
) -> dict[str, Any]:
    parameters = _parameters(arguments or ())
    responses: dict[str, Any] = {"200": {"description": "", "schema": answer}}
    if arguments is not None:
        responses["422"] = {"description": "Arguments that are not taken", "schema": _refer("Invalid")}
        responses["default"] = {"description": "", "schema": _refer("Failure")}
    made: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "parameters": parameters,
        "produces": list(produces),
        "responses": responses,
    }
    if any(parameter["in"] == "formData" for parameter in parameters):
        made["consumes"] = ["multipart/form-data"]
    return made


def _parameters(arguments: Sequence[Argument]) -> list[dict[str, Any]]:
    """Return the parameters of an operation; what is in the body is one of them."""
    made = [_parameter(argument) for argument in arguments if _place(argument) != "body"]
    inside = [argument for argument in arguments if _place(argument) == "body"]
    if inside:
        schema: dict[str, Any] = {"type": "object", "properties": {item.name: dict(item.schema) for item in inside}}
        required = [item.name for item in inside if item.required]
        schema |= {"required": required} if required else {}
        made.append({"in": "body", "name": "body", "required": bool(required), "schema": schema})
    return made


def _place(argument: Argument) -> str:
    if argument.location is None:
        return "formData" if argument.is_file else "query"
    return _PLACES.get(argument.location, "query")


def _parameter(argument: Argument) -> dict[str, Any]:
    place = _place(argument)
    made: dict[str, Any] = {"in": place, "name": argument.name, "required": argument.required}
    if argument.many and not argument.is_file and place in ("query", "formData"):
        made["collectionFormat"] = "multi"
    return made | _in_parameter(argument.schema)


def _in_parameter(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a schema into the form that parameters have: they are no mappings, which are text in JSON here."""
    shown = {key: value for key, value in schema.items() if key not in _ONLY_IN_SCHEMAS}
    if "default" in shown and shown["default"] is None:
        del shown["default"]
    kind = shown.get("type")
    items = shown.pop("items", None)
    if kind == "array" and items is not None and items.get("type") == "file":
        return shown | {"type": "file"}
    if kind == "array":
        return shown | {"items": _in_parameter(items or {})}
    if kind == "object":
        shown |= {"type": "string", "format": "json"}
        if "default" in shown:
            shown["default"] = json.dumps(shown["default"])
    elif kind is None:
        shown["type"] = "string"
    return shown


def _refer(name: str) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{name}"}


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    number = 0
    while (free := f"{name}{number or ''}") in taken:
        number += 1
    return free
