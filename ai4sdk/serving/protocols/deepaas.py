"""DEEPaaS V2's predict: arguments in a query, form or JSON: a column each, or ``data`` for samples of any number."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from ai4sdk.data.notation import parse_number
from ai4sdk.serving.contract import PROBABILITIES, Contract
from ai4sdk.serving.deepaas.agent import BrokenJson, in_body
from ai4sdk.serving.deepaas.arguments import Argument
from ai4sdk.serving.deepaas.calls import Call, find_values, parse_query
from ai4sdk.serving.deepaas.forms import BadRequest, Body, BodyReader, Limits, Scratch, Upload
from ai4sdk.serving.deepaas.messages import JSON_TEXT
from ai4sdk.serving.deepaas.package import DATA, has_columns
from ai4sdk.serving.messages import Request, Response
from ai4sdk.serving.protocols.natural import decode as decode_natural
from ai4sdk.serving.question import Question, Refused, Served
from ai4sdk.serving.samples import from_json
from ai4sdk.worker.prediction import Prediction

__all__ = ["decode", "encode"]


def decode(request: Request, contract: Contract) -> Question:
    """Read the samples of a call.

    Parameters
    ----------
    request
        Its parameters have the ``query``.
    contract
        What the model takes.
    """
    with Scratch() as scratch:
        try:
            body = _read(request, scratch)
            query = parse_query(request.parameters.get("query", ""))
            return _question(Call(query, {}, body), contract)
        except BrokenJson:
            raise Refused(400, "Invalid JSON body.") from None
        except BadRequest as error:
            raise Refused(error.status, error.message) from None


def encode(question: Question, prediction: Prediction, contract: Contract, served: Served) -> Response:
    """Write a record a sample; of a classifier besides, for DEEPaaS's UI, labels and probabilities of the first."""
    answer: dict[str, Any] = {"status": "OK", "predictions": prediction.to_records()}
    if any(spec.name == PROBABILITIES for spec in contract.outputs) and answer["predictions"]:
        first = answer["predictions"][0].get("probabilities") or {}
        answer |= {"labels": list(first), "probabilities": list(first.values())}
    return Response(200, JSON_TEXT, orjson.dumps(answer))


def _read(request: Request, scratch: Scratch) -> Body:
    reader = BodyReader(request.content_type, scratch, Limits())  # the front has looked at its size
    try:
        reader.write(bytes(request.body))
        return reader.finish()
    finally:
        reader.close()


def _question(call: Call, contract: Contract) -> Question:
    given = _values(call, [Argument(DATA, many=True)])
    if DATA in given:
        values = given[DATA] if _is_plural(given[DATA]) else [given[DATA]]
        return Question(_joined([_samples(value, contract) for value in values]))
    if not has_columns(contract.columns):
        raise Refused(422, f"{DATA}: Missing data for required field.")
    record = _values(call, [Argument(name) for name in contract.columns])
    if files := [name for name, value in record.items() if isinstance(value, Upload)]:
        raise Refused(422, f"{files[0]}: Not a valid value: send files as {DATA}.")
    if not record:
        raise Refused(422, f"{DATA}: Missing data for required field: give {DATA}, or each column.")
    if missing := [name for name in contract.columns if name not in record]:
        raise Refused(422, f"{missing[0]}: Missing data for required field.")
    numbers = {spec.name for spec in contract.inputs if spec.datatype == "FP64"}
    return Question([{name: _number(value) if name in numbers else value for name, value in record.items()}])


def _number(value: Any) -> Any:
    """Read a number in a query or form, as everybody writes it there, whatever the model's files are written like."""
    number = parse_number(value) if isinstance(value, str) else None
    return value if number is None else number


def _values(call: Call, arguments: list[Argument]) -> dict[str, Any]:
    found = find_values(call, arguments)
    return {**found.values, **in_body(found.json, dict(found.in_json), orjson.loads)}


def _is_plural(given: Any) -> bool:
    """Tell whether several values were given; a list in JSON is one: samples."""
    return isinstance(given, list) and bool(given) and all(isinstance(value, Upload | str) for value in given)


def _joined(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, np.ndarray) for part in parts):
        try:
            return np.concatenate(parts)
        except ValueError as error:
            raise Refused(422, f"{DATA}: The files do not fit together: {error}.") from None
    return [sample for part in parts for sample in part]


def _samples(value: Any, contract: Contract) -> Any:
    if isinstance(value, Upload):
        parameters = {"name": value.original_name}
        kind = value.content_type if value.content_type != "text/plain" else "application/octet-stream"
        return decode_natural(Request("natural", "infer", kind, value.path.read_bytes(), parameters), contract).samples
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except ValueError:
            raise Refused(422, f"{DATA}: Not valid JSON; send a file, or samples in JSON.") from None
    return from_json(value, contract)
