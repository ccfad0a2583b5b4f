"""Flower's SuperLink within the coordinator's process: its state, its object store and its Fleet API, behind the gate.

The Fleet API is as Flower serves it, but for three things. A site that asks for messages is answered when there is one,
which saves both sides from polling. A message is delivered again to a site that asks for another while it owes the
answer: it was restarted, or the connection broke. And objects pass only if they belong to a message of that site.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from flwr.app import Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.fleet_pb2_grpc import add_FleetServicer_to_server
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RpcErrorTranslationServerInterceptor
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager

from ai4sdk.errors import EnvironmentFault
from ai4sdk.federated.deploy.agreement import ALIKE
from ai4sdk.federated.deploy.gate import TERMS, Gate
from ai4sdk.federated.deploy.tokens import Entry, Registry

__all__ = ["MOST_BYTES", "Letter", "SuperLink"]

log = logging.getLogger(__name__)

MOST_BYTES = 8 * 2**20
"""Largest single request; Flower cuts arrays into parts of 5 MiB."""

_POLL = 20.0
"""Longest time that a site waits for a message before it asks again."""
_LOOK = 1.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NOT_NOW = grpc.StatusCode.FAILED_PRECONDITION
"""For what may be of a message that was given up: an honest site then joins again."""


@dataclass
class Letter:
    """A message to a site, and what came of it."""

    message: Message
    objects: set[str]
    most_bytes: int
    answer_id: str | None = None
    answer_objects: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    got_bytes: int = 0
    done: bool = False
    problem: str | None = None


class _Always:
    """What Flower calls a factory: it gives out one thing."""

    def __init__(self, thing: Any) -> None:
        self.state = self.store = lambda: thing


class SuperLink(FleetServicer):
    """Messages to sites and back.

    Parameters
    ----------
    registry
        The tokens.
    terms
        What sites agree to, as JSON values.
    gone_after
        Seconds of silence after which a site is taken to be gone.
    """

    def __init__(self, registry: Registry, terms: Mapping[str, Any], gone_after: float) -> None:
        store = InMemoryObjectStore()
        self._link, self._store = InMemoryLinkState(NoOpFederationManager(), store), store
        super().__init__(_Always(self._link), _Always(store), enable_supernode_auth=True)  # type: ignore[arg-type]
        self._registry, self._terms, self._gone_after = registry, dict(terms), gone_after
        self.gate = Gate(registry, self)
        self.changed = threading.Condition()
        self._letters: dict[int, Letter] = {}
        self._nodes: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._active: set[int] = set()
        self._heard: dict[int, float] = {}
        self._told_end: set[int] = set()
        self._names: dict[str, tuple[str, str]] = {}
        """What must be alike → digest of its names, and the site that told it first."""
        self._ended: str | None = None
        self._server: grpc.Server | None = None
        self.run_id = self._begin_run()
        for entry in registry.entries():
            if entry.key is not None:
                self.node_of(entry)

    def _begin_run(self) -> int:
        """Have the state know of a run, whose server app is this process."""
        run_id = self._link.create_run(
            *(None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID),
            primary_task_type=TaskType.SERVER_APP,
        )
        (run,) = self._link.get_run_info(run_ids=[run_id])
        task = run.primary_task_id
        assert task is not None
        self._link.claim_task(task)
        self._link.activate_task(task)
        self._link.task_token_store.pop(task, None)  # a task without a token is not expected to send heartbeats
        return run_id

    # Who is there

    def node_of(self, entry: Entry) -> int:
        """Return the node of a site; one is made for a key that is new."""
        assert entry.key is not None
        with self.changed:
            if entry.key not in self._keys:
                self._keys[entry.key] = self._link.create_node(
                    NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, entry.key.encode(), 0, name=entry.site
                )
                self._nodes.setdefault(entry.site, self._keys[entry.key])  # a new key's, when it joins
            return self._keys[entry.key]

    def is_node(self, number: int) -> bool:
        """Tell whether there is such a node."""
        return number in self._keys.values()

    def heard_of(self, node: int) -> None:
        """Take note that a site was heard of just now."""
        self._heard[node] = time.monotonic()

    def nodes(self) -> dict[str, int]:
        """Return site → node of all sites that were ever there, in the order of their first tokens."""
        with self.changed:
            return {site: self._nodes[site] for site in self._registry.sites() if site in self._nodes}

    def is_up(self, node: int) -> bool:
        """Tell whether a site has joined, was heard of a moment ago, and is still admitted."""
        if node not in self._active or time.monotonic() - self._heard.get(node, 0.0) >= self._gone_after:
            return False
        return self._is_admitted(node)

    def _is_admitted(self, node: int) -> bool:
        now = time.time()
        return any(
            entry.state(now) == "valid" and entry.key is not None and self._keys.get(entry.key) == node
            for entry in self._registry.entries()
        )

    # Serving

    def start(self, address: str, certificate: bytes, key: bytes) -> int:
        """Listen, with TLS; return the port.

        Raises
        ------
        EnvironmentFault
            If nobody can listen there.
        """
        server = grpc.server(
            ThreadPoolExecutor(max(128, 4 * len(self._registry.sites()) + 64), "fleet"),
            interceptors=[self.gate, RpcErrorTranslationServerInterceptor()],
            options=[
                ("grpc.max_receive_message_length", MOST_BYTES),
                ("grpc.max_send_message_length", MOST_BYTES),
                ("grpc.so_reuseport", 0),  # else two coordinators could share a port, and neither would know
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ],
        )
        add_FleetServicer_to_server(self, server)
        service, _, method = TERMS[1:].partition("/")
        terms = grpc.unary_unary_rpc_method_handler(self._tell_terms)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: terms}),))
        try:
            port = server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
        except RuntimeError:
            port = 0
        if not port:
            raise EnvironmentFault(
                f"nobody can listen at {address}",
                hint="another program may have the port: --address 0.0.0.0:PORT names another",
            )
        server.start()
        self._server = server
        return int(port)

    def stop(self) -> None:
        """Stop to listen."""
        if self._server is not None:
            self._server.stop(grace=0.5).wait()

    def end(self, reason: str, patience: float = 15.0) -> None:
        """Tell sites that the federation has ended; wait a while until all know it, also those that just come back."""
        until = time.monotonic() + patience
        with self.changed:
            self._ended = reason
            self.changed.notify_all()
            while time.monotonic() < until:
                unaware = [site for site, node in self.nodes().items() if node not in self._told_end]
                unaware = [site for site in unaware if self._is_admitted(self._nodes[site])]
                if not unaware:
                    return
                self.changed.wait(0.2)
        log.warning("%s could not be told that the federation has ended", ", ".join(unaware))

    def _tell_terms(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        site = self.gate.entry.site
        with self.changed:
            for what, digest in _names(request).items():
                if self._names.get(what, (digest, site))[1] == site:  # it may come back with other data
                    self._names[what] = (digest, site)
            names = dict(self._names)
        number = self._registry.sites().index(site)
        return json.dumps(
            {**self._terms, "site": site, "number": number, "names": names, "ended": self._ended}
        ).encode()

    # The server app's side

    def send(self, messages: Iterable[Message]) -> dict[int, Letter]:
        """Have messages lie ready for their sites, one a site; return them by node."""
        letters = {}
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                tree, objects = get_object_tree(message), get_all_nested_objects(message)
                bare = message_from_proto(message_to_proto(remove_content_from_message(message)))
                session = self._link.start_session(self.run_id)
                stored, missing = self._link.store_message_and_object_tree(bare, tree, session)
                for name in missing:
                    self._link.store_object(self.run_id, session, name, objects[name].deflate())
                size = sum(len(self._store.get(name) or b"") for name in objects)
                letter = Letter(message, set(objects), 2 * size + 2**20)
                if not stored:  # Flower's log says why
                    letter.problem, letter.done = "the SuperLink takes no message to it", True
                letters[message.metadata.dst_node_id] = letter
        with self.changed:
            self._letters |= letters
            self.changed.notify_all()
        return letters

    def take(self, nodes: Iterable[int]) -> dict[int, Message | str]:
        """Return the answers of some nodes, or what is wrong with one; those that are not there are given up."""
        with self.changed:
            letters = {node: self._letters.pop(node) for node in nodes if node in self._letters}
        found: dict[int, Message | str] = {}
        for node, letter in letters.items():
            if letter.done:
                found[node] = letter.problem or self._answer(letter)
            self._remove_answer(letter)
            name = letter.message.metadata.message_id
            self._link.delete_messages({name})
            self._store.delete(name)
        return found

    def _answer(self, letter: Letter) -> Message | str:
        assert letter.answer_id is not None
        contents = {name: self._store.get(name) or b"" for name in letter.answer_objects}
        try:
            answer = inflate_object_from_contents(letter.answer_id, contents)
        except Exception as error:  # noqa: BLE001 - bytes of a site, which may be anything
            return f"its answer cannot be read: {type(error).__name__}"
        if not isinstance(answer, Message) or answer.metadata.src_node_id != letter.message.metadata.dst_node_id:
            return "its answer is no message of its own"
        return answer

    def _remove_answer(self, letter: Letter) -> None:
        name = letter.message.metadata.message_id
        with self._link.lock:
            answer = self._link.message_ins_id_to_message_res_id.pop(name, None)
            if answer is not None:
                self._link.message_res_store.pop(answer, None)
        if answer is not None:
            self._store.delete(answer)
        letter.answer_id, letter.missing, letter.answer_objects, letter.got_bytes = None, set(), [], 0

    # The sites' side: Flower's Fleet API

    def ActivateNode(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Have a site join; one that comes back takes the place of what it was before."""
        node = self.node_of(self.gate.entry)
        self._link.deactivate_node(node)
        response = super().ActivateNode(request, context)
        with self.changed:
            known = node in self._active
            self._active.add(node)
            self._nodes[self.gate.entry.site] = node
            self.changed.notify_all()
        log.info("%s %s", self.gate.entry.site, "is back" if known else "has joined")
        return response

    def DeactivateNode(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Have a site leave."""
        with self.changed:
            self._active.discard(request.node_id)
            self.changed.notify_all()
        log.info("%s has left", self.gate.entry.site)
        return super().DeactivateNode(request, context)

    def PullMessages(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Give a site its message as soon as there is one."""
        node, until = request.node.node_id, time.monotonic() + _POLL
        with self.changed:
            while (letter := self._letters.get(node)) is None or letter.done:
                if self._ended is not None:
                    self._told_end.add(node)
                    self.changed.notify_all()
                    context.abort(grpc.StatusCode.OUT_OF_RANGE, self._ended)
                if time.monotonic() >= until or not context.is_active():
                    return PullMessagesResponse()
                self.changed.wait(_LOOK)
                self.gate.still_admitted(context)
            if not context.is_active():
                return PullMessagesResponse()
            self._remove_answer(letter)  # half of one, of a site that broke off
            with self._link.lock:
                kept = self._link.message_ins_store.get(letter.message.metadata.message_id)
                if kept is not None:
                    kept.metadata.delivered_at = ""
            return super().PullMessages(request, context)

    def PullObject(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Give a site a part of its message."""
        letter = self._letters.get(request.node.node_id)
        if letter is None or request.object_id not in letter.objects or request.run_id != self.run_id:
            context.abort(_NOT_NOW, "it is no part of a message to this site")
        return super().PullObject(request, context)

    def ConfirmMessageReceived(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Take note; the message stays until its answer is there, as the site may lose it."""
        letter = self._letters.get(request.node.node_id)
        if letter is None or request.message_object_id != letter.message.metadata.message_id:
            context.abort(_NOT_NOW, "it is no message to this site")
        return ConfirmMessageReceivedResponse()

    def PushMessages(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Take the head of a site's answer to the message that it was sent."""
        node = request.node.node_id
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "a site sends one message at a time")
        about, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        with self.changed:
            letter = self._letters.get(node)
            if letter is None or about.reply_to_message_id != letter.message.metadata.message_id or letter.done:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nobody waits for this answer any more")
                raise AssertionError("abort raises")
            own = (about.src_node_id, about.dst_node_id, about.run_id) == (node, SUPERLINK_NODE_ID, self.run_id)
            if not own or about.message_id != tree.object_id:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "it is no message of this site")
            objects = [one.object_id for one in iterate_object_tree(tree)]
            if len(objects) > 4 * len(letter.objects) + 64:
                self._refuse(letter, f"its answer has {len(objects)} parts", context)
            if letter.answer_id not in (None, about.message_id):
                self._remove_answer(letter)
            response = super().PushMessages(request, context)
            stored = self._link.message_ins_id_to_message_res_id.get(letter.message.metadata.message_id)
            if stored != about.message_id:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the SuperLink does not take this message")
            letter.answer_id, letter.answer_objects = about.message_id, objects
            letter.missing = set(response.objects_to_push)
            letter.done = not letter.missing
            self.changed.notify_all()
            return response

    def PushObject(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Take a part of a site's answer."""
        letter = self._letters.get(request.node.node_id)
        if letter is None or request.object_id not in letter.missing or request.run_id != self.run_id:
            context.abort(_NOT_NOW, "it is no part of an answer of this site")
            raise AssertionError("abort raises")
        with self.changed:
            letter.got_bytes += len(request.object_content)
            if letter.got_bytes > letter.most_bytes:
                self._refuse(
                    letter, f"its answer is larger than the {letter.most_bytes:,} bytes that it may have", context
                )
        response = super().PushObject(request, context)
        with self.changed:
            if response.stored:
                letter.missing.discard(request.object_id)
                letter.done = letter.done or not letter.missing
                self.changed.notify_all()
        return response

    def _refuse(self, letter: Letter, why: str, context: grpc.ServicerContext) -> None:
        letter.problem, letter.done, letter.missing = why, True, set()
        self.changed.notify_all()
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)


def _names(request: bytes) -> dict[str, str]:
    """Return the digests of names that a site tells, where it tells any; its bytes may be anything."""
    try:
        told = json.loads(request or b"{}")
    except ValueError:
        return {}
    found = {what: told.get(what) for what in ALIKE} if isinstance(told, dict) else {}
    return {what: text for what, text in found.items() if isinstance(text, str) and _DIGEST.fullmatch(text)}
