"""A finished round is never lost, and half a round never taken for one."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ai4sdk.errors import EnvironmentFault, RunFailed
from ai4sdk.federated.ledger import Ledger, Round
from ai4sdk.federated.weights import State
from tests.federated.noop import INITIAL, bits, server_of

HOW = {"strategy": "fedadam", "availability": {"kind": "dropout", "probability": 0.2}, "retries": 20, "fraction": 0.7}


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "federation")
    record = Round(
        0, ["a"], ["a"], {"a": 3}, {"b": "was away"}, {"loss": 0.1}, {"a": {"loss": 0.1}}, 2, {"x": {"value": 1}}
    )
    ledger.write(record, INITIAL, {"moments.w": np.ones(3)})
    assert ledger.rounds() == [record]
    state, strategy = ledger.state(0)
    assert bits(state) == bits(INITIAL)
    assert strategy["moments.w"].tolist() == [1, 1, 1]


def test_weights_of_the_last_two_rounds_are_kept_and_records_of_all(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(5):
        ledger.write(Round(number), INITIAL, {})
    assert [record.number for record in ledger.rounds()] == list(range(5))
    assert [path.parent.name for path in sorted(tmp_path.glob("*/state.safetensors"))] == ["00003", "00004"]


def test_what_a_killed_process_left_half_written_is_no_round(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(Round(0), INITIAL, {})
    (tmp_path / ".00001.part").mkdir()
    (tmp_path / ".00001.part" / "round.json").write_text("{")
    assert [record.number for record in ledger.rounds()] == [0]
    ledger.write(Round(1), INITIAL, {})
    assert [record.number for record in ledger.rounds()] == [0, 1]


def test_damage_is_said_and_never_repaired(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(3):
        ledger.write(Round(number), INITIAL, {})
    (tmp_path / "00002" / "state.safetensors").write_bytes(b"no")
    with pytest.raises(RunFailed, match="weights after round 2 cannot be read"):
        ledger.state(2)
    (tmp_path / "00002" / "round.json").write_text("{")
    with pytest.raises(RunFailed, match="cannot be read"):
        ledger.rounds()
    (tmp_path / "00002" / "round.json").write_text(json.dumps({"number": 7}))
    with pytest.raises(RunFailed, match="round 2 is missing"):
        ledger.rounds()


def test_a_full_disk_is_said_and_the_rounds_before_stay(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(Round(0), INITIAL, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:  # no file may grow beyond a page: the weights do not fit
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(EnvironmentFault, match="round 1 could not be written"):
            ledger.write(Round(1), State({"w": np.zeros(10_000)}, {}), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [record.number for record in ledger.rounds()] == [0]
    assert bits(ledger.state(0)[0]) == bits(INITIAL)


@pytest.mark.slow
def test_after_two_hundred_kills_thirty_rounds_end_with_the_weights_of_an_undisturbed_federation(
    tmp_path: Path,
) -> None:
    rounds = 30
    whole = server_of(tmp_path / "whole", **HOW)
    for _ in range(rounds):
        whole.round()
    one_round = _calls(lambda: server_of(tmp_path / "counted", **HOW).round())

    folder, draw = tmp_path / "killed", random.Random(0)
    for _ in range(200):
        child = os.fork()
        if not child:  # pragma: no cover - ends by being killed
            _kill_after(draw.randrange(int(1.1 * one_round)))
            server = server_of(folder, **HOW)
            while len(server.done) <= rounds:
                server.round()
            os._exit(1)
        draw.random()  # the next child's moment is another
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it ended before it was killed"

    server = server_of(folder, **HOW)
    assert 0 < len(server.done) - 1 < rounds
    while len(server.done) <= rounds:
        server.round()
    assert server.done == whole.done
    assert bits(server.state) == bits(whole.state)


def _calls(do: Callable[[], object]) -> int:
    """Count the calls, of Python and C functions, that something makes."""
    count = 0

    def one_more(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(one_more)
    try:
        do()
    finally:
        sys.setprofile(None)
    return count


def _kill_after(calls: int) -> None:
    """Have this process killed after so many calls: anywhere, however fast the machine is."""
    left = calls

    def count_down(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count_down)
