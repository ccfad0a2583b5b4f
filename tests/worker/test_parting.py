"""Of several processes that end, the one whose fault it was has the word."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.failures import failure_of
from ai4sdk.worker.group import LostRank, lost_rank
from ai4sdk.worker.parting import fail_among_others
from ai4sdk.worker.signals import StopTraining

LOST = RuntimeError("[enforce fail at pair.cc:537] Read error [127.0.0.1]:6: Connection reset by peer. GLHF!")


@pytest.fixture
def end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """End as a rank does; return the exit status and what is written then."""

    def exit_at_once(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", exit_at_once)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    paths = RunPaths(tmp_path)

    def ending(rank: int, error: BaseException) -> tuple[int, str | None]:
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(SystemExit) as ended:
            fail_among_others(paths, error, failure_of(error))
        cause = read_json(paths.failure)["cause"] if paths.failure.exists() else None
        assert [path for path in tmp_path.iterdir() if path != paths.failure] == []
        return ended.value.code, cause

    return ending


def test_the_first_fault_stays_and_names_its_rank(end):
    assert end(2, ValueError("dry")) == (4, "rank 2: ValueError: dry")
    assert end(1, ValueError("too")) == (4, "rank 2: ValueError: dry")
    assert end(0, LOST) == (5, "rank 2: ValueError: dry")


def test_that_another_is_gone_is_said_only_while_nothing_else_is_known(end):
    assert end(0, LOST) == (5, "rank 0 lost the connection to another rank")
    assert end(1, ValueError("dry")) == (4, "rank 1: ValueError: dry")


def test_of_a_stop_in_good_order_rank_0_says_why(end):
    assert end(1, StopTraining("wall time reached")) == (5, None)
    assert end(0, StopTraining("wall time reached")) == (5, "wall time reached")


def test_broken_connections_are_told_from_faults():
    assert lost_rank(LOST)
    assert lost_rank(LostRank("gone"))
    assert not lost_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost_rank(OSError("Connection reset by peer")), "the user's own connection to somewhere"
