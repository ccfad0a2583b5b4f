"""The DEEPaaS V2 API: from a request to its answer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ai4sdk._version import __version__
from ai4sdk.serving.deepaas.agent import BrokenJson
from ai4sdk.serving.deepaas.forms import BadRequest
from ai4sdk.serving.deepaas.messages import HttpRequest, answer_json, complaint
from ai4sdk.serving.deepaas.module import Invalid, ModuleFailed
from ai4sdk.serving.deepaas.page import render_page
from ai4sdk.serving.deepaas.routes import NotAllowed, Redirect, Route, find_route
from ai4sdk.serving.deepaas.served import Served
from ai4sdk.serving.deepaas.swagger import render_swagger
from ai4sdk.serving.messages import Response

__all__ = ["Api"]

_VERSION_LINK = "application/json"


class Api:
    """The API over some models.

    Parameters
    ----------
    models
        What is served, by name. It is looked at for each request, so that it may change.
    base_path
        What all paths stand under, such as ``/deepaas``; empty at the root.
    can_predict, can_train
        Whether these are answered, or refused with status 402.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        *,
        base_path: str = "",
        can_predict: bool = True,
        can_train: bool = True,
    ) -> None:
        self.models = models
        self.base_path = "/" + base_path.strip("/") if base_path.strip("/") else ""
        self._can_predict = can_predict
        self._can_train = can_train

    def index(self) -> dict[str, Any]:
        """Return what is answered at the root."""
        return {"versions": [self._version()], "links": self._links()}

    async def handle(self, request: HttpRequest) -> Response:
        """Answer a request. Only defects of ours raise."""
        if not request.path.startswith(self.base_path):
            return complaint(404, f"there is no {request.path}")
        found = find_route(request.method, request.path[len(self.base_path) :] or "/", self.models)
        if found is None:
            return self._nothing(request.path)
        if isinstance(found, NotAllowed):
            allowed = ", ".join(found.methods)
            return complaint(405, f"{request.path} takes {allowed}", {"allow": allowed})
        if isinstance(found, Redirect):
            query = f"?{request.query}" if request.query else ""
            return Response(308, "text/plain", b"", {"location": quote(self.base_path + found.path) + query})
        try:
            return await self._do(found, request)
        except Invalid as error:
            return answer_json(error.messages, 422)
        except BrokenJson:
            return answer_json({"json": ["Invalid JSON body."]}, 400)
        except (BadRequest, ModuleFailed) as error:
            return complaint(error.status, error.message, {"retry-after": "5"} if error.status == 503 else None)

    async def _do(self, route: Route, request: HttpRequest) -> Response:
        if route.model:
            return await self._ask(self.models[route.model], route, request)
        match route.operation:
            case "versions":
                return answer_json(self.index())
            case "version":
                return answer_json(self._version())
            case "ui":
                return Response(302, "text/plain", b"", {"location": f"{self.base_path}/api"})
            case "page":
                return Response(200, "text/html; charset=utf-8", render_page(self._swagger()).encode())
            case "swagger":
                return answer_json(self._swagger())
            case "models":
                return answer_json({"models": [self._metadata(name, request.path) for name in self.models]})
            case _:  # debug: what a module prints is in the log, which is not for everybody
                return Response(204, "", b"")

    async def _ask(self, model: Served, route: Route, request: HttpRequest) -> Response:
        is_off = not (self._can_predict if route.operation == "predict" else self._can_train)
        if route.operation != "model" and is_off:
            what = "predictions" if route.operation == "predict" else "trainings"
            return complaint(402, f"{what} are switched off here")
        if route.operation in ("predict", "train") and route.operation not in model.description.functions:
            return complaint(501, f"{route.model} has no {route.operation}")
        match route.operation:
            case "model":
                return answer_json(self._metadata(route.model, request.path))
            case "predict":
                return await model.predict(request)
            case "train":
                return await model.train(request)
            case "trainings":
                return await model.trainings()
            case "training":
                return await model.training(route.uuid)
            case _:
                return await model.cancel(route.uuid)

    def _metadata(self, name: str, path: str) -> dict[str, Any]:
        href = f"{self.base_path}/v2/models/{name}"
        links = [{"rel": "self", "href": href}]
        return {"id": name, "name": name, "links": links, **self.models[name].description.metadata}

    def _version(self) -> dict[str, Any]:
        links = [{"rel": "self", "type": _VERSION_LINK, "href": f"{self.base_path}/v2/"}]
        return {"version": "stable", "id": "v2", "links": links}

    def _links(self) -> list[dict[str, str]]:
        return [
            {"rel": "help", "type": "text/html", "href": f"{self.base_path}/api"},
            {"rel": "describedby", "type": "application/json", "href": f"{self.base_path}/swagger.json"},
        ]

    def _swagger(self) -> dict[str, Any]:
        models = {name: model.description for name, model in self.models.items()}
        return render_swagger(models, version=__version__, base_path=self.base_path)

    def _nothing(self, path: str) -> Response:
        parts = path[len(self.base_path) :].split("/")
        if parts[1:3] == ["v2", "models"] and len(parts) > 3 and parts[3] not in self.models:
            near = difflib.get_close_matches(parts[3], self.models, 1)
            known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.models) or 'none'}"
            return complaint(404, f"there is no model {parts[3]!r}; {known}")
        return complaint(404, f"there is no {path}")
