"""What is told of a federation while it goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ai4sdk.cli import watch
from ai4sdk.cli.watch import _Lines, round_text
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State
from ai4sdk.tracking.ledger import Ledger, read_ledger, write_ledger

BEGUN: dict[str, Any] = {"phase": "fit", "round": 0, "rounds": 5}
WAITS = {**BEGUN, "waits_for": {"there": ["north"], "needed": 2}}
DONE = {**BEGUN, "round": 1, "sites": 2, "of_sites": 3, "metrics": {"val_loss": 0.5}}


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        (BEGUN, "round 1 of 5"),
        (WAITS, "round 1 of 5 waits for sites: 1 of 2 are there (north)"),
        ({**BEGUN, "waits_for": {"there": [], "needed": 2}}, "round 1 of 5 waits for sites: 0 of 2 are there"),
        ({**BEGUN, "waits_for": None}, "round 1 of 5"),
        (DONE, "round 1 of 5, 2 of 3 sites"),
        ({**DONE, "waits_for": WAITS["waits_for"]}, "round 2 of 5 waits for sites: 1 of 2 are there (north)"),
    ],
)
def test_how_far_a_federation_is(progress: dict[str, Any], told: str) -> None:
    assert round_text(progress) == told


def test_lines_tell_each_round_once_and_whom_one_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, state = _Lines(RunPaths(tmp_path / "run")), RunState(State.RUNNING)
    for progress in (BEGUN, BEGUN, WAITS, WAITS, {**BEGUN, "waits_for": None}, DONE, DONE):
        lines.show(progress, state)
    assert capsys.readouterr().err.splitlines() == [
        "training  round 1 of 5",
        "training  round 1 of 5 waits for sites: 1 of 2 are there (north)",
        "training  round 1 of 5",
        "training  round 1 of 5, 2 of 3 sites  val_loss 0.5",
    ]


def test_records_that_begin_late_are_waited_for(tmp_path):
    run = RunPaths(tmp_path / "one")
    run.root.mkdir()
    write_json(run.submission, {"sidecars": [{"name": "tracking"}]})
    late = threading.Timer(0.5, write_ledger, (run.tracking, Ledger(finished="succeeded/1/1")))
    late.start()
    watch._wait_for_records(run, SimpleNamespace(note_once=lambda _: None))
    assert read_ledger(run.tracking).finished
