"""Rounds end well, are tried again, or end with a reason; a bad answer spoils nobody else's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from ai4sdk.errors import RunFailed
from ai4sdk.federated.answers import ARRAYS, BUFFERS, COST, METRICS
from ai4sdk.federated.rounds import choose
from ai4sdk.federated.strategies import WEIGHT_KEY
from ai4sdk.federated.weights import to_record
from ai4sdk.spec.federation import STRATEGIES
from tests.federated.noop import INITIAL, bits, server_of


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_on_after_a_restart_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    arguments = {"krum": {"num_malicious_nodes": 1}, "multikrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3}}
    arguments |= {"bulyan": {"num_malicious_nodes": 1}, "fedprox": {"proximal_mu": 0.1}}
    arguments |= {
        "fedavgm": {"server_momentum": 0.9, "server_learning_rate": 0.5},
        "qfedavg": {"client_learning_rate": 0.1},
    }
    how: dict[str, Any] = {"strategy": {"_target_": name, **arguments.get(name, {})}, "sites": 7}
    whole = server_of(tmp_path / "whole", **how)
    for _ in range(4):
        whole.round()
    for _ in range(4):
        server = server_of(tmp_path / "parts", **how)
        server.round()
    assert bits(server.state) == bits(whole.state)
    assert bits(whole.state) != bits(INITIAL)


def test_federated_averaging_is_the_mean_weighted_by_samples(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        value, samples = {"site-1": (1.0, 30), "site-2": (4.0, 10)}[site]
        answer[ARRAYS] = to_record({"w": np.full((2, 3), value, np.float32)})
        answer[BUFFERS] = to_record({"count": np.array(int(value))})
        answer.metric_records[METRICS]["train_loss"] = value
        answer.metric_records[METRICS][WEIGHT_KEY] = samples

    server = server_of(tmp_path, 2, change)
    record = server.round()
    assert np.allclose(server.state.parameters["w"], 1.75)
    assert server.state.buffers["count"] == 2  # 1.75, rounded
    assert record.metrics == {"train_loss": 1.75, "val_loss": 1.0}
    assert record.answered == {"site-1": 30, "site-2": 10}


def test_what_a_site_says_that_it_cost_is_summed_and_nonsense_left_out(tmp_path: Path) -> None:
    said: dict[str, Any] = {"seconds": 1.5, "cpu_seconds": 3, "joules": -1.0, "more": 9.0}

    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-1":
            answer[COST] = ConfigRecord(said)
        if site == "site-2":
            answer[COST] = ConfigRecord({"seconds": float("nan"), "cpu_seconds": "long", "joules": [1.0]})

    assert server_of(tmp_path, 3, change).round().costs == {"site-1": {"seconds": 1.5, "cpu_seconds": 3.0}}


def _nan(answer: RecordDict) -> None:
    answer[ARRAYS] = to_record({"w": np.full((2, 3), np.nan, np.float32)})


def _shape(answer: RecordDict) -> None:
    answer[ARRAYS] = to_record({"w": np.zeros((3, 2), np.float32)})


def _kind(answer: RecordDict) -> None:
    answer[ARRAYS] = to_record({"w": np.zeros((2, 3), np.float64)})


def _names(answer: RecordDict) -> None:
    answer[ARRAYS] = to_record({"v": np.zeros((2, 3), np.float32)})


def _huge(answer: RecordDict) -> None:
    answer[ARRAYS] = to_record({"w": np.full((2, 3), 1e9, np.float32)})


def _buffers(answer: RecordDict) -> None:
    answer[BUFFERS] = to_record({"count": np.array([1, 2])})


def _samples(answer: RecordDict) -> None:
    answer.metric_records[METRICS][WEIGHT_KEY] = -5


def _infinite_samples(answer: RecordDict) -> None:
    answer.metric_records[METRICS][WEIGHT_KEY] = float("inf")


def _none(answer: RecordDict) -> None:
    answer.metric_records[METRICS][WEIGHT_KEY] = 0


def _no_metrics(answer: RecordDict) -> None:
    del answer[METRICS]


def _list(answer: RecordDict) -> None:
    answer[METRICS] = MetricRecord({"loss": [1.0, 2.0], WEIGHT_KEY: 10})


def _broken_array(answer: RecordDict) -> None:
    answer.array_records[ARRAYS]["w"].data = b"no array"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_nan, "no finite numbers"),
        (_shape, "has the shape (3, 2) instead of (2, 3)"),
        (_kind, "is float64 instead of float32"),
        (_names, "it sent other arrays than it was given"),
        (_huge, "at most 100 is accepted"),
        (_buffers, "count has the shape (2,)"),
        (_samples, "no number of samples"),
        (_infinite_samples, "no number of samples"),
        (_none, "it trained on no sample"),
        (_no_metrics, "not an answer of this federation"),
        (_list, "the metric loss is a list"),
        (_broken_array, "not an answer of this federation"),
    ],
)
def test_a_spoilt_answer_is_refused_with_the_reason_and_the_others_count(spoil: Any, why: str, tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-2":
            spoil(answer)

    server = server_of(tmp_path / "with", 3, change, max_update_norm=100)
    record = server.round()
    assert why in record.refused["site-2"]
    assert sorted(record.answered) == ["site-1", "site-3"]
    assert np.isfinite(server.state.parameters["w"]).all()


def test_a_metric_that_is_no_number_does_not_lose_the_weights_of_its_site(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-2":
            answer.metric_records[METRICS]["train_loss"] = float("nan")

    record = server_of(tmp_path, 2, change).round()
    assert sorted(record.answered) == ["site-1", "site-2"]


def test_a_site_that_raises_is_named_and_the_round_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-1":
            raise OSError("its disk is full")

    with caplog.at_level(logging.WARNING):
        record = server_of(tmp_path, 2, change).round()
    assert "its disk is full" in record.refused["site-1"]
    assert "site-1" in caplog.text


def test_a_federation_whose_sites_all_fail_fails_and_says_why_once(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        raise ValueError("bad column")

    server = server_of(tmp_path, 3, change, retries=1)
    with pytest.raises(
        RunFailed, match=r"round 1: 0 of the 1 answers .* 2 tries: site-1, site-2, site-3: .*bad column"
    ):
        server.round()
    assert [record.number for record in server.done] == [0]


def test_a_round_that_had_too_few_answers_is_tried_again(tmp_path: Path) -> None:
    tries: list[str] = []

    def change(site: str, number: int, answer: RecordDict) -> None:
        tries.append(site)
        if len(tries) <= 2:
            raise ConnectionError("away")

    record = server_of(tmp_path, 2, change, min_sites=2).round()
    assert record.tries == 2
    assert sorted(record.answered) == ["site-1", "site-2"]


def test_a_round_waits_until_enough_sites_are_up(tmp_path: Path) -> None:
    away = {"site-1": [1, 2, 5, 6], "site-2": [3, 4, 5, 6]}
    up = {"kind": "trace", "up": away}
    server = server_of(tmp_path, 2, availability=up, min_sites=2, retries=4)
    assert [server.round().tries for _ in range(2)] == [5, 1]
    with pytest.raises(RunFailed, match="0 of 2 sites were up"):
        server.round()


def test_outages_are_the_same_after_a_restart(tmp_path: Path) -> None:
    how: dict[str, Any] = {"availability": {"kind": "markov"}, "retries": 50, "min_sites": 3, "fraction": 0.8}
    whole = server_of(tmp_path / "whole", 6, **how)
    expected = [whole.round() for _ in range(8)]
    found = [server_of(tmp_path / "parts", 6, **how).round() for _ in range(8)]
    assert found == expected
    assert len({tuple(record.answered) for record in found}) > 1


class _GivesUp(FedAvg):
    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        raise ValueError("cannot")


class _Explodes(FedAvg):
    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        _, metrics = super().aggregate_train(server_round, replies)
        return to_record({"w": np.full((2, 3), np.inf, np.float32)}), metrics


@pytest.mark.parametrize(("kind", "why"), [(_GivesUp, "cannot aggregate 4 answers"), (_Explodes, "cannot be used")])
def test_weights_that_nobody_can_use_end_the_federation_and_the_last_good_ones_stay(
    kind: type, why: str, tmp_path: Path
) -> None:
    server = server_of(tmp_path, strategy=f"{kind.__module__}.{kind.__qualname__}")
    with pytest.raises(RunFailed, match=why):
        server.round()
    assert bits(server_of(tmp_path).state) == bits(INITIAL)


def test_something_that_is_no_strategy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no strategy of Flower's Message API"):
        server_of(tmp_path, strategy="collections.OrderedDict")


def test_a_byzantine_minority_does_not_move_a_robust_strategy_far(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        if site in ("site-1", "site-2"):
            answer[ARRAYS] = to_record({"w": np.full((2, 3), 1e6, np.float32)})

    for strategy in (
        "fedmedian",
        {"_target_": "krum", "num_malicious_nodes": 2},
        {"_target_": "fedtrimmedavg", "beta": 0.3},
    ):
        server = server_of(tmp_path / str(hash(str(strategy))), 7, change, strategy=strategy)
        server.round()
        assert np.abs(server.state.parameters["w"]).max() < 10, strategy


def test_sites_are_chosen_by_the_seed_and_all_have_their_turn() -> None:
    sites = [f"s{number}" for number in range(10)]
    assert choose(sites, 0.3, 4) == choose(sites, 0.3, 4)
    assert len(choose(sites, 0.3, 4)) == 3
    assert {site for seed in range(50) for site in choose(sites, 0.3, seed)} == set(sites)
    assert choose(sites, 0.01, 1) != []
    assert choose([], 0.5, 1) == []


class Passing(FedAvg):
    """A strategy that knows nothing of its base's arguments."""

    def __init__(self, step: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.step = step


def test_a_strategy_that_passes_arguments_on_is_content_with_one_site(tmp_path: Path) -> None:
    record = server_of(tmp_path, 1, strategy={"_target_": f"{__name__}.Passing", "step": 0.5}).round()
    assert list(record.answered) == ["site-1"]


def test_a_strategy_that_waits_for_more_sites_is_told_so_instead_of_hanging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda _: None)
    server = server_of(tmp_path, 2, strategy={"_target_": "fedavg", "min_available_nodes": 3})
    with pytest.raises(RunFailed, match="waits for more sites than the 2 that it is offered"):
        server.round()
