"""The protocols, a file each: from a request's body to samples, and from a prediction to the answer's body.

A protocol is a module with two functions; errors are written by `ai4sdk.serving.refusals`.

``decode(request, contract) -> Question``
    Read the samples of a request. What is wrong with it, it raises as `Refused`.
``encode(question, prediction, contract, served) -> Response``
    Write the answer.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

__all__ = ["PROTOCOLS", "protocol"]

PROTOCOLS = {
    "v2": "ai4sdk.serving.protocols.v2",
    "mlflow": "ai4sdk.serving.protocols.mlflow",
    "natural": "ai4sdk.serving.protocols.natural",
    "deepaas": "ai4sdk.serving.protocols.deepaas",
}
"""Name → module."""


@cache
def protocol(name: str) -> ModuleType:
    """Return a protocol's module."""
    return importlib.import_module(PROTOCOLS[name])
