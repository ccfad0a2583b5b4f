"""Several processes answer as one does, and none of them can take the federation down."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict

from ai4sdk.federated.ledger import Ledger
from ai4sdk.federated.pool import PoolGrid
from ai4sdk.federated.rounds import Server
from ai4sdk.federated.strategies import make_strategy
from ai4sdk.spec.federation import Federation
from ai4sdk.worker.signals import StopRequest, StopTraining
from tests.federated.noop import INITIAL, app_of, bits, server_of

SITES = [f"site-{number}" for number in range(1, 6)]


def nothing(site: str, number: int, answer: RecordDict) -> None:
    return


class Pool:
    """A server whose sites are answered for by two processes."""

    def __init__(self, folder: Path, change: Any = nothing, stop: StopRequest | None = None, **federation: Any) -> None:
        self.grid = PoolGrid(app_of(change), SITES, 2, stop or StopRequest())
        how = Federation(**{"partition": {"sites": 5}, "strategy": "fedadam", **federation})
        self.server = Server(how, 1, make_strategy(how.strategy), self.grid, Ledger(folder))
        self.server.begin(INITIAL)

    def __enter__(self) -> Pool:
        self.grid.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.grid.__exit__(*error)


def test_the_weights_are_those_of_one_process(tmp_path: Path) -> None:
    alone = server_of(tmp_path / "one", 5, strategy="fedadam")
    with Pool(tmp_path / "two") as pool:
        for _ in range(3):
            assert pool.server.round() == alone.round()
    assert bits(pool.server.state) == bits(alone.state)


def test_a_process_that_is_killed_costs_one_answer_and_is_replaced(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-3" and number == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with Pool(tmp_path, change) as pool:
        record = pool.server.round()
        assert record.refused == {"site-3": "ChildProcessError: its process was killed by SIGKILL"}
        assert len(record.answered) == 4
        assert len(pool.server.round().answered) == 5


class Unportable(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("error", [ValueError("bad column"), Unportable("this", "that")])
def test_what_a_site_raises_is_told(error: Exception, tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-2":
            raise error

    with Pool(tmp_path, change) as pool:
        assert str(error) in pool.server.round().refused["site-2"]


def test_no_process_is_left_behind_when_it_is_stopped(tmp_path: Path) -> None:
    started: list[int] = []

    class Asked(StopRequest):
        def check(self) -> None:
            started.extend(process.pid for process in pool.grid._processes)
            raise StopTraining("stopped on request")

    def hang(site: str, number: int, answer: RecordDict) -> None:
        signal.pause()

    pool = Pool(tmp_path, hang, Asked())
    with pytest.raises(StopTraining), pool:
        pool.server.round()
    assert len(started) == 2
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
