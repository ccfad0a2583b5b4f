"""Answers that come after their round are discarded, or count less; nobody waits for them, and a kill changes nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from ai4sdk.errors import RunFailed
from ai4sdk.federated.answers import ARRAYS
from ai4sdk.federated.ledger import Round
from ai4sdk.federated.weights import from_records, to_record
from tests.federated.deployed import deployed
from tests.federated.noop import INITIAL, app_of, bits, server_of

SLOW: dict[str, Any] = {"slow": {"site-2": 1}}
LATE: dict[str, Any] = {**SLOW, "late": {"rounds": 3, "exponent": 1.0}}


def rounds_of(folder: Path, count: int, **how: Any) -> list[Round]:
    server = server_of(folder, **how)
    for _ in range(count):
        server.round()
    return server.done[1:]


def test_without_a_policy_a_late_answer_is_discarded_and_its_site_asked_again(tmp_path: Path) -> None:
    for record in rounds_of(tmp_path, 3, **SLOW):
        assert record.refused == {"site-2": "its answer is 1 rounds late"}
        assert "site-2" in record.sites


def test_a_late_answer_counts_in_the_round_in_which_it_comes_and_its_site_is_asked_nothing_until_then(
    tmp_path: Path,
) -> None:
    first, second, third = rounds_of(tmp_path, 3, **LATE)
    assert (list(first.answered), first.pending, first.late) == (["site-1", "site-3", "site-4"], {"site-2": [1, 1]}, {})
    assert (second.sites, second.late, second.pending) == (["site-1", "site-3", "site-4"], {"site-2": 1}, {})
    assert second.answered == dict.fromkeys(("site-1", "site-2", "site-3", "site-4"), 10)
    assert third.pending == {"site-2": [3, 3]}
    assert not first.refused | second.refused | third.refused


def test_what_it_counts_is_its_change_of_the_weights_it_was_sent(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        moved = {"site-1": 1.0, "site-2": 100.0}[site]
        sent = {1: 0.0, 2: 1.0}[number]
        answer[ARRAYS] = to_record({"w": (INITIAL.parameters["w"] + np.float32(sent + moved)).astype(np.float32)})

    server = server_of(tmp_path, 2, change, **LATE)
    server.round()
    np.testing.assert_allclose(server.state.parameters["w"], INITIAL.parameters["w"] + 1, rtol=1e-6)
    server.round()
    # site-1 goes on from 1 to 2; site-2 moved by 100 from 0, and its ten samples count as five.
    expected = 1 + (10 * 1 + 5 * 100) / 15
    np.testing.assert_allclose(server.state.parameters["w"], INITIAL.parameters["w"] + expected, rtol=1e-5)


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedmedian"])
def test_after_a_kill_in_any_round_late_answers_count_as_if_nothing_had_been(tmp_path: Path, strategy: str) -> None:
    how = {**LATE, "strategy": strategy, "slow": {"site-2": 2, "site-3": 1}, "fraction": 0.75}
    whole = server_of(tmp_path / "whole", **how)
    for _ in range(8):
        whole.round()
    for _ in range(8):
        broken = server_of(tmp_path / "broken", **how)
        broken.round()
    assert broken.done == whole.done
    assert bits(broken.state) == bits(whole.state)
    assert any(record.late for record in whole.done)


def test_one_that_is_too_late_is_given_up_and_its_site_asked_again(tmp_path: Path) -> None:
    records = rounds_of(tmp_path, 5, slow={"site-2": 4}, late={"rounds": 2})
    assert [record.pending.get("site-2") for record in records] == [[1, 1]] * 3 + [[4, 4]] * 2
    assert not any("site-2" in record.answered for record in records)


def test_where_all_are_late_a_round_is_tried_again_until_they_answer(tmp_path: Path) -> None:
    everyone = {f"site-{number}": 2 for number in range(1, 5)}
    (record,) = rounds_of(tmp_path, 1, slow=everyone, late={"rounds": 2})
    assert (record.tries, len(record.answered), set(record.late.values())) == (3, 4, {1})
    with pytest.raises(RunFailed, match="0 of the 1 answers that it needs"):
        rounds_of(tmp_path / "never", 1, slow=everyone)


def test_a_late_answer_that_spoils_others_work_is_refused(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-2":
            answer[ARRAYS] = to_record({"w": np.full((2, 3), np.nan, np.float32)})

    first, second = rounds_of(tmp_path, 2, change=change, **LATE)
    assert not first.refused
    assert second.refused == {"site-2": "w holds values that are no finite numbers"}
    assert list(second.answered) == ["site-1", "site-3", "site-4"]


def test_weights_of_as_many_rounds_stay_as_late_answers_need(tmp_path: Path) -> None:
    rounds_of(tmp_path, 9, **LATE)
    assert len(list(tmp_path.glob("*/state.safetensors"))) == 5
    rounds_of(tmp_path / "without", 9)
    assert len(list((tmp_path / "without").glob("*/state.safetensors"))) == 2


def test_real_sites_that_are_still_training_end_no_round_and_count_later(tmp_path: Path) -> None:
    go_on = threading.Event()

    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-2" and number == 1:
            assert go_on.wait(30)
            moved = from_records(answer.array_records[ARRAYS])
            answer[ARRAYS] = to_record({"w": moved["w"]})

    with deployed(tmp_path, 2, enough=1, later=3) as coordinator:
        for site in coordinator.names:
            coordinator.join(site, app_of(change))
        server = coordinator.server(min_sites=1, enough=1, late={"rounds": 3})
        coordinator.grid.gather(2)
        first = server.round()
        assert (list(first.answered), list(first.pending)) == (["site-1"], ["site-2"])
        second = server.round()
        assert list(second.answered) == ["site-1"]
        go_on.set()
        records = [server.round() for _ in range(3)]
        assert {"site-2": 1} in [record.late for record in records], records
    assert coordinator.errors == {}


def test_real_sites_that_never_answer_are_given_up(tmp_path: Path) -> None:
    go_on = threading.Event()

    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-2" and number == 1:
            assert go_on.wait(30)

    with deployed(tmp_path, 2, enough=1, later=1) as coordinator:
        for site in coordinator.names:
            coordinator.join(site, app_of(change))
        server = coordinator.server(min_sites=1, enough=1, late={"rounds": 1})
        coordinator.grid.gather(2)
        records = [server.round() for _ in range(3)]
        assert [list(record.pending) for record in records[:2]] == [["site-2"], ["site-2"]]
        assert records[2].sites == ["site-1", "site-2"], "it is asked anew"
        go_on.set()
    assert coordinator.errors == {}
