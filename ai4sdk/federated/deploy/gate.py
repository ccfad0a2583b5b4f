"""The gate in front of the SuperLink: who may pass, and to what.

Every request carries a bearer token and, as Flower's own nodes do, a public key with a signed time. The gate looks at
these before anything of the request is read, lets a site call only what a site needs, and only as itself.
"""

from __future__ import annotations

import contextvars
import datetime
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER

from ai4sdk.errors import EnvironmentFault
from ai4sdk.federated.deploy.certificates import read_public_key, signed_by
from ai4sdk.federated.deploy.tokens import Entry, NotAdmitted, Registry

__all__ = ["ALLOWED", "TERMS", "TOKEN_HEADER", "TOLERANCE", "Gate", "Nodes"]

log = logging.getLogger(__name__)

FLEET = "/flwr.proto.Fleet/"
TERMS = "/ai4sdk.Federation/Terms"
ALLOWED = frozenset(
    {TERMS}
    | {
        f"{FLEET}{name}"
        for name in (
            *("ActivateNode", "DeactivateNode", "SendNodeHeartbeat", "PullMessages", "PushMessages"),
            *("PullObject", "PushObject", "ConfirmMessageReceived"),
        )
    }
)
"""What a site needs. Not registering nodes, not runs or their code, and nothing of the server app's or of control."""

TOKEN_HEADER = "authorization"
TOLERANCE = 300.0
"""Seconds by which a site's clock may be wrong."""

_TOLD_AGAIN = 30.0
"""Seconds after which the same refusal is logged again: strangers must not fill the disk."""


class Nodes(Protocol):
    """Who knows which node a site is."""

    def node_of(self, entry: Entry) -> int:
        """Return the node of an admitted site."""
        ...

    def is_node(self, number: int) -> bool:
        """Tell whether there is such a node."""
        ...

    def heard_of(self, node: int) -> None:
        """Take note that a site was heard of just now."""
        ...


@dataclass
class _Times:
    """Signed times of a key: the latest, and those near it."""

    latest: float = 0.0
    used: dict[str, float] = field(default_factory=dict)


