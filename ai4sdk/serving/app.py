"""The ASGI application: limits, routes, and what the server answers itself. The rest a model's process answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from ai4sdk._version import __version__
from ai4sdk.serving.access import AccessLog
from ai4sdk.serving.deepaas.api import Api
from ai4sdk.serving.deepaas.messages import HttpRequest
from ai4sdk.serving.guard import Guard
from ai4sdk.serving.http import WHOLE
from ai4sdk.serving.messages import HEADER_LENGTH, JSON, Request, Response
from ai4sdk.serving.metrics import CONTENT_TYPE, Drift, Metrics
from ai4sdk.serving.models import Models, Name
from ai4sdk.serving.openapi import openapi
from ai4sdk.serving.pool import Pool
from ai4sdk.serving.refusals import Refused, refusal
from ai4sdk.serving.routes import Route, find_route
from ai4sdk.spec.serving import Serving

__all__ = ["App"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[\w.:/+=-]{1,128}", re.ASCII)
_HEADER_LENGTH = HEADER_LENGTH.encode()
_MOST_ROUTES = 4096
_FOR_ALL = frozenset({"live", "ready", "v2_live", "v2_ready", "ping"})
"""What is told without a token: whoever starts and stops servers has none."""
_DISCARD_FOR = 2.0
NO_LENGTH = -1


@dataclass(slots=True)
class _Heads:
    """The headers that matter."""

    content_type: str = ""
    length: int = NO_LENGTH
    request_id: bytes = b""
    encoded: bool = False
    asks_first: bool = False
    """Whether the client sends its body only when it is told to."""
    authorization: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Size:
    """Bytes of a body, as far as they came."""

    bytes: int = 0


class App:
    """Answers HTTP.

    Parameters
    ----------
    serving
        Limits and protocols.
    models
        The models.
    metrics
        Counts requests.
    guard
        Lets pass who may ask; nothing where anybody may.
    log
        Notes requests; nothing for no log.
    deepaas
        Answers by DEEPaaS's protocol, where that is spoken.
    """

    def __init__(
        self,
        serving: Serving,
        models: Models,
        metrics: Metrics,
        *,
        guard: Guard | None = None,
        log: AccessLog | None = None,
        deepaas: Api | None = None,
    ) -> None:
        self._deepaas = deepaas
        self.models = models
        self.draining = False
        self._limits = serving.limits
        self._protocols = frozenset(serving.protocols)
        self._expected = frozenset(serving.models) | frozenset(serving.modules)
        self._metrics = metrics
        self._guard = guard
        self._log = log
        self._routes: dict[str, Route | None] = {}
        self._open = 0
        self._drift: Drift = {}
        self._ids = itertools.count()
        self._id_prefix = os.urandom(5).hex()
        self._answers: dict[str, Callable[[Route], Response]] = {
            "index": self._index,
            "metrics": lambda _: Response(200, CONTENT_TYPE, metrics.text(self._drift)),
            "drift": lambda _: _json(self._drift),
            "openapi": lambda _: _json(openapi(models, self._protocols)),
            "live": lambda _: _json({"live": True}),
            "ready": lambda _: self._ready({"ready": True}),
            "v2_live": lambda _: _json({"live": True}),
            "v2_ready": lambda _: self._ready({"ready": True}),
            "ping": lambda _: self._ready(None),
            "server": self._server,
            "repository": self._repository,
            "mlflow_version": self._mlflow_version,
            "model": self._model,
            "model_ready": self._model_ready,
        }
        metrics.watch(lambda: models.ready, lambda: self._open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see the ASGI specification."""
        if scope["type"] != "http":
            return
        started, now = time.perf_counter(), time.time()
        path: str = scope["path"]
        route = self._route(path)
        heads = _heads(scope["headers"])
        request_id = heads.request_id or self._new_id().encode()
        size = _Size()
        self._open += 1
        try:
            try:
                if (denied := await self._guarded(route, heads.authorization)) is not None:
                    answer = denied
                elif route is not None and route.kind == "infer" and scope["method"] == "POST":
                    self._check(route)
                    body = await self._body(heads, receive, scope.get(WHOLE, False))
                    size.bytes = len(body)
                    request = Request(route.protocol, "infer", heads.content_type, body, heads.parameters)
                    # Who answers is told now, not before: while the body came, another may have taken over.
                    answer = await self._pool(route).ask(request)
                elif route is not None and route.kind == "deepaas" and self._deepaas is not None:
                    if route.model in self._expected and route.model not in self._deepaas.models:
                        raise Refused(503, f"{route.model} is being loaded")
                    answer = await self._deepaas.handle(self._http(scope, heads, receive, size))
                else:
                    if route is not None and route.kind in ("drift", "metrics"):
                        self._drift = await self._told()
                    answer = self._own(route, scope["method"], path)
            except Refused as refused:
                answer = refusal(route.protocol if route else "natural", refused.status, refused.message)
                if refused.status == 413 and not heads.asks_first:
                    await _discard(receive)
            await _send(send, answer, request_id, scope["method"], close=answer.status in (408, 413))
        finally:
            self._open -= 1
        seconds = time.perf_counter() - started
        model = (route.model or self.models.only or "") if route and route.kind in ("infer", "deepaas") else ""
        if model and self.models.get(model) is None and model not in self.models.modules:
            model = ""  # a name that a stranger made up is no label
        self._metrics.request(model, route.protocol if route else "", answer, seconds)
        if self._log is not None:
            client = scope["client"][0] if scope.get("client") else None
            asked = {"id": request_id.decode(), "client": client, "method": scope["method"], "path": path}
            self._log.add(now, asked | _outcome(answer, seconds, size.bytes))

    def _new_id(self) -> str:
        return f"{self._id_prefix}-{next(self._ids)}"

    async def _told(self) -> Drift:
        """Return what is known of the drift of every model."""
        pools = list(self.models.pools())
        told = await asyncio.gather(*(pool.drift() for pool in pools))
        found: Drift = {}
        for pool, snapshot in zip(pools, told, strict=True):
            found.setdefault(pool.settings.name, {})[pool.settings.version] = snapshot
        return found

    async def infer(
        self, route: Route, request: Request, authorization: str, *, called: str, client: str, request_id: str = ""
    ) -> Response:
        """Answer a request to a model that came by another way than HTTP.

        Parameters
        ----------
        route
            Which model.
        request
            What is asked.
        authorization
            As in HTTP's header.
        called, client, request_id
            What was called, who called, and what the request is known by, for the log.
        """
        started, now = time.perf_counter(), time.time()
        self._open += 1
        try:
            answer = await self._guarded(route, authorization)
            if answer is None:
                self._check(route)
                answer = await self._pool(route).ask(request)
        except Refused as refused:
            answer = refusal(route.protocol, refused.status, refused.message)
        finally:
            self._open -= 1
        model = (route.model or self.models.only or "") if answer.status != 404 else ""
        seconds = time.perf_counter() - started
        self._metrics.request(model, "grpc", answer, seconds)
        if self._log is not None:
            known = request_id if _REQUEST_ID.fullmatch(request_id.encode()) else self._new_id()
            asked = {"id": known, "client": client, "method": "gRPC", "path": called}
            self._log.add(now, asked | _outcome(answer, seconds, len(request.body)))
        return answer

    async def tell(self, route: Route, authorization: str) -> Response:
        """Answer a question about a model that came by another way than HTTP."""
        try:
            return await self._guarded(route, authorization) or self._answers[route.kind](route)
        except Refused as refused:
            return refusal(route.protocol, refused.status, refused.message)

    async def _guarded(self, route: Route | None, authorization: str) -> Response | None:
        """Return why somebody may not ask; nothing where they may."""
        if self._guard is None or (route is not None and route.kind in _FOR_ALL):
            return None
        try:
            await self._guard.check(authorization)
        except Refused as denied:
            answer = refusal(route.protocol if route else "natural", denied.status, denied.message)
            headers = {"www-authenticate": "Bearer"} if denied.status == 401 else answer.headers
            return Response(answer.status, answer.content_type, answer.body, headers)
        return None

    def _route(self, path: str) -> Route | None:
        try:
            return self._routes[path]
        except KeyError:
            route = find_route(path, self._protocols)
            if len(self._routes) < _MOST_ROUTES:
                self._routes[path] = route
            return route

    def _check(self, route: Route) -> None:
        """Refuse what will not be answered before its body is read."""
        self._admit()
        self._named(route)

    def _admit(self) -> None:
        if self.draining:
            raise Refused(503, "the server is stopping")
        if self._open > self._limits.requests:
            raise Refused(503, f"the server has {self._limits.requests} requests already")

    def _pool(self, route: Route) -> Pool:
        """Return who answers, or say why nobody does."""
        pool = self._named(route).version(route.version)
        assert pool is not None, "the version is there"
        return pool

    def _named(self, route: Route) -> Name:
        """Return the model that is asked, which has the version that is asked."""
        names = self.models.names
        if not names:
            raise Refused(503, "the models are being loaded")
        name = route.model or self.models.only
        if name is None:
            raise Refused(404, f"there are several models: ask /models/NAME/…, of {', '.join(names)}")
        found = self.models.get(name)
        if found is None:
            raise Refused(404, f"there is no model {name[:64]!r}; there are {', '.join(names)}")
        if route.version is not None and route.version not in found.entries:
            every = ", ".join(found.entries)
            raise Refused(404, f"{name} has no version {route.version[:64]!r}; there are {every}")
        return found

    def _http(self, scope: Scope, heads: _Heads, receive: Receive, size: _Size) -> HttpRequest:
        """Return a request as it came, for an API that reads bodies by itself."""
        if scope["method"] == "POST":
            self._admit()
        self._check_size(heads)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope["query_string"].decode("latin-1")
        return HttpRequest(scope["method"], scope["path"], query, headers, self._parts(receive, size))

    async def _parts(self, receive: Receive, size: _Size) -> AsyncIterator[bytes]:
        until = time.monotonic() + self._limits.slow
        while True:
            message = await self._part(receive, until)
            size.bytes += len(message.get("body", b""))
            if size.bytes > self._limits.body:
                raise Refused(413, f"the body has more than the {self._limits.body} bytes that are taken")
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    def _check_size(self, heads: _Heads) -> None:
        if heads.encoded:
            raise Refused(415, "the body is compressed; send it as it is")
        if heads.length > self._limits.body:
            raise Refused(413, f"the body has {heads.length} bytes; at most {self._limits.body} are taken")

    async def _body(self, heads: _Heads, receive: Receive, whole: bool) -> bytes:
        limit = self._limits.body
        self._check_size(heads)
        message = await self._part(receive, whole=whole)
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > limit:
                raise Refused(413, f"the body has more than the {limit} bytes that are taken")
            return body
        parts, size = [body], len(body)
        until = time.monotonic() + self._limits.slow
        while message.get("more_body"):
            message = await self._part(receive, until)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise Refused(413, f"the body has more than the {limit} bytes that are taken")
        return b"".join(parts)

    async def _part(
        self, receive: Receive, until: float | None = None, *, whole: bool = False
    ) -> MutableMapping[str, Any]:
        """Return the next part of a body; of one that is there as a whole, which is not waited for, the only one."""
        if whole:
            message = await receive()
        else:
            left = self._limits.slow if until is None else until - time.monotonic()
            try:
                async with asyncio.timeout(max(left, 0)):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"the body did not come within {self._limits.slow:g} s") from None
        if message["type"] == "http.disconnect":
            raise Refused(400, "the client went away")
        return message

    def _own(self, route: Route | None, method: str, path: str) -> Response:
        if route is None:
            raise Refused(404, f"there is nothing at {path[:100]}; GET / lists what there is")
        if method not in route.methods:
            answer = refusal(route.protocol, 405, f"{method[:20]} is not for {path[:100]}; {route.methods[0]} is")
            return Response(405, JSON, answer.body, {"allow": ", ".join(route.methods)})
        return self._answers[route.kind](route)

    def _ready(self, body: Any) -> Response:
        if self.draining:
            raise Refused(503, "the server is stopping")
        if not self.models.ready:
            raise Refused(503, "the models are not ready")
        return _json(body) if body is not None else Response(200, JSON, b"\n")

    def _index(self, _: Route) -> Response:
        listed = {
            name: {
                version: {"ready": entry.pool.ready, "weight": entry.weight, "source": str(entry.pool.settings.folder)}
                for version, entry in found.entries.items()
            }
            for name in self.models.names
            if (found := self.models.get(name))
        }
        return _json(
            {"server": "ai4sdk", "version": __version__, "models": listed, "protocols": sorted(self._protocols),
             "see": ["/openapi.json", "/metrics", "/drift", "/health/ready", "/health/live"],
             "modules": {name: {"ready": is_ready()} for name, is_ready in self.models.modules.items()},
             **(self._deepaas.index() if self._deepaas is not None else {})}
        )  # fmt: skip

    def _server(self, _: Route) -> Response:
        return _json(
            {"name": "ai4sdk", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}
        )

    def _repository(self, _: Route) -> Response:
        return _json(
            [
                {
                    "name": name,
                    "version": version,
                    "state": "READY" if entry.pool.ready else "UNAVAILABLE",
                    "reason": "",
                }
                for name in self.models.names
                if (found := self.models.get(name))
                for version, entry in found.entries.items()
            ]
        )

    def _mlflow_version(self, _: Route) -> Response:
        from importlib.metadata import version

        return Response(200, "text/plain", version("mlflow").encode())

    def _model(self, route: Route) -> Response:
        pool = self._described(route)
        contract = pool.facts["contract"]
        found = self.models.get(route.model or "")
        assert found is not None
        body = {
            "name": route.model,
            "versions": list(found.entries),
            "platform": "ai4sdk_torch",
            "inputs": [_tensor(spec) for spec in contract["inputs"]],
            "outputs": [_tensor(spec) for spec in contract["outputs"]],
        }
        if route.protocol == "natural":
            known = pool.facts["description"]
            body |= {"task": contract["task"], "class_names": contract["class_names"], "form": contract["form"]}
            body |= {"rate": contract["rate"]} if contract["form"] == "audio" else {}
            body |= {name: known[name] for name in ("run", "plan", "scores", "weights_sha256")}
        return _json(body)

    def _model_ready(self, route: Route) -> Response:
        pool = self._described(route)
        if not pool.ready:
            raise Refused(503, f"{route.model} is not ready")
        return _json({"name": route.model, "ready": True})

    def _described(self, route: Route) -> Pool:
        """Return the version that is asked about; without one named, the first."""
        entries = self._named(route).entries
        return (entries[route.version] if route.version else next(iter(entries.values()))).pool


