"""The server's description in OpenAPI 3.1, made from the contracts of its models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ai4sdk._version import __version__
from ai4sdk.serving.models import Models

__all__ = ["openapi"]

_NUMBERS = {
    "BOOL": {"type": "boolean"},
    "BYTES": {"type": "string"},
    "FP16": {"type": "number"},
    "FP32": {"type": "number"},
}
_NUMBERS["FP64"] = {"type": "number"}
_JSON = "application/json"
_FILES = {
    "images": ("image/png", "image/jpeg"),
    "audio": ("audio/wav", "audio/flac", "audio/ogg", "audio/mpeg"),
}
"""Types of the files that are a sample."""
_ITEMS = {
    "images": {"type": "integer", "minimum": 0, "maximum": 255},
    "audio": {"type": "integer", "minimum": -32768, "maximum": 32767},
}
"""What files hold, where they come as lists of numbers."""

Schema = dict[str, Any]


def openapi(models: Models, protocols: Collection[str]) -> Schema:
    """Return the description of what is served now."""
    paths: dict[str, Any] = {
        "/health/live": {"get": _reading("Whether the server runs", {"type": "object"}, errors=())},
        "/health/ready": {"get": _reading("Whether every model can answer", {"type": "object"}, errors=(503,))},
        "/metrics": {
            "get": {
                "summary": "Figures for Prometheus",
                "responses": {"200": _content({"type": "string"}, "text/plain")},
            }
        },
    }
    paths["/drift"] = {"get": _reading("What detectors say of drift", {"type": "object"}, errors=())}
    for name in models.names:
        found = models.get(name)
        if found is None:
            continue
        for version, entry in found.entries.items():
            if "contract" in entry.pool.facts:
                paths |= _paths_of(name, version, entry.pool.facts["contract"], protocols)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ai4sdk", "version": __version__, "description": "Trained models"},
        "paths": paths,
        "components": {"schemas": _COMPONENTS},
    }


def _paths_of(name: str, version: str, contract: Mapping[str, Any], protocols: Collection[str]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for place in (f"/models/{name}", f"/models/{name}/versions/{version}"):
        if "natural" in protocols:
            paths[place] = {"get": _reading(f"What {name} takes and gives", {"type": "object"}, errors=(404,))}
            paths[f"{place}/predict"] = {
                "post": _asking(f"Predict with {name}", _natural_body(contract), _records(contract))
            }
        if "mlflow" in protocols:
            paths[f"{place}/invocations"] = {
                "post": _asking(
                    f"Predict with {name}, in MLflow's form", _mlflow_body(contract), {"type": "object"}, "MlflowError"
                )
            }
        if "v2" in protocols:
            v2 = f"/v2{place}"
            paths[v2] = {
                "get": _reading(f"Tensors of {name}", {"$ref": "#/components/schemas/ModelMetadata"}, errors=(404,))
            }
            paths[f"{v2}/ready"] = {
                "get": _reading(f"Whether {name} can answer", {"type": "object"}, errors=(404, 503))
            }
            paths[f"{v2}/infer"] = {"post": _asking(f"Infer with {name}", {_JSON: _v2_body(contract)}, _V2_ANSWER)}
    return paths


def _natural_body(contract: Mapping[str, Any]) -> dict[str, Schema]:
    bodies = _mlflow_body(contract)
    for kind in _FILES.get(contract["form"], ()):
        bodies[kind] = {"type": "string", "format": "binary"}
    return bodies


def _mlflow_body(contract: Mapping[str, Any]) -> dict[str, Schema]:
    if contract["form"] == "table":
        record = {
            "type": "object",
            "properties": {spec["name"]: _NUMBERS[spec["datatype"]] for spec in contract["inputs"]},
            "required": [spec["name"] for spec in contract["inputs"]],
        }
        body = {
            "type": "object",
            "properties": {"dataframe_records": {"type": "array", "minItems": 1, "items": record}},
            "required": ["dataframe_records"],
        }
        return {_JSON: body, "text/csv": {"type": "string"}}
    shape: list[int] = {"images": [-1, -1], "audio": [-1]}.get(contract["form"], contract["sample_shape"])
    item: Schema = _ITEMS.get(contract["form"], {"type": "number"})
    told = {"description": f"Recordings, {contract['rate']} numbers a second"} if contract["form"] == "audio" else {}
    for length in reversed(shape):
        item = {
            "type": "array",
            "items": item,
            **({"minItems": length, "maxItems": length} if length >= 0 else {"minItems": 1}),
        }
    body = {
        "type": "object",
        "properties": {"inputs": {"type": "array", "minItems": 1, "items": item, **told}},
        "required": ["inputs"],
    }
    return {_JSON: body}


def _records(contract: Mapping[str, Any]) -> Schema:
    record: Schema = {"type": "object", "required": ["prediction"]}
    if contract["class_names"]:
        record["properties"] = {"prediction": {"type": ["string", "null"]}}
    return {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": record}},
        "required": ["predictions"],
    }


def _v2_body(contract: Mapping[str, Any]) -> Schema:
    names = [spec["name"] for spec in contract["inputs"]]
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"enum": names},
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
                        "datatype": {"enum": sorted({spec["datatype"] for spec in contract["inputs"]})},
                        "data": {"type": "array"},
                    },
                    "required": ["name", "shape", "datatype", "data"],
                },
            },
            "outputs": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {"name": {"enum": [spec["name"] for spec in contract["outputs"]]}},
                    "required": ["name"],
                },
            },
        },
        "required": ["inputs"],
    }


def _reading(summary: str, schema: Schema, errors: Collection[int]) -> Schema:
    return {"summary": summary, "responses": {"200": _content(schema), **_errors(errors)}}


def _asking(summary: str, bodies: Mapping[str, Schema], answer: Schema, error: str = "Error") -> Schema:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in bodies.items()}},
        "responses": {"200": _content(answer), **_errors((400, 408, 413, 415, 500, 503, 504), error)},
    }


def _errors(statuses: Collection[int], name: str = "Error") -> Schema:
    return {
        str(status): _content({"$ref": f"#/components/schemas/{name}"}, text=_REASONS[status]) for status in statuses
    }


def _content(schema: Schema, kind: str = _JSON, text: str = "The answer") -> Schema:
    return {"description": text, "content": {kind: {"schema": schema}}}


_REASONS = {
    400: "The request is not understood, or its samples do not fit the model",
    404: "There is no such model or version",
    408: "The request came too slowly",
    413: "The body is too large",
    415: "The body's type is not understood",
    500: "The model failed",
    503: "Not ready, too busy, or stopping",
    504: "The model took too long",
}

_TENSORS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["name", "datatype", "shape"],
    },
}
_COMPONENTS: Schema = {
    "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    "MlflowError": {
        "type": "object",
        "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
        "required": ["error_code", "message"],
    },
    "ModelMetadata": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "versions": {"type": "array", "items": {"type": "string"}},
            "platform": {"type": "string"},
            "inputs": _TENSORS,
            "outputs": _TENSORS,
        },
        "required": ["name", "platform", "inputs", "outputs"],
    },
}
_V2_ANSWER: Schema = {
    "type": "object",
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": _TENSORS,
    },
    "required": ["model_name", "outputs"],
}
