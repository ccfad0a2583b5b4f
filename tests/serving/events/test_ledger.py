"""The ledger remembers: after any stop it says what was written, or refuses."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.errors import DataError, UsageError
from ai4sdk.serving.events import ledger as module
from ai4sdk.serving.events.ledger import Ledger
from ai4sdk.serving.events.stores.base import Item

ITEMS = st.builds(Item, st.sampled_from(["a", "b/ä", "caf\udce9", 'q"\n']), st.sampled_from(["1", "2"]))
STEPS = st.lists(st.tuples(ITEMS, st.sampled_from(["claimed", "done", "dead", "left"])), max_size=20)


def opened(folder: Path) -> Ledger:
    return Ledger(folder, "in", "out")


def known(ledger: Ledger) -> dict:
    return dict(ledger._states)


def apply(ledger: Ledger, steps: list) -> list[dict]:
    """Record what is allowed; return what is known after each line of the file, the first line included."""
    history = [known(ledger)]
    for item, state in steps:
        if ledger.is_finished(item):
            if ledger.state(item) != state:
                with pytest.raises(ValueError, match="cannot become"):
                    ledger.record(item, state)
            continue
        ledger.record(item, state, durable=False)
        history.append(known(ledger))
    return history


@given(STEPS)
def test_what_was_recorded_is_known_in_the_next_life(steps):
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(Path(folder))
        apply(ledger, steps)
        before, unfinished = known(ledger), ledger.unfinished()
        ledger.close()
        again = opened(Path(folder))
        assert known(again) == before
        assert again.unfinished() == unfinished
        again.close()


@given(STEPS, st.floats(0, 1))
def test_a_file_cut_off_anywhere_is_read_up_to_its_last_whole_line_and_written_on(steps, share):
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(Path(folder))
        history = apply(ledger, steps)
        ledger.close()
        whole = ledger.path.read_bytes()
        cut = whole[: round(share * len(whole))]
        ledger.path.write_bytes(cut)
        again = opened(Path(folder))
        assert known(again) == history[max(cut.count(b"\n") - 1, 0)]
        again.record(Item("new", "1"), "claimed")
        expected = known(again)
        again.close()
        last = opened(Path(folder))
        assert known(last) == expected
        last.close()


@settings(max_examples=200)
@given(STEPS.filter(lambda steps: len(steps) > 2), st.floats(0, 1), st.integers(1, 255))
def test_damage_before_the_last_line_is_refused_whatever_it_is(steps, share, flip):
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(Path(folder))
        history = apply(ledger, steps)
        ledger.close()
        whole = bytearray(ledger.path.read_bytes())
        place = round(share * (len(whole) - 1))
        whole[place] ^= flip
        ledger.path.write_bytes(whole)
        last = len(whole[:place].splitlines()) >= len(history) or place >= bytes(whole[:-1]).rfind(b"\n")
        try:
            again = opened(Path(folder))
        except (DataError, UsageError):
            return
        assert last, "damage in the middle went unnoticed"
        assert known(again) in history[-3:]  # the end of the last but one may be what is damaged
        again.close()


def test_lines_of_which_the_disk_kept_only_zeros_are_cut_off_at_the_end(tmp_path):
    ledger = opened(tmp_path)
    ledger.record(Item("a", "1"), "done")
    ledger.close()
    with ledger.path.open("ab") as file:
        file.write(bytes(100))
    again = opened(tmp_path)
    assert again.is_finished(Item("a", "1"))
    again.close()


def test_a_line_too_many_is_no_damage_but_one_missing_in_the_middle_is_never_made_up(tmp_path):
    ledger = opened(tmp_path)
    ledger.record(Item("a", "1"), "claimed")
    ledger.record(Item("a", "1"), "done")
    ledger.close()
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([lines[0], lines[1][:-10] + b"\n", lines[2]]))
    with pytest.raises(DataError, match="damaged in line 2"):
        opened(tmp_path)
    ledger.path.write_bytes(b"".join(lines))
    opened(tmp_path).close()  # a refusal lets the folder go


def test_a_folder_is_for_one_process(tmp_path):
    ledger = opened(tmp_path)
    with pytest.raises(UsageError, match="another process works with"):
        opened(tmp_path)
    ledger.close()
    opened(tmp_path).close()


def test_a_folder_is_for_one_input_and_output(tmp_path):
    opened(tmp_path).close()
    with pytest.raises(UsageError, match="is for the output out, not elsewhere"):
        Ledger(tmp_path, "in", "elsewhere")


def test_it_is_written_anew_when_most_of_it_is_superseded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLACK", 10)
    ledger = opened(tmp_path)
    for number in range(20):
        ledger.record(Item("a", str(number % 2)), "claimed", durable=False)
    ledger.record(Item("a", "0"), "done")
    ledger.close()
    again = opened(tmp_path)
    assert len(again.path.read_bytes().splitlines()) == 3
    assert (again.state(Item("a", "0")), again.state(Item("a", "1"))) == ("done", "claimed")
    again.close()


def test_what_is_forgotten_gives_its_space_back_while_the_ledger_is_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLACK", 10)
    ledger = opened(tmp_path)
    for number in range(30):
        ledger.record(Item("a", str(number)), "done", durable=False)
    ledger.record(Item("b", "1"), "claimed")
    assert ledger.finished() == {("a", str(number)) for number in range(30)}
    ledger.forget({("a", str(number)) for number in range(29)} | {("b", "1"), ("unknown", "1")})
    ledger.record(Item("c", "1"), "done")
    assert len(ledger.path.read_bytes().splitlines()) == 4
    ledger.close()
    again = opened(tmp_path)
    assert known(again) == {("a", "29"): "done", ("b", "1"): "claimed", ("c", "1"): "done"}
    again.close()


def _fill(folder: str, ready: multiprocessing.Event) -> None:
    ledger = opened(Path(folder))
    ready.set()
    number = 0
    while True:
        ledger.record(Item("a", str(number)), "done", durable=False)
        number += 1


def test_a_kill_while_it_is_written_leaves_a_beginning_of_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=_fill, args=(str(tmp_path), ready))
    writer.start()
    assert ready.wait(60)
    while (tmp_path / "ledger.jsonl").stat().st_size < 100_000:
        pass
    writer.kill()
    writer.join()
    ledger = opened(tmp_path)
    numbers = [int(version) for _, version in known(ledger)]
    assert len(numbers) > 100
    assert numbers == list(range(len(numbers)))
    ledger.close()
