"""Hostile clients: what is not a site's own business is refused, whoever asks, and the federation goes on."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, RecordDict
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_object_tree

from ai4sdk.errors import EnvironmentFault
from ai4sdk.federated.app import SITE
from ai4sdk.federated.deploy.certificates import load_or_make_key, public_pem
from ai4sdk.federated.deploy.client import Forgotten, Refused, SiteClient, Unreachable
from tests.federated.deployed import Deployed, code_of, deployed
from tests.federated.noop import app_of

STATUS = grpc.StatusCode


def nothing() -> None:
    return


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Deployed]:
    with deployed(tmp_path, 2) as found:
        yield found


def stub(coordinator: Deployed) -> tuple[FleetStub, grpc.Channel]:
    """Return what calls the Fleet API with nothing of what a site has but the authority's certificate."""
    authority = grpc.ssl_channel_credentials((coordinator.folder / "tls/ca.pem").read_bytes())
    channel = grpc.secure_channel(f"localhost:{coordinator.port}", authority)
    return FleetStub(channel), channel


def signed(
    key: ec.EllipticCurvePrivateKey, token: str | None, when: datetime.datetime | None = None, told: str | None = None
) -> list[tuple[str, Any]]:
    text = told or (when or datetime.datetime.now(datetime.UTC)).isoformat()
    metadata: list[tuple[str, Any]] = [("authorization", f"Bearer {token}")] if token is not None else []
    return [
        *metadata,
        ("flwr-public-key-bin", public_pem(key)),
        ("flwr-timestamp", text),
        ("flwr-signature-bin", key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))),
    ]


def test_there_is_no_connection_without_tls_or_with_another_authority(coordinator: Deployed, tmp_path: Path) -> None:
    plain = FleetStub(grpc.insecure_channel(f"127.0.0.1:{coordinator.port}"))
    status, _ = code_of(plain.PullMessages, PullMessagesRequest(), timeout=5)
    assert status is STATUS.UNAVAILABLE
    other = tmp_path / "other"
    from ai4sdk.federated.deploy.certificates import write_certificates

    write_certificates(other, ["localhost"])
    key = load_or_make_key(tmp_path / "site-1.key")
    with (
        SiteClient(
            f"localhost:{coordinator.port}", (other / "ca.pem").read_bytes(), coordinator.tokens["site-1"], key
        ) as client,
        pytest.raises(Unreachable, match=r"(?i)certificate|handshake|connect"),
    ):
        client.terms()
    assert coordinator.registry.entries()[0].key is None  # nothing of it arrived


def test_a_key_without_a_token_and_a_token_without_a_key_are_nobody(coordinator: Deployed, tmp_path: Path) -> None:
    fleet, channel = stub(coordinator)
    key, token = load_or_make_key(tmp_path / "stranger.key"), coordinator.tokens["site-1"]
    request = ActivateNodeRequest(public_key=public_pem(key), heartbeat_interval=30)
    with channel:
        assert code_of(fleet.ActivateNode, request) == (STATUS.UNAUTHENTICATED, "no valid token")
        for metadata in (signed(key, None), signed(key, "x"), [("authorization", f"Basic {token}")]):
            assert code_of(fleet.ActivateNode, request, metadata=metadata) == (STATUS.UNAUTHENTICATED, "no valid token")
        bare = [("authorization", f"Bearer {token}")]
        assert code_of(fleet.ActivateNode, request, metadata=bare) == (STATUS.UNAUTHENTICATED, "no signature")
        forged = [(name, b"x" if name == "flwr-signature-bin" else value) for name, value in signed(key, token)]
        assert code_of(fleet.ActivateNode, request, metadata=forged)[0] is STATUS.UNAUTHENTICATED
        other = ec.generate_private_key(ec.SECP256R1())
        assert code_of(fleet.ActivateNode, request, metadata=signed(other, token))[0] is STATUS.UNAUTHENTICATED
    assert all(entry.key is None for entry in coordinator.registry.entries())


