"""What MLflow reads of a package: signature, ``MLmodel`` and environment files, written without importing MLflow."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sdk.worker.description import CODE, Description

__all__ = [
    "column_schema",
    "conda_environment",
    "input_example",
    "mlmodel",
    "output_schema",
    "python_environment",
    "request_body",
    "requirements",
    "tensor_schema",
]

LOADER = "ai4sdk.worker.pyfunc"
BUILD_PACKAGES = ("pip", "setuptools", "wheel")

Schema = list[dict[str, Any]]
Records = Sequence[Mapping[str, Any]]


def column_schema(records: Records, texts: Set[str] = frozenset()) -> Schema:
    """Return MLflow's schema of records: ``double``, ``boolean``, ``string`` or ``any`` by column.

    Columns of whole numbers are ``any``: for ``long`` MLflow refuses empty cells and cuts off fractions, for
    ``double`` it refuses DataFrames of whole numbers. A column that is empty in a record is optional.

    Parameters
    ----------
    records
        Examples.
    texts
        Columns that hold text, whatever the examples look like.
    """
    columns: dict[str, list[Any]] = {}
    for record in records:
        for name, value in record.items():
            columns.setdefault(name, []).append(value)
    return [
        {
            "type": "string" if name in texts else _column_type(values),
            "name": name,
            "required": len(values) == len(records) and all(value is not None for value in values),
        }
        for name, values in columns.items()
    ]


def tensor_schema(shape: Sequence[int], dtype: str) -> Schema:
    """Return MLflow's schema of arrays; the shape is that of one sample, -1 where any length goes."""
    return [{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}]


def output_schema(known: Description) -> Schema:
    """Return MLflow's schema of what `ai4sdk.worker.prediction.Prediction.to_records` gives."""
    number = {"type": "double", "required": True}
    if known.task == "classification" and known.output_kind != "values":
        label = {"type": "string", "name": "prediction", "required": True}
        if known.output_kind == "labels":
            return [label]
        chances = {name: dict(number) for name in known.class_names or ()}
        return [
            label,
            {"type": "double", "name": "probability", "required": True},
            {"type": "object", "properties": chances, "name": "probabilities", "required": True},
        ]
    if known.task == "regression" and known.output_shape in ([], [1]):
        return [{"name": "prediction", **number}]
    return tensor_schema(known.output_shape, "float32")


def mlmodel(
    *, inputs: Schema, outputs: Schema, example: str, identity: str, created: str, version: str, has_code: bool
) -> dict[str, Any]:
    """Return the content of ``MLmodel``.

    Parameters
    ----------
    inputs, outputs
        Schemas.
    example
        ``dataframe`` or ``ndarray``: the form of the input example.
    identity
        Identifier of the model, 32 hexadecimal digits.
    created
        Time in UTC, as ``YYYY-MM-DD HH:MM:SS.ffffff``.
    version
        Version of MLflow whose form this is.
    has_code
        Whether the package holds ``code/``.
    """
    saved = {
        "artifact_path": "input_example.json",
        "serving_input_path": "serving_input_example.json",
        "type": example,
    }
    if example == "dataframe":
        saved["pandas_orient"] = "split"
    return {
        "flavors": {
            "python_function": {
                "code": CODE if has_code else None,
                "data": ".",
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": LOADER,
                "python_version": platform.python_version(),
                "streamable": False,
            }
        },
        "is_signature_from_type_hint": False,
        "mlflow_version": version,
        "model_id": None,
        "model_uuid": identity,
        "prompts": None,
        "saved_input_example_info": saved,
        "signature": {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None},
        "type_hint_from_example": False,
        "utc_time_created": created,
    }


def requirements(packages: Mapping[str, str]) -> list[str]:
    """Return pinned requirements; the local part of a version (``+cpu``), which no index has, is left out."""
    return [f"{name}=={version.partition('+')[0]}" for name, version in sorted(packages.items())]


def python_environment() -> dict[str, Any]:
    """Return the content of ``python_env.yaml``."""
    return {
        "python": platform.python_version(),
        "build_dependencies": list(BUILD_PACKAGES),
        "dependencies": ["-r requirements.txt"],
    }


def conda_environment(pinned: Sequence[str]) -> dict[str, Any]:
    """Return the content of ``conda.yaml``."""
    python = f"python={platform.python_version()}"
    return {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [python, "pip", {"pip": list(pinned)}],
    }


def input_example(samples: Records | NDArray[Any]) -> Any:
    """Return the content of ``input_example.json``: a table as columns and rows, or nested lists."""
    if isinstance(samples, np.ndarray):
        return samples.tolist()
    names = list(dict.fromkeys(name for record in samples for name in record))
    return {"columns": names, "data": [[record.get(name) for name in names] for record in samples]}


def request_body(samples: Records | NDArray[Any]) -> dict[str, Any]:
    """Return a request to an endpoint in MLflow's form."""
    example = input_example(samples)
    return {"inputs": example} if isinstance(samples, np.ndarray) else {"dataframe_split": example}


def _column_type(values: Sequence[Any]) -> str:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool | np.bool_) for value in known):
        return "boolean"
    if known and all(isinstance(value, int | float | np.integer | np.floating) for value in known):
        return "any" if all(float(value).is_integer() for value in known) else "double"
    return "string" if known else "any"
