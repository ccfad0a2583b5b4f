"""A site's connection to a coordinator: Flower's Fleet API over gRPC and TLS, outgoing only.

Requests carry the site's token and, as Flower's nodes sign them, its public key and a signed time, each of them once.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from ai4sdk.federated.deploy.certificates import public_pem

__all__ = ["Ended", "Forgotten", "Refused", "SiteClient", "Unreachable"]

_INTERVAL = 30.0
"""What the site promises as an interval between heartbeats; it sends them more often."""
_CALL, _POLL, _OBJECT = 20.0, 40.0, 300.0
"""Seconds that a call, waiting for a message, and a part of a message may take."""
_LOOK = 0.2
_MOST_BYTES = 64 * 2**20


class Unreachable(Exception):
    """The coordinator could not be reached, or the connection broke."""


class Refused(Exception):
    """The coordinator refuses the site; says why."""


class Forgotten(Exception):
    """The coordinator knows nothing of the node or the message any more: it was restarted, or went on."""


class Ended(Exception):
    """The federation has ended; says how."""


_KINDS: dict[grpc.StatusCode, type[Exception]] = {
    grpc.StatusCode.UNAUTHENTICATED: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNIMPLEMENTED: Refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Refused,
    grpc.StatusCode.NOT_FOUND: Forgotten,
    grpc.StatusCode.FAILED_PRECONDITION: Forgotten,
    grpc.StatusCode.OUT_OF_RANGE: Ended,
}


class SiteClient:
    """Speaks for a site.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the coordinator.
    ca
        Certificate that the coordinator's is signed by, in PEM.
    token, key
        What admits the site.
    """

    def __init__(self, address: str, ca: bytes, token: str, key: ec.EllipticCurvePrivateKey) -> None:
        self._channel = grpc.secure_channel(
            address,
            grpc.ssl_channel_credentials(ca),
            options=[
                ("grpc.max_receive_message_length", _MOST_BYTES),
                ("grpc.max_send_message_length", _MOST_BYTES),
                ("grpc.keepalive_time_ms", 15_000),  # so that a cut of the network is noticed
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.min_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 5_000),
            ],
        )
        self._stub = FleetStub(self._channel)
        self._terms = self._channel.unary_unary("/ai4sdk.Federation/Terms")
        self._token, self._key, self._public = token, key, public_pem(key)
        self._lock = threading.Lock()
        self._last = datetime.datetime.fromtimestamp(0, datetime.UTC)
        self.node = Node(node_id=0)

    @property
    def fingerprint(self) -> str:
        """The first digits of the SHA-256 of the site's public key, as the coordinator's list of tokens shows it."""
        return hashlib.sha256(self._public).hexdigest()[:16]

    def __enter__(self) -> SiteClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def _metadata(self) -> list[tuple[str, Any]]:
        with self._lock:  # no time twice
            self._last = max(datetime.datetime.now(datetime.UTC), self._last + datetime.timedelta(microseconds=1))
            told = self._last.isoformat()
        return [
            ("authorization", f"Bearer {self._token}"),
            (PUBLIC_KEY_HEADER, self._public),
            (TIMESTAMP_HEADER, told),
            (SIGNATURE_HEADER, self._key.sign(told.encode(), ec.ECDSA(hashes.SHA256()))),
        ]

    def _call(self, method: Callable[..., Any], request: Any, timeout: float = _CALL) -> Any:
        try:
            return method(request, timeout=timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            kind = _KINDS.get(error.code(), Unreachable)
            raise kind(_one_line(error.details() or error.code().name)) from None

    def _waiting(self, check: Callable[[], None]) -> Callable[..., Any]:
        def call(request: Any, timeout: float, metadata: Any) -> Any:
            future = self._stub.PullMessages.future(request, timeout=timeout, metadata=metadata)
            try:
                while True:
                    try:
                        return future.result(timeout=_LOOK)
                    except grpc.FutureTimeoutError:
                        check()
            finally:
                future.cancel()

        return call

    def terms(self, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what the coordinator asks sites to agree to; ``names`` are digests of names that must be alike."""
        answer = json.loads(self._call(self._terms, json.dumps(names).encode() if names else b""))
        assert isinstance(answer, dict)
        return answer

    def activate(self) -> int:
        """Join; return the site's node id."""
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=_INTERVAL)
        self.node = Node(node_id=self._call(self._stub.ActivateNode, request).node_id)
        return int(self.node.node_id)

    def deactivate(self) -> None:
        """Leave."""
        self._call(self._stub.DeactivateNode, DeactivateNodeRequest(node_id=self.node.node_id), 5.0)

    def heartbeat(self) -> None:
        """Say that the site is there."""
        request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=_INTERVAL)
        self._call(self._stub.SendNodeHeartbeat, request, 5.0)

    def pull(self, check: Callable[[], None]) -> Message | None:
        """Wait for a message, as long as the coordinator lets the site wait; nothing if there was none.

        ``check`` is called meanwhile; what it raises ends the waiting.
        """
        response = self._call(self._waiting(check), PullMessagesRequest(node=self.node), _POLL)
        if not response.messages_list:
            return None
        about, tree = response.messages_list[0].metadata, response.message_object_trees[0]
        contents: dict[str, bytes] = {}
        for name in dict.fromkeys(one.object_id for one in iterate_object_tree(tree)):
            request = PullObjectRequest(node=self.node, run_id=about.run_id, object_id=name)
            found = self._call(self._stub.PullObject, request, _OBJECT)
            if not found.object_available:
                raise Forgotten("a part of the message is gone")
            contents[name] = found.object_content
        message = inflate_object_from_contents(about.message_id, contents)
        assert isinstance(message, Message)
        message.metadata.__dict__["_message_id"] = about.message_id
        confirmed = ConfirmMessageReceivedRequest(
            node=self.node, run_id=about.run_id, message_object_id=about.message_id
        )
        self._call(self._stub.ConfirmMessageReceived, confirmed)
        return message

    def push(self, answer: Message) -> None:
        """Send an answer. It can be sent again if the connection broke."""
        with no_object_id_recompute():
            answer.metadata.__dict__["_message_id"] = answer.object_id
            objects = get_all_nested_objects(answer)
            head = PushMessagesRequest(
                node=self.node,
                messages_list=[
                    message_to_proto(remove_content_from_message(answer) if answer.has_content() else answer)
                ],
                message_object_trees=[get_object_tree(answer)],
            )
            response = self._call(self._stub.PushMessages, head)
            for name in response.objects_to_push:
                part = PushObjectRequest(
                    node=self.node,
                    run_id=answer.metadata.run_id,
                    object_id=name,
                    object_content=objects[name].deflate(),
                    session_id=response.session_id,
                )
                if not self._call(self._stub.PushObject, part, _OBJECT).stored:
                    raise Unreachable("a part of the answer was not taken")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
