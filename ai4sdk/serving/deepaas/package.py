"""A model package behind the API: its columns or its data are the arguments, a process of ours answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ai4sdk.serving.deepaas.arguments import Answer, Argument, Description
from ai4sdk.serving.deepaas.forms import BadRequest
from ai4sdk.serving.deepaas.messages import HttpRequest, answer_json, complaint
from ai4sdk.serving.messages import Request, Response

__all__ = ["DATA", "MOST_COLUMNS", "ServedPackage", "describe_package", "has_columns"]

DATA = "data"
"""The argument that takes samples of any number."""
MOST_COLUMNS = 100
"""Columns up to which each is an argument of its own."""

_KINDS = {
    # a text, as deepaas_ui leaves out a number that is 0 and would have nobody ask about one
    "number": {"type": "string", "format": "number"},
    "bool": {"type": "boolean"},
    "text": {"type": "string"},
}
_ANSWER = {
    "status": {"type": "string", "description": "OK"},
    "predictions": {"type": "array", "items": {"type": "object"}, "description": "A record a sample"},
    "labels": {"type": "array", "items": {"type": "string"}, "description": "The classes"},
    "probabilities": {
        "type": "array",
        "items": {"type": "number"},
        "description": "The first sample's, in the order of labels",
    },
}


class ServedPackage:
    """A package behind the API.

    Parameters
    ----------
    name
        Name it is served as.
    facts
        What its processes told of it when they had loaded it: ``contract`` and ``description``.
    ask
        Asks one of them.
    most
        Bytes a request may have.
    """

    def __init__(
        self, name: str, facts: Mapping[str, Any], ask: Callable[[Request], Awaitable[Response]], most: int
    ) -> None:
        self._description = describe_package(name, facts)
        self._ask = ask
        self._most = most

    @property
    def description(self) -> Description:
        """What it is, takes and answers."""
        return self._description

    async def predict(self, request: HttpRequest) -> Response:
        """Answer a request to predict."""
        parts, size = [], 0
        async for part in request.body:
            parts.append(part)
            size += len(part)
            if size > self._most:
                raise BadRequest(413, f"the body has more than {self._most} bytes")
        question = Request("deepaas", "infer", request.content_type, b"".join(parts), {"query": request.query})
        return await self._ask(question)

    async def train(self, request: HttpRequest) -> Response:
        """Say that it is not trained here."""
        return complaint(501, "this model is a trained package; train another with `ai4sdk run`")

    async def trainings(self) -> Response:
        """List no trainings."""
        return answer_json([])

    async def training(self, uuid: str) -> Response:
        """Tell that there is none."""
        return complaint(404, f"there is no training {uuid}")

    async def cancel(self, uuid: str) -> Response:
        """Tell that there is none."""
        return complaint(404, f"there is no training {uuid}")


def has_columns(columns: Sequence[str]) -> bool:
    """Tell whether each column is an argument of its own: not where there are too many, or one has a name of ours."""
    return 0 < len(columns) <= MOST_COLUMNS and not {DATA, "accept"} & set(columns)


def describe_package(name: str, facts: Mapping[str, Any]) -> Description:
    """Say in DEEPaaS's words what a package is, takes and answers.

    Parameters
    ----------
    name
        Name it is served as.
    facts
        ``contract`` and ``description``, as mappings.
    """
    contract, known = facts["contract"], facts["description"]
    has_chances = any(output["name"] == "probabilities" for output in contract["outputs"])
    return Description(
        metadata={
            "id": name,
            "name": name,
            "description": _told(contract, known),
            "version": known["run"],
            "summary": f"{contract['task']}, trained by ai4sdk",
        },
        functions=frozenset({"predict"}),
        predict=tuple(_arguments(contract, known)),
        answer=Answer("ModelPredictionResponse", _ANSWER) if has_chances else None,
    )


def _told(contract: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    takes = {
        "images": "pictures",
        "audio": "recordings",
        "table": f"records with {len(contract['inputs'])} columns",
        "array": f"arrays of the shape {list(contract['sample_shape'])}",
    }[contract["form"]]
    classes = contract["class_names"]
    gives = f"one of {len(classes)} classes" if classes else {"regression": "numbers"}.get(contract["task"], "arrays")
    return f"From {takes} to {gives}."


def _arguments(contract: Mapping[str, Any], known: Mapping[str, Any]) -> list[Argument]:
    # deepaas_ui makes elements for pictures and sounds by the words "image" and "audio" in a description, and no other
    if contract["form"] == "images":
        return [_data("An image: PNG, JPEG and the like. Several may be sent by repeating it.", required=True)]
    if contract["form"] == "audio":
        return [_data("An audio file: WAV, FLAC, OGG or MP3. Several may be sent by repeating it.", required=True)]
    if contract["form"] == "array":
        shape = list(contract["sample_shape"])
        return [_data(f"Samples of the shape {shape}: NPY or CSV as a file, or lists in JSON.", required=True)]
    columns = [spec["name"] for spec in contract["inputs"]]
    if not has_columns(columns):
        return [_data("Records: CSV or JSON as a file, or JSON.", required=True)]
    steps = known.get("preprocessing") or {}
    rules = steps.get("columns") or [{"name": column, "kind": "number"} for column in columns]
    data = _data("Records in place of the columns below: CSV or JSON as a file, or JSON.", required=False)
    return [data, *(_column(rule) for rule in rules)]


def _data(told: str, *, required: bool) -> Argument:
    return Argument(DATA, {"type": "file", "description": told}, required=required, location="form")


def _column(rule: Mapping[str, Any]) -> Argument:
    schema: dict[str, Any] = dict(_KINDS[rule["kind"]])
    if rule.get("categories"):
        schema["enum"] = list(rule["categories"])
    schema["description"] = f"Column {rule['name']}"
    return Argument(str(rule["name"]), schema)
