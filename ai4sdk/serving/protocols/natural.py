"""Data as people have it: a picture, recording, CSV, array or JSON as the body, a record a sample as the answer."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np
import orjson

from ai4sdk.data.formats import NOUNS, told_by_content, told_by_name
from ai4sdk.serving.contract import Contract
from ai4sdk.serving.messages import JSON, Request, Response
from ai4sdk.serving.question import Question, Refused, Served, loads
from ai4sdk.serving.samples import from_csv, from_json
from ai4sdk.worker.prediction import Prediction

__all__ = ["decode", "encode", "kind_of"]

_BY_SUFFIX = {"json": "json", "csv": "csv", "tsv": "csv", "npy": "npy", "npz": "npy"}
_BY_TYPE = {
    JSON: "json", "text/csv": "csv", "application/x-npy": "npy", "application/octet-stream": "",
    "application/ogg": "audio",
}  # fmt: skip
_BY_FAMILY = {"image": "images", "audio": "audio"}
_AXES = {"images": 2, "audio": 1}
"""Axes of an array that is one sample."""


def decode(request: Request, contract: Contract) -> Question:
    """Read a body by its type, the suffix of its name, or its first bytes."""
    kind = kind_of(request)
    if kind in NOUNS:
        if contract.form != kind:
            raise Refused(415, f"the model takes no {NOUNS[kind]}s")
        return Question([bytes(request.body)])
    if kind == "csv":
        return Question(from_csv(request.body, contract))
    if kind == "npy":
        return Question(_array(request.body, contract))
    return Question(from_json(loads(request.body), contract))


def encode(question: Question, prediction: Prediction, contract: Contract, served: Served) -> Response:
    """Write a record a sample."""
    return Response(200, JSON, orjson.dumps({"predictions": prediction.to_records()}))


def kind_of(request: Request) -> str:
    """Tell what a body is: ``json``, ``csv``, ``npy``, ``images`` or ``audio``."""
    declared = request.content_type.partition(";")[0].strip().lower()
    if family := _BY_FAMILY.get(declared.partition("/")[0]):
        return family
    if known := _BY_TYPE.get(declared):
        return known
    name = request.parameters.get("name", "")
    if known := _BY_SUFFIX.get(name.rpartition(".")[2].lower()) or told_by_name(name):
        return known
    first = bytes(request.body[:12])
    if told := told_by_content(first):
        return told
    if first.startswith(b"\x93NUMPY"):
        return "npy"
    if first.lstrip()[:1] in (b"{", b"["):
        return "json"
    raise Refused(
        415,
        f"what the body is cannot be told (content type {declared!r}); send JSON, CSV, NPY, a picture or a recording",
    )


def _array(body: bytes | memoryview, contract: Contract) -> Any:
    """Read a ``.npy`` or ``.npz``; nothing in it is unpickled, nothing larger than the limit of bodies is unpacked."""
    content = bytes(body)
    if content.startswith(b"PK"):
        raise Refused(415, "send arrays as .npy: what is compressed may be larger than it looks")
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
        raise Refused(400, f"the body holds no array of numbers: {error}") from None
    if array.ndim == 0:
        raise Refused(400, "the body holds a single number; the first axis of an array counts the samples")
    if contract.form == "table":
        return array.tolist()
    if array.dtype.kind not in "biufc":  # a text would be taken for the path of a file of this machine
        raise Refused(400, f"the body holds an array of {array.dtype}; the model takes numbers")
    if contract.form in _AXES:
        return [array] if array.ndim == _AXES[contract.form] else list(array)
    return array
