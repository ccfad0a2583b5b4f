"""Paths of the DEEPaaS V2 API. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["NotAllowed", "Redirect", "Route", "find_route", "takes"]

Operation = Literal[
    "versions", "ui", "page", "swagger", "version", "debug", "models", "model",
    "predict", "train", "trainings", "training", "cancel",
]  # fmt: skip

_SIMPLE: dict[str, Operation] = {
    "/": "versions",
    "/ui": "ui",
    "/api": "page",
    "/swagger.json": "swagger",
    "/v2/": "version",
    "/v2/debug/": "debug",
    "/v2/models/": "models",
}
_ALONE = {*_SIMPLE, "/v2/debug", "/v2/models"} - {"/"}
_OF_A_MODEL: list[tuple[str, dict[str, Operation]]] = [
    (r"/", {"GET": "model"}),
    (r"/predict/", {"POST": "predict"}),
    (r"/train/", {"GET": "trainings", "POST": "train"}),
    (r"/train/(?P<uuid>[^/]+)", {"GET": "training", "DELETE": "cancel"}),
]


@dataclass(frozen=True)
class Route:
    """What is asked for: an operation, and of which model and training."""

    operation: Operation
    model: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class Redirect:
    """What is asked for is elsewhere."""

    path: str


@dataclass(frozen=True)
class NotAllowed:
    """What is asked for takes other methods."""

    methods: tuple[str, ...]


def takes(path: str) -> bool:
    """Tell whether a path is this API's where the Open Inference Protocol is spoken, too.

    A slash at the end tells the two apart: ``/v2/models/NAME/`` is DEEPaaS's, without it is the other's.
    """
    if path in _ALONE or not path.startswith("/v2/models/"):
        return path in _ALONE
    _, *rest = path.removeprefix("/v2/models/").split("/")
    return rest == [""] or rest[:1] in (["predict"], ["train"])


def find_route(method: str, path: str, models: Collection[str]) -> Route | Redirect | NotAllowed | None:
    """Say what a request is about; nothing if there is no such path.

    Parameters
    ----------
    method, path
        Of the request; the path without what the server stands under.
    models
        Names of the models that are served.
    """
    found = _find(method, path, models)
    if found is None or isinstance(found, NotAllowed):
        # as in DEEPaaS, several slashes count as one, and one is added at the end, where that leads somewhere
        merged = re.sub("/{2,}", "/", path)
        for candidate in dict.fromkeys((merged, merged + "/")):
            if candidate != path and isinstance(_find(method, candidate, models), Route):
                return Redirect(candidate)
    return found


def _find(method: str, path: str, models: Collection[str]) -> Route | NotAllowed | None:
    if path in _SIMPLE:
        return Route(_SIMPLE[path]) if method == "GET" else NotAllowed(("GET",))
    for model in models:
        prefix = f"/v2/models/{model}"
        if not path.startswith(prefix):
            continue
        for pattern, operations in _OF_A_MODEL:
            match = re.fullmatch(pattern, path[len(prefix) :])
            if match is None:
                continue
            if method not in operations:
                return NotAllowed(tuple(operations))
            return Route(operations[method], model, match.groupdict().get("uuid", ""))
    return None