class Gate(grpc.ServerInterceptor):  # type: ignore[misc] # grpc has no types
    """Refuses whatever is not a site's own business.

    Parameters
    ----------
    registry
        The tokens.
    nodes
        Knows which node a site is.
    """

    def __init__(self, registry: Registry, nodes: Nodes) -> None:
        self._registry, self._nodes = registry, nodes
        self._times: dict[str, _Times] = {}
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}
        self._entry: contextvars.ContextVar[Entry] = contextvars.ContextVar("entry")

    @property
    def entry(self) -> Entry:
        """Whose request this thread is at."""
        return self._entry.get()

    def still_admitted(self, context: grpc.ServicerContext) -> None:
        """End a request that has waited, and whose token was revoked or has expired meanwhile."""
        try:
            self._registry.still(self.entry.id)
        except NotAdmitted as error:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """Let a request pass, or answer it with a refusal."""
        method = handler_call_details.method
        try:
            entry = self._admit(dict(handler_call_details.invocation_metadata))
        except NotAdmitted as error:
            self._tell(f"refused {method[:_LONG]}: {error}")
            return _refusal(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except EnvironmentFault as error:
            log.error("%s", error)
            return _refusal(grpc.StatusCode.UNAVAILABLE, "the coordinator cannot read its tokens")
        handler = continuation(handler_call_details) if method in ALLOWED else None
        if handler is None:
            self._tell(f"refused {method[:_LONG]} to {entry.site}: not for sites")
            return _refusal(grpc.StatusCode.PERMISSION_DENIED, "sites may not call this")
        return self._as_itself(handler, entry, method)

    def _admit(self, metadata: dict[str, Any]) -> Entry:
        kind, _, token = str(metadata.get(TOKEN_HEADER, "")).partition(" ")
        if kind.lower() != "bearer" or not token:
            raise NotAdmitted("no valid token")
        entry = self._registry.find(token)
        pem, signature = metadata.get(PUBLIC_KEY_HEADER), metadata.get(SIGNATURE_HEADER)
        told = metadata.get(TIMESTAMP_HEADER)
        if not (isinstance(pem, bytes) and isinstance(signature, bytes) and isinstance(told, str)):
            raise NotAdmitted("no signature")
        if entry.key is not None and entry.key.encode() != pem:
            raise NotAdmitted("the token belongs to another key")
        try:
            key, at = read_public_key(pem), datetime.datetime.fromisoformat(told)
            behind = time.time() - at.timestamp()
        except (ValueError, OverflowError):
            raise NotAdmitted("no signature") from None
        if not signed_by(key, signature, told.encode()):
            raise NotAdmitted("a wrong signature")
        if abs(behind) > TOLERANCE:
            way = "behind" if behind > 0 else "ahead"
            raise NotAdmitted(f"the time of the request is wrong: the site's clock is {abs(behind):.0f} s {way}")
        if at.tzinfo is None or at.isoformat() != told:
            raise NotAdmitted("no signature")
        if entry.key is None:
            entry = self._registry.bind(entry.id, pem.decode())
            log.info("%s: the key %s is bound to the token %s", entry.site, entry.fingerprint, entry.id)
        self._only_once(entry, told, at.timestamp())
        return entry

    def _only_once(self, entry: Entry, told: str, at: float) -> None:
        """Refuse a time that was used already, or is long before others of the same key: nobody signs one twice."""
        assert entry.key is not None  # bound by now
        with self._lock:
            times = self._times.setdefault(entry.key, _Times())
            if told in times.used or at <= times.latest - _OUT_OF_ORDER:
                raise NotAdmitted("the request was made before")
            times.used[told] = at
            times.latest = max(times.latest, at)
            while (oldest := next(iter(times.used))) != told and times.used[oldest] <= times.latest - _OUT_OF_ORDER:
                del times.used[oldest]

    def _as_itself(self, handler: grpc.RpcMethodHandler, entry: Entry, method: str) -> grpc.RpcMethodHandler:
        """Have a request handled if it names the node that the site is."""

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            self._entry.set(entry)
            if method == TERMS:
                return handler.unary_unary(request, context)
            own = self._nodes.node_of(entry)
            if method == f"{FLEET}ActivateNode":
                assert entry.key is not None
                if request.public_key != entry.key.encode():
                    self._deny(context, method, "the key is not the site's")
            else:
                named = request.node.node_id if hasattr(request, "node") else request.node_id
                if named != own and not self._nodes.is_node(named):
                    context.abort(grpc.StatusCode.NOT_FOUND, "there is no such node; activate it again")
                if named != own:
                    self._deny(context, method, "it is another site's node")
            self._nodes.heard_of(own)
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _deny(self, context: grpc.ServicerContext, method: str, why: str) -> None:
        self._tell(f"refused {method} to {self.entry.site}: {why}")
        context.abort(grpc.StatusCode.PERMISSION_DENIED, why)

    def _tell(self, line: str) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._told.get(line, -_TOLD_AGAIN) < _TOLD_AGAIN or len(self._told) > _MANY:
                return
            self._told[line] = now
        log.warning("%s", line)


_OUT_OF_ORDER = 60.0
"""Seconds by which requests of a site may overtake each other."""
_MANY = 20_000
"""Different refusals that are logged."""
_LONG = 100
"""Characters of a stranger's method that are logged."""


def _refusal(code: grpc.StatusCode, why: str) -> grpc.RpcMethodHandler:
    """Return what refuses at once: a handler of one message would keep a thread waiting for it."""

    def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        context.abort(code, why)
        raise AssertionError("abort raises")

    return grpc.stream_unary_rpc_method_handler(refuse)