def _heads(headers: list[tuple[bytes, bytes]]) -> _Heads:
    heads = _Heads()
    for name, value in headers:
        if name == b"content-type":
            heads.content_type = value.decode("latin-1")
        elif name == b"content-length":
            heads.length = int(value) if value.isdigit() and len(value) < 19 else NO_LENGTH
        elif name == b"x-request-id":
            heads.request_id = value if _REQUEST_ID.fullmatch(value) else b""
        elif name == b"authorization":
            heads.authorization = value.decode("latin-1")
        elif name == b"expect":
            heads.asks_first = value.lower() == b"100-continue"
        elif name == b"content-encoding":
            heads.encoded = value.lower() not in (b"", b"identity")
        elif name == _HEADER_LENGTH:
            heads.parameters[HEADER_LENGTH] = value.decode("latin-1")
    return heads


def _outcome(answer: Response, seconds: float, size: int) -> dict[str, Any]:
    """Return what the access log says of an answer, beside who asked for what."""
    return {"status": answer.status, "ms": round(seconds * 1000, 3), "in": size, "out": len(answer.body), **answer.by}


async def _discard(receive: Receive) -> None:
    """Read on for a while: a client whose connection is closed while it sends never sees the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_FOR):
            while (await receive()).get("more_body"):
                pass


async def _send(send: Send, answer: Response, request_id: bytes, method: str, *, close: bool) -> None:
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-request-id", request_id),
    ]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    if answer.by:
        headers.append((b"x-model-version", answer.by["version"].encode()))
    if close:  # what else comes of this request is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})


def _tensor(spec: dict[str, Any]) -> dict[str, Any]:
    return {"name": spec["name"], "datatype": spec["datatype"], "shape": list(spec["shape"])}


def _json(value: Any) -> Response:
    return Response(200, JSON, json.dumps(value, ensure_ascii=False).encode())