def test_the_old_way_of_the_platforms_clients_is_refused(coordinator: Deployed) -> None:
    """They put the token under another name, sign nothing, and call a service that is gone."""
    _, channel = stub(coordinator)
    with channel:
        join = channel.stream_stream("/flwr.proto.FlowerService/Join")
        token = coordinator.tokens["site-1"]
        with pytest.raises(grpc.RpcError) as caught:
            next(join(iter([b""]), metadata=[("x-authorization", f"Bearer {token}")], timeout=5))
        assert caught.value.code() is STATUS.UNAUTHENTICATED


def test_a_token_that_expired_or_belongs_to_another_key_admits_nobody(coordinator: Deployed) -> None:
    _, expired = coordinator.registry.issue("site-1", -1)
    with coordinator.client("site-1", token=expired) as client, pytest.raises(Refused, match="expired"):
        client.activate()
    with coordinator.client("site-1") as client:
        client.activate()
    with coordinator.client("site-1", key="thief") as client, pytest.raises(Refused, match="another key"):
        client.activate()
    with coordinator.client("site-2", key="site-1") as client, pytest.raises(Refused, match="another site's"):
        client.activate()


def test_a_request_is_not_taken_twice_nor_long_after_it_was_made(coordinator: Deployed, tmp_path: Path) -> None:
    fleet, channel = stub(coordinator)
    key, token = load_or_make_key(tmp_path / "site-1.key"), coordinator.tokens["site-1"]
    request = ActivateNodeRequest(public_key=public_pem(key), heartbeat_interval=30)
    now = datetime.datetime.now(datetime.UTC)
    with channel:
        once = signed(key, token, now)
        assert code_of(fleet.ActivateNode, request, metadata=once)[0] is STATUS.OK
        assert code_of(fleet.ActivateNode, request, metadata=once) == (
            STATUS.UNAUTHENTICATED,
            "the request was made before",
        )
        again = signed(key, token, now)  # another signature of the same time
        assert code_of(fleet.ActivateNode, request, metadata=again)[1] == "the request was made before"
        otherwise = signed(key, token, told=now.isoformat().replace("T", " "))  # the same time, written otherwise
        assert code_of(fleet.ActivateNode, request, metadata=otherwise)[0] is STATUS.UNAUTHENTICATED
        for seconds, way in ((-400, "behind"), (400, "ahead")):
            late = signed(key, token, now + datetime.timedelta(seconds=seconds))
            status, why = code_of(fleet.ActivateNode, request, metadata=late)
            assert status is STATUS.UNAUTHENTICATED
            assert way in why


def test_a_site_registers_no_nodes_and_submits_no_runs(coordinator: Deployed, tmp_path: Path) -> None:
    fleet, channel = stub(coordinator)
    key, token = load_or_make_key(tmp_path / "site-1.key"), coordinator.tokens["site-1"]
    before = len(coordinator.link._link.nodes)
    with channel:
        register = RegisterNodeFleetRequest(public_key=public_pem(load_or_make_key(tmp_path / "more.key")))
        assert code_of(fleet.RegisterNode, register, metadata=signed(key, token))[0] is STATUS.PERMISSION_DENIED
        assert code_of(fleet.RegisterNode, register)[0] is STATUS.UNAUTHENTICATED
        remove = UnregisterNodeFleetRequest(node_id=1)
        assert code_of(fleet.UnregisterNode, remove, metadata=signed(key, token))[0] is STATUS.PERMISSION_DENIED
        for path in (
            "/flwr.proto.Control/StartRun",
            "/flwr.proto.Control/ListRuns",
            "/flwr.proto.ServerAppIo/PushMessages",
            "/flwr.proto.Runtime/PushMessages",
            "/flwr.proto.Fleet/GetFab",
            "/flwr.proto.Fleet/GetRun",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ):
            call = channel.unary_unary(path, request_serializer=StartRunRequest.SerializeToString)
            assert code_of(call, StartRunRequest())[0] is STATUS.UNAUTHENTICATED
            status, why = code_of(call, StartRunRequest(), metadata=signed(key, token))
            assert (status, why) == (STATUS.PERMISSION_DENIED, "sites may not call this")
    assert len(coordinator.link._link.nodes) == before
    assert len(coordinator.link._link.run_ids) == 1


