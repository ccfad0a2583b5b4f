from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.errors import DataError, EnvironmentFault
from ai4sdk.privacy.budget import Entry, PrivacyLedger

DATA = "sha256:" + "ab" * 32


def entry(run: str, epsilon: float, unit: str = "site", *, done: bool = False) -> Entry:
    return Entry(run, unit, {"mode": "central", "noise_multiplier": 1.0}, 10, epsilon, 1e-5, done)  # type: ignore[arg-type]


def test_runs_add_up_and_the_last_word_of_a_run_counts(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path / "privacy")
    assert ledger.spent(DATA).epsilon == 0
    ledger.write(DATA, entry("one", 2.0))
    ledger.write(DATA, entry("two", 1.0))
    ledger.write(DATA, entry("one", 1.5, done=True))
    found = PrivacyLedger(tmp_path / "privacy").spent(DATA)
    assert (found.epsilon, found.delta, found.runs) == (2.5, 2e-5, ("one", "two"))
    assert ledger.spent(DATA, without="two").epsilon == 1.5
    assert ledger.spent("sha256:other").epsilon == 0
    assert [path.name for path in (tmp_path / "privacy").iterdir()] == ["sha256-" + "ab" * 32 + ".jsonl"]


def test_what_protects_a_site_protects_its_records_but_not_the_other_way_round(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    ledger.write(DATA, entry("one", 2.0, "site"))
    ledger.write(DATA, entry("two", 1.0, "record"))
    assert ledger.spent(DATA, "site").epsilon == 2
    assert ledger.spent(DATA, "record").epsilon == 3


def test_what_is_over_the_budget_is_refused_and_not_written(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    ledger.write(DATA, entry("one", 5.0), budget=8)
    ledger.refuse_over(8, DATA, entry("two", 3.0))
    with pytest.raises(
        DataError, match=r"two would spend epsilon 4 .* of 8 only 3 is left: 5 was spent by 1 runs"
    ) as caught:
        ledger.refuse_over(8, DATA, entry("two", 4.0))
    assert "epsilon is at most 3" in str(caught.value.hint)
    with pytest.raises(DataError):
        ledger.write(DATA, entry("two", 4.0), budget=8)
    assert ledger.spent(DATA).runs == ("one",)
    ledger.write(DATA, entry("one", 8.0), budget=8)  # a run does not compete with itself
    with pytest.raises(DataError, match="only 0 is left"):
        ledger.write(DATA, entry("three", 0.1), budget=8)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 5)), max_size=20), st.floats(0.1, 10))
def test_whatever_is_asked_for_the_budget_holds(asked: list[tuple[str, float]], budget: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = PrivacyLedger(Path(folder))
        expected: dict[str, float] = {}
        for run, epsilon in asked:
            wanted = {**expected, run: epsilon}
            try:
                ledger.write(DATA, entry(run, epsilon), budget=budget)
            except DataError:
                assert sum(wanted.values()) > budget
            else:
                expected = wanted
            assert ledger.spent(DATA).epsilon == pytest.approx(sum(expected.values()))
            assert ledger.spent(DATA).epsilon <= budget * (1 + 1e-6)


def test_a_kill_while_writing_loses_only_what_was_not_promised(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    ledger.write(DATA, entry("one", 1.0))
    ledger.write(DATA, entry("two", 2.0))
    whole = ledger.path(DATA).read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        ledger.path(DATA).write_bytes(whole[:size])
        assert ledger.spent(DATA).runs == ("one",)
        ledger.write(DATA, entry("three", 3.0))
        assert ledger.spent(DATA).runs == ("one", "three")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"run": "a"}',
        '{"run": "a", "unit": "site", "mechanism": {}, "rounds": 1, "epsilon": -1, "delta": 0}',
        '{"run": "a", "unit": "site", "mechanism": {}, "rounds": 1, "epsilon": NaN, "delta": 0}',
        '{"run": "a", "unit": "galaxy", "mechanism": {}, "rounds": 1, "epsilon": 1, "delta": 0}',
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, line: str) -> None:
    ledger = PrivacyLedger(tmp_path)
    ledger.write(DATA, entry("one", 1.0))
    with open(ledger.path(DATA), "a") as file:
        file.write(line + "\n")
    before = ledger.path(DATA).read_bytes()
    for act in (lambda: ledger.spent(DATA), lambda: ledger.write(DATA, entry("two", 1.0))):
        with pytest.raises(DataError, match=r"jsonl:2 is no entry"):
            act()
    assert ledger.path(DATA).read_bytes() == before


def test_what_no_number_can_be_is_no_entry() -> None:
    for epsilon in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="epsilon must be a number"):
            entry("one", epsilon)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "privacy").write_text("a file")
    with pytest.raises(EnvironmentFault, match="cannot be read or written"):
        PrivacyLedger(tmp_path / "privacy").write(DATA, entry("one", 1.0))


SPEND = """
import sys
from pathlib import Path
from ai4sdk.errors import DataError
from ai4sdk.privacy.budget import Entry, PrivacyLedger
ledger = PrivacyLedger(Path(sys.argv[1]))
for number in range(20):
    try:
        ledger.write("sha256:x", Entry(f"{sys.argv[2]}-{number}", "site", {}, 1, 0.5, 1e-6), budget=10)
    except DataError:
        pass
"""


def test_processes_that_spend_together_do_not_exceed_the_budget_together(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", SPEND, str(tmp_path), name], env={**os.environ})
        for name in ("a", "b", "c")
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    found = PrivacyLedger(tmp_path).spent("sha256:x")
    assert found.epsilon == pytest.approx(10)
    assert len(found.runs) == 20
