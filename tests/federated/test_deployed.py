"""Real sites: the rounds of a rehearsal over TLS, with sites, a coordinator and connections that break."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from ai4sdk.errors import DataError, RunFailed, RunInterrupted
from ai4sdk.federated.app import SITE
from ai4sdk.federated.deploy.agreement import names_of, require_names_alike
from ai4sdk.federated.deploy.client import Forgotten
from ai4sdk.federated.deploy.grid import DeployedGrid
from ai4sdk.federated.deploy.questions import Questions
from ai4sdk.federated.ledger import Round
from ai4sdk.testing.helpers import wait_for
from ai4sdk.worker.signals import StopRequest
from tests.federated.deployed import deployed
from tests.federated.noop import app_of, bits, server_of


@pytest.mark.parametrize("strategy", ["fedadam", "scaffold"])
def test_the_weights_are_those_of_a_rehearsal(tmp_path: Path, strategy: str) -> None:
    alone = server_of(tmp_path / "alone", 4, strategy=strategy)
    with deployed(tmp_path) as coordinator:
        for site in reversed(coordinator.names):
            coordinator.join(site)
        server = coordinator.server(strategy=strategy)
        for _ in range(3):
            record = server.round()
            alone.round()
            assert record.answered == dict.fromkeys(coordinator.names, 10)
        assert bits(server.state) == bits(alone.state)
    assert coordinator.errors == {}


def test_a_site_that_is_killed_with_a_message_gets_it_again_when_it_is_back(tmp_path: Path) -> None:
    alone = server_of(tmp_path / "alone", 2)
    with deployed(tmp_path, 2) as coordinator:
        coordinator.join("site-2")
        with coordinator.client("site-1") as killed:  # it pulls a message, and is never heard of again
            killed.activate()
            server = coordinator.server()
            done: list[object] = []
            rounds = threading.Thread(target=lambda: done.append(server.round()))
            rounds.start()
            assert killed.pull(lambda: None) is not None
        coordinator.join("site-1")
        rounds.join(15)
        assert done == [alone.round()]
        server.round()
        alone.round()
        assert bits(server.state) == bits(alone.state)


def test_an_answer_of_which_half_arrived_is_made_again(tmp_path: Path) -> None:
    alone = server_of(tmp_path / "alone", 1)
    with deployed(tmp_path, 1) as coordinator:
        with coordinator.client("site-1") as killed:
            killed.activate()
            server = coordinator.server()
            done: list[object] = []
            rounds = threading.Thread(target=lambda: done.append(server.round()))
            rounds.start()
            message = killed.pull(lambda: None)
            assert message is not None
            answer = app_of()(message, Context(1, int(killed.node.node_id), {SITE: "site-1"}, RecordDict(), {}))
            killed._stub.PushObject = lambda *_, **__: (_ for _ in ()).throw(ConnectionError)  # type: ignore[method-assign]
            with pytest.raises(ConnectionError):
                killed.push(answer)
        coordinator.join("site-1")
        rounds.join(15)
        assert done == [alone.round()]


def test_a_coordinator_that_is_killed_goes_on_with_the_sites_that_were_there(tmp_path: Path) -> None:
    alone = server_of(tmp_path / "alone", 3, strategy="fedadam")
    with deployed(tmp_path, 3) as coordinator:
        for site in coordinator.names:
            coordinator.join(site)
        server = coordinator.server(strategy="fedadam")
        server.round()
        port = coordinator.port
        coordinator.link.stop()  # nobody is told of it
        coordinator.start(port)
        server = coordinator.server(strategy="fedadam")
        assert len(server.done) == 2
        server.round()
        for _ in range(2):
            alone.round()
        assert bits(server.state) == bits(alone.state)
    assert coordinator.errors == {}


def test_a_site_that_is_gone_is_not_waited_for_and_the_quorum_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ai4sdk.federated.deploy.serving._HEARTBEAT", 0.2)
    with deployed(tmp_path, 3, gone_after=1.0, wait=1.0, deadline=30.0) as coordinator:
        for site in ("site-1", "site-2"):
            coordinator.join(site)
        with coordinator.client("site-3") as gone:
            gone.activate()
            server = coordinator.server(min_sites=2, retries=0, evaluate="none")
            assert coordinator.grid.gather(3)
            began = time.monotonic()
            record = server.round()
        assert set(record.answered) == {"site-1", "site-2"}
        assert "gone" in record.refused["site-3"]
        assert time.monotonic() - began < 10
        assert "site-3" not in server.round().up
        coordinator.stops["site-1"].ask()  # an orderly end is known at once
        wait_for(lambda: not coordinator.threads[0].is_alive(), 10)
        with pytest.raises(RunFailed, match="0 of the 2 answers"):
            server.round()


def test_a_late_answer_is_discarded_and_the_site_takes_part_in_the_next_round(tmp_path: Path) -> None:
    slow = threading.Event()

    def change(site: str, number: int, answer: RecordDict) -> None:
        if number == 1:
            slow.wait(10)

    with deployed(tmp_path, 2, deadline=1.5) as coordinator:
        coordinator.join("site-1")
        coordinator.join("site-2", app_of(change))
        server = coordinator.server(min_sites=1, evaluate="none")
        coordinator.grid.gather(2)
        record = server.round()
        assert list(record.answered) == ["site-1"]
        assert "within 1.5 s" in record.refused["site-2"]
        slow.set()
        assert set(server.round().answered) == {"site-1", "site-2"}


def test_who_is_waited_for_is_told(tmp_path: Path) -> None:
    told: list[tuple[list[str], int]] = []
    with deployed(tmp_path, 2, wait=20.0) as coordinator:
        coordinator.grid = DeployedGrid(
            coordinator.link,
            coordinator.settings,
            StopRequest(),
            tell=lambda there, needed: told.append((there, needed)),
        )
        gathering = threading.Thread(target=coordinator.grid.gather, args=(2,))
        gathering.start()
        for number, site in enumerate(("site-2", "site-1"), 1):
            wait_for(lambda number=number: len(told) == number, 10)  # type: ignore[misc]
            coordinator.join(site)
        gathering.join(10)
        assert coordinator.grid.gather(1) == ["site-1", "site-2"]
    assert told == [([], 2), (["site-2"], 2), (["site-1", "site-2"], 2)], "nothing where nobody is waited for"


def test_sites_whose_classes_or_inputs_have_other_names_are_told(tmp_path: Path) -> None:
    ours, mixed = names_of(["no", "yes"], ["age", "sex=f"]), names_of(["no", "yes"], ["sex=f", "age"])
    assert names_of(None, ["age"]).keys() == {"inputs"}
    with deployed(tmp_path, 2) as coordinator, coordinator.client("site-1") as one, coordinator.client("site-2") as two:
        assert one.terms()["names"] == {}
        require_names_alike(one.terms(mixed)["names"], mixed)
        with pytest.raises(DataError, match="the inputs of this site's data are not those of site-1"):
            require_names_alike(two.terms(ours)["names"], ours)
        require_names_alike(one.terms(ours)["names"], ours)  # it has changed its data, and comes back
        require_names_alike(two.terms(ours)["names"], ours)
        for nonsense in ({"inputs": "age, sex"}, {"inputs": 3}, {"files": ours["inputs"]}, ["inputs"], "x"):
            assert two.terms(nonsense)["names"] == one.terms()["names"]  # type: ignore[arg-type] # as a stranger might


def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    with deployed(tmp_path, 2, wait=0.5) as coordinator:
        server = coordinator.server(min_sites=1, retries=1)
        with pytest.raises(RunFailed, match="round 1: 0 of the 1 answers that it needs, after 2 tries"):
            server.round()
        coordinator.join("site-1", patience=1.0)
        coordinator.grid.gather(1)
        coordinator.link.stop()
        coordinator.threads[0].join(20)
        error = coordinator.errors["site-1"]
        assert isinstance(error, RunInterrupted)
        assert "out of reach" in str(error)
        coordinator.start(coordinator.port)


def test_what_a_site_says_of_an_error_is_its_kind_only(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        raise ValueError("Jane Doe, born 1961")

    with deployed(tmp_path, 1) as coordinator:
        coordinator.join("site-1", app_of(change))
        server = coordinator.server(retries=0)
        with pytest.raises(RunFailed, match="ValueError; the site's log says more") as caught:
            server.round()
        assert "Jane" not in str(caught.value)


def test_a_site_of_before_a_restart_is_unknown_and_joins_again(tmp_path: Path) -> None:
    with deployed(tmp_path, 1) as coordinator, coordinator.client("site-1") as client:
        before = client.activate()
        port = coordinator.port
        coordinator.link.stop()
        coordinator.start(port)

        def known() -> bool:
            try:
                client.heartbeat()
            except Forgotten:
                return False
            except Exception:  # noqa: BLE001 - the channel connects again
                return True
            return True

        wait_for(lambda: not known(), 10)
        assert client.activate() != before


def test_a_coordinator_that_asks_for_more_than_was_agreed_gets_no_answer(tmp_path: Path) -> None:
    app = app_of()

    def guarded(message: Message, context: Context) -> Message:
        Questions(tmp_path / "questions.json", 2, once=True).take(message)  # as after a restart of the site
        return app(message, context)

    with deployed(tmp_path, 1) as coordinator:
        coordinator.join("site-1", guarded)
        server = coordinator.server(retries=0)
        server.round()
        server.done.pop()
        with pytest.raises(RunFailed, match="NotAgreed"):  # the first round again, with other weights
            server.round()
        server.done.append(Round(1))
        server.round()
        with pytest.raises(RunFailed, match="NotAgreed"):
            server.round()
    assert Questions(tmp_path / "questions.json", 2, once=True).last == 2  # what was spent is known after a restart


def test_a_coordinator_that_is_killed_at_the_very_end_tells_sites_that_come_back(tmp_path: Path) -> None:
    with deployed(tmp_path, 2) as coordinator:
        for site in coordinator.names:
            coordinator.join(site)
        coordinator.grid.gather(2)
        port = coordinator.port
        coordinator.link.stop()
        coordinator.start(port)
        coordinator.link.end("all rounds are made", 20.0)
        for thread in coordinator.threads:
            thread.join(5)
            assert not thread.is_alive()
    assert coordinator.errors == {}