def test_a_site_cannot_act_as_another(coordinator: Deployed) -> None:
    with coordinator.client("site-1") as one, coordinator.client("site-2") as two:
        own, others = one.activate(), two.activate()
        one.node = Node(node_id=others)
        for attempt in (lambda: one.pull(nothing), one.heartbeat, one.deactivate):
            with pytest.raises(Refused, match="another site's node"):
                attempt()
        one.node = Node(node_id=12345)
        with pytest.raises(Forgotten):
            one.heartbeat()
        one.node = Node(node_id=own)
        other_key = two._public
        with pytest.raises(Refused, match="the key is not the site's"):
            one._call(one._stub.ActivateNode, ActivateNodeRequest(public_key=other_key, heartbeat_interval=30))
        with pytest.raises(Refused, match="another site's node"):
            one._call(one._stub.DeactivateNode, DeactivateNodeRequest(node_id=others))


def test_messages_of_another_site_are_neither_read_nor_answered(coordinator: Deployed) -> None:
    import threading

    server = coordinator.server(retries=0, evaluate="none")
    with coordinator.client("site-1") as hostile, coordinator.client("site-2") as honest:
        for client in (hostile, honest):
            client.activate()
        done: list[Any] = []
        rounds = threading.Thread(target=lambda: done.append(server.round()))
        rounds.start()
        ours, theirs = hostile.pull(nothing), honest.pull(nothing)
        assert ours is not None
        assert theirs is not None
        run, node = ours.metadata.run_id, int(hostile.node.node_id)

        head = PullObjectRequest(node=hostile.node, run_id=run, object_id=theirs.metadata.message_id)
        with pytest.raises(Forgotten, match="no part of a message to this site"):
            hostile._call(hostile._stub.PullObject, head)
        confirm = ConfirmMessageReceivedRequest(
            node=hostile.node, run_id=run, message_object_id=theirs.metadata.message_id
        )
        with pytest.raises(Forgotten, match="no message to this site"):
            hostile._call(hostile._stub.ConfirmMessageReceived, confirm)

        forged = app_of()(theirs, Context(run, node, {SITE: "site-1"}, RecordDict(), {}))
        with pytest.raises(Forgotten, match="nobody waits"):
            hostile.push(forged)
        answer = app_of()(ours, Context(run, node, {SITE: "site-1"}, RecordDict(), {}))
        answer.metadata.__dict__["_src_node_id"] = int(honest.node.node_id)
        with pytest.raises(Refused, match="no message of this site"):
            hostile.push(answer)
        part = PushObjectRequest(node=hostile.node, run_id=run, object_id="0" * 64, object_content=b"x", session_id="")
        with pytest.raises(Forgotten, match="no part of an answer"):
            hostile._call(hostile._stub.PushObject, part)
        two_heads = PushMessagesRequest(node=hostile.node)
        with pytest.raises(Refused, match="one message at a time"):
            hostile._call(hostile._stub.PushMessages, two_heads)

        good = app_of()(ours, Context(run, node, {SITE: "site-1"}, RecordDict(), {}))
        hostile.push(good)
        with pytest.raises(Forgotten, match="nobody waits"):
            hostile.push(app_of()(ours, Context(run, node, {SITE: "site-1"}, RecordDict(), {})))
        honest.push(app_of()(theirs, Context(run, int(honest.node.node_id), {SITE: "site-2"}, RecordDict(), {})))
        rounds.join(10)
    assert list(done[0].answered) == ["site-1", "site-2"]


