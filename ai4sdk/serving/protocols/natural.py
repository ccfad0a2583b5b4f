"""Data as people have it: a picture, a CSV, an array file or JSON as the body, one record a sample as the answer."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np
import orjson

from ai4sdk.serving.contract import Contract
from ai4sdk.serving.messages import JSON, Request, Response
from ai4sdk.serving.question import Question, Refused, Served, loads
from ai4sdk.serving.samples import from_csv, from_json
from ai4sdk.worker.prediction import Prediction

__all__ = ["decode", "encode", "kind_of"]

_BY_SUFFIX = {
    "json": "json", "csv": "csv", "tsv": "csv", "npy": "npy", "npz": "npy", "png": "image", "jpg": "image",
    "jpeg": "image", "bmp": "image", "gif": "image", "tif": "image", "tiff": "image", "webp": "image",
}  # fmt: skip
_BY_TYPE = {JSON: "json", "text/csv": "csv", "application/x-npy": "npy", "application/octet-stream": ""}


def decode(request: Request, contract: Contract) -> Question:
    """Read a body by its type, the suffix of its name, or its first bytes."""
    kind = kind_of(request)
    if kind == "image":
        if contract.form != "images":
            raise Refused(415, "the model takes no pictures")
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
    """Tell what a body is: ``json``, ``csv``, ``npy`` or ``image``."""
    declared = request.content_type.partition(";")[0].strip().lower()
    if declared.startswith("image/"):
        return "image"
    if known := _BY_TYPE.get(declared):
        return known
    suffix = request.parameters.get("name", "").rpartition(".")[2].lower()
    if known := _BY_SUFFIX.get(suffix):
        return known
    first = bytes(request.body[:8])
    if first.startswith((b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")):
        return "image"
    if first.startswith(b"\x93NUMPY"):
        return "npy"
    if first.lstrip()[:1] in (b"{", b"["):
        return "json"
    raise Refused(415, f"what the body is cannot be told (content type {declared!r}); send JSON, CSV, NPY or a picture")


def _array(body: bytes | memoryview, contract: Contract) -> Any:
    """Read a ``.npy`` or ``.npz``; nothing in it is unpickled, nothing larger than the limit of bodies is unpacked."""
    content = bytes(body)
    if content.startswith(b"PK"):
        raise Refused(415, "send arrays as .npy: what is compressed may be larger than it looks")
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
        raise Refused(400, f"the body holds no array of numbers: {error}") from None
    if contract.form == "table":
        return array.tolist()
    return list(array) if contract.form == "images" else array
