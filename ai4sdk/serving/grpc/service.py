"""The gRPC service: the same models, limits, tokens and counters as over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc

from ai4sdk._version import __version__
from ai4sdk.errors import EnvironmentFault
from ai4sdk.serving.grpc.messages import METHODS, SERVICE, message
from ai4sdk.serving.grpc.tensors import Unreadable, request_of, response_of
from ai4sdk.serving.routes import Route
from ai4sdk.spec.serving import Serving

if TYPE_CHECKING:
    from ai4sdk.serving.app import App

__all__ = ["start_grpc"]

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""HTTP's status → gRPC's name."""


async def start_grpc(app: App, serving: Serving) -> tuple[Any, int]:
    """Listen.

    Returns
    -------
    tuple
        The server, whose ``stop(grace)`` ends it, and its port.

    Raises
    ------
    EnvironmentFault
        If the port cannot be had.
    """
    service = _Service(app)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(service, _snake(name)),
            request_deserializer=message(f"{name}Request").FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for name in METHODS
    }
    most = serving.limits.body
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=serving.limits.requests,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    host = f"[{serving.host}]" if ":" in serving.host else serving.host
    address = f"{host}:{serving.grpc_port}"
    try:
        if serving.tls is None:
            port = server.add_insecure_port(address)
        else:
            pair = (Path(serving.tls.key).read_bytes(), Path(serving.tls.certificate).read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except (RuntimeError, OSError) as error:
        raise EnvironmentFault(f"cannot listen at {address} for gRPC: {error}", hint="serving.grpc_port=0") from error
    await server.start()
    return server, port


class _Service:
    """Answers each method; see the protocol."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def server_live(self, asked: Any, context: Any) -> Any:
        """Tell that the server runs."""
        return message("ServerLiveResponse")(live=True)

    async def server_ready(self, asked: Any, context: Any) -> Any:
        """Tell whether every model can answer."""
        return message("ServerReadyResponse")(ready=self._app.models.ready and not self._app.draining)

    async def model_ready(self, asked: Any, context: Any) -> Any:
        """Tell whether a model can answer."""
        response = await self._described(asked, context, "model_ready")
        return message("ModelReadyResponse")(ready=response.status == 200)

    async def server_metadata(self, asked: Any, context: Any) -> Any:
        """Tell what this is."""
        return message("ServerMetadataResponse")(name="ai4sdk", version=__version__)

    async def model_metadata(self, asked: Any, context: Any) -> Any:
        """Tell what a model takes and gives."""
        response = await self._described(asked, context, "model")
        if response.status != 200:
            await self._abort(context, response)
        told = json.loads(response.body)
        return message("ModelMetadataResponse")(
            name=told["name"],
            versions=told["versions"],
            platform=told["platform"],
            inputs=told["inputs"],
            outputs=told["outputs"],
        )

    async def model_infer(self, asked: Any, context: Any) -> Any:
        """Ask a model."""
        try:
            request = request_of(asked)
        except Unreadable as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        route = Route("infer", (), "v2", asked.model_name or None, asked.model_version or None)
        response = await self._app.infer(
            route,
            request,
            _metadata(context, "authorization"),
            called=f"/{SERVICE}/ModelInfer",
            client=_client(context),
            request_id=_metadata(context, "x-request-id"),
        )
        if response.status != 200:
            await self._abort(context, response)
        return response_of(response, raw=bool(asked.raw_input_contents))

    async def _described(self, asked: Any, context: Any, kind: str) -> Any:
        route = Route(kind, (), "v2", asked.name or None, asked.version or None)
        return await self._app.tell(route, _metadata(context, "authorization"))

    async def _abort(self, context: Any, response: Any) -> None:
        code = getattr(grpc.StatusCode, _CODES.get(response.status, "UNKNOWN"))
        await context.abort(code, json.loads(response.body)["error"])


def _metadata(context: Any, name: str) -> str:
    return str(dict(context.invocation_metadata() or ()).get(name, ""))


def _client(context: Any) -> str:
    """Return the address of who calls, which gRPC tells as ``ipv4:ADDRESS:PORT`` or ``ipv6:%5BADDRESS%5D:PORT``."""
    return unquote(str(context.peer()).partition(":")[2].rpartition(":")[0]).strip("[]")


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
