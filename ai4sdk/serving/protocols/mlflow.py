"""MLflow's scoring protocol: ``/invocations``, as ``mlflow models serve`` answers it.

Source: MLflow's documentation of its inference server: JSON with one of ``dataframe_split``, ``dataframe_records``,
``instances`` or ``inputs``, or CSV with a header; the answer is ``{"predictions": …}``, errors have ``error_code`` and
``message``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from ai4sdk.serving.contract import Contract
from ai4sdk.serving.messages import JSON, Request, Response
from ai4sdk.serving.question import Question, Refused, Served, loads
from ai4sdk.serving.samples import from_csv, from_json
from ai4sdk.worker.prediction import Prediction

__all__ = ["decode", "encode"]


def decode(request: Request, contract: Contract) -> Question:
    """Read an invocation."""
    kind = request.content_type.partition(";")[0].strip().lower()
    if kind in ("text/csv", "text/plain"):
        return Question(from_csv(request.body, contract))
    if kind not in ("", JSON, "application/json-numpy-split"):
        raise Refused(415, f"the content type {kind!r} is not understood; give application/json or text/csv")
    value = loads(request.body)
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if key not in ("params", "client_request_id")}
    return Question(from_json(value, contract))


def encode(question: Question, prediction: Prediction, contract: Contract, served: Served) -> Response:
    """Write what ``mlflow models serve`` would answer for the same package."""
    if prediction.labels is None and (prediction.task == "other" or prediction.values.ndim > 1):
        body: Any = np.ascontiguousarray(prediction.values)
    else:
        body = prediction.to_records()
    return Response(200, JSON, orjson.dumps({"predictions": body}, option=orjson.OPT_SERIALIZE_NUMPY))