def test_huge_requests_and_huge_answers_cost_their_sender_the_round_only(coordinator: Deployed) -> None:
    import threading

    server = coordinator.server(retries=0, evaluate="none", min_sites=1)
    coordinator.join("site-2")
    with coordinator.client("site-1") as hostile:
        hostile.activate()
        assert coordinator.grid.gather(2)
        done: list[Any] = []
        rounds = threading.Thread(target=lambda: done.append(server.round()))
        rounds.start()
        message = hostile.pull(nothing)
        assert message is not None
        run, node = message.metadata.run_id, int(hostile.node.node_id)
        huge = PushObjectRequest(node=hostile.node, run_id=run, object_id="0" * 64, object_content=b"x" * 9 * 2**20)
        with pytest.raises(Refused, match="larger than max"):
            hostile._call(hostile._stub.PushObject, huge)
        from ai4sdk.federated.answers import ARRAYS
        from ai4sdk.federated.weights import to_record

        def grow(site: str, number: int, answer: RecordDict) -> None:
            import numpy as np

            answer[ARRAYS] = to_record({"w": np.zeros(2**20, np.float32)})

        answer = app_of(grow)(message, Context(run, node, {SITE: "site-1"}, RecordDict(), {}))
        with pytest.raises(Refused, match="its answer is larger"):
            hostile.push(answer)
        rounds.join(15)
    assert list(done[0].answered) == ["site-2"]
    assert "larger than" in done[0].refused["site-1"]


def test_bytes_that_are_no_answer_are_refused(coordinator: Deployed) -> None:
    import threading

    server = coordinator.server(retries=0, evaluate="none", min_sites=1)
    coordinator.join("site-2")
    with coordinator.client("site-1") as hostile:
        hostile.activate()
        assert coordinator.grid.gather(2)
        done: list[Any] = []
        rounds = threading.Thread(target=lambda: done.append(server.round()))
        rounds.start()
        message = hostile.pull(nothing)
        assert message is not None
        node = int(hostile.node.node_id)
        answer = app_of()(message, Context(message.metadata.run_id, node, {SITE: "site-1"}, RecordDict(), {}))
        tree = get_object_tree(answer)
        from flwr.app.message.message import remove_content_from_message
        from flwr.common.serde import message_to_proto

        del tree.children[:]  # the head alone: what it refers to is missing
        answer.metadata.__dict__["_message_id"] = tree.object_id
        head = PushMessagesRequest(
            node=hostile.node,
            messages_list=[message_to_proto(remove_content_from_message(answer))],
            message_object_trees=[tree],
        )
        response = hostile._call(hostile._stub.PushMessages, head)
        part = PushObjectRequest(
            node=hostile.node,
            run_id=message.metadata.run_id,
            object_id=tree.object_id,
            object_content=answer.deflate(),
            session_id=response.session_id,
        )
        assert hostile._call(hostile._stub.PushObject, part).stored
        rounds.join(15)
    assert "cannot be read" in done[0].refused["site-1"]


def test_a_token_that_is_revoked_while_its_site_waits_gets_no_more_messages(coordinator: Deployed) -> None:
    server = coordinator.server(min_sites=1, retries=0, evaluate="none")
    for site in coordinator.names:
        coordinator.join(site)
    coordinator.grid.gather(2)
    assert set(server.round().answered) == {"site-1", "site-2"}
    coordinator.registry.revoke(coordinator.registry.entries()[0].id)
    record = server.round()
    assert list(record.answered) == ["site-2"]
    coordinator.threads[0].join(10)
    error = coordinator.errors["site-1"]
    assert isinstance(error, EnvironmentFault)
    assert "the token is revoked" in str(error)


def test_strangers_who_knock_and_say_no_more_keep_nobody_out(coordinator: Deployed) -> None:
    """Each of them would keep a thread of the server waiting, if it waited for what they were to say."""
    silent = threading.Event()

    def nothing_yet() -> Iterator[bytes]:
        silent.wait(60)
        yield b""

    channel = stub(coordinator)[1]
    with channel, coordinator.client("site-1") as site:
        begin = channel.stream_unary("/flwr.proto.Fleet/PullMessages")
        knocks = [begin.future(nothing_yet(), timeout=60) for _ in range(300)]
        try:
            assert {knock.code() for knock in knocks} == {STATUS.UNAUTHENTICATED}
            assert site.terms()["site"] == "site-1"
        finally:
            silent.set()


def test_no_token_is_ever_logged(coordinator: Deployed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with coordinator.client("site-1") as client, coordinator.client("site-1", token="wrong") as other:
        client.activate()
        client.deactivate()
        with pytest.raises(Refused):
            other.activate()
    assert caplog.records
    for token in (*coordinator.tokens.values(), "Bearer"):
        assert token not in caplog.text
