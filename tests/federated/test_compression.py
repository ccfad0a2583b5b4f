"""Updates in fewer bits: what is lost is bounded and fair, and nothing that comes back is trusted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

import ai4sdk
from ai4sdk.federated.answers import ARRAYS, BUFFERS
from ai4sdk.federated.compression import SCALES, compress, expand, size_of
from ai4sdk.federated.inline import InlineGrid
from ai4sdk.federated.weights import Arrays, from_records, to_record
from ai4sdk.runs.files import read_json
from ai4sdk.testing.helpers import weights
from tests.federated.noop import INITIAL, app_of, server_of

InlineGrid(app_of(), ["site"])  # within which messages can be made


def there_and_back(arrays: Arrays, sent: Arrays, how: Any, drawn_with: str = "") -> tuple[Arrays, str | None]:
    packed = compress(arrays, sent, how, drawn_with)
    message = Message(
        RecordDict({name: to_record(part) for name, part in packed.items()}), dst_node_id=1, message_type="train"
    )
    problem = expand(message, sent, how)
    return from_records(message.content.array_records[ARRAYS]), problem


ARRAY = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40)


@given(ARRAY, st.floats(1e-6, 10), st.sampled_from(["none", "float16", "int8"]))
def test_what_comes_back_is_as_near_as_the_bits_allow(start: list[float], change: float, how: str) -> None:
    sent = {"w": np.asarray(start, np.float32)}
    moved = {"w": (sent["w"] + change * np.linspace(-1, 1, len(start))).astype(np.float32)}
    back, problem = there_and_back(moved, sent, how)
    assert problem is None
    assert back["w"].dtype == np.float32
    largest = float(np.abs(moved["w"].astype(np.float64) - sent["w"]).max())
    lost = {"none": 0.0, "float16": largest * 2**-10 + 1e-7, "int8": largest / 127 * 1.001}[how]
    rounding = float(np.abs(moved["w"]).max()) * 2**-22
    assert np.abs(back["w"].astype(np.float64) - moved["w"]).max() <= lost + rounding


def test_eight_bits_are_right_on_average() -> None:
    sent = {"w": np.zeros(50, np.float32)}
    moved = {"w": np.linspace(-1, 0.337, 50, dtype=np.float32)}
    several = [there_and_back(moved, sent, "int8", str(number))[0]["w"] for number in range(2000)]
    # The deviation of one is at most half a step, that of the mean of n of them by the root of n smaller.
    assert np.abs(np.mean(several, axis=0) - moved["w"]).max() < 5 * 0.5 / 127 / np.sqrt(2000)


def test_chance_is_the_same_when_a_round_is_done_again_and_another_in_the_next() -> None:
    sent = {"w": np.zeros(50, np.float32)}
    moved = {"w": np.linspace(-1, 0.337, 50, dtype=np.float32)}
    once, again, other = (there_and_back(moved, sent, "int8", text)[0]["w"] for text in ("1", "1", "2"))
    assert (once == again).all()
    assert (once != other).any()


def test_arrays_that_did_not_change_or_have_nothing_in_them_come_back_as_they_were() -> None:
    sent = {"w": np.full((2, 3), 0.25, np.float32), "empty": np.zeros((0, 3), np.float32), "number": np.asarray(1.5)}
    for how in ("float16", "int8"):
        back, problem = there_and_back(dict(sent), sent, how)
        assert problem is None
        assert all((back[name] == sent[name]).all() and back[name].shape == sent[name].shape for name in sent)


@pytest.mark.parametrize(
    ("value", "how"),
    [(np.nan, "float16"), (np.inf, "float16"), (1e30, "float16"), (np.nan, "int8"), (np.inf, "int8")],
)
def test_what_is_no_finite_number_is_refused_and_not_hidden_by_rounding(tmp_path: Path, value: float, how: str) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        arrays = from_records(answer.array_records[ARRAYS])
        if site == "site-2":
            arrays["w"] = np.full((2, 3), value, np.float32)
        packed = compress(arrays, INITIAL.parameters, how, site)  # type: ignore[arg-type]
        for name, part in packed.items():
            answer[name] = to_record(part)

    server = server_of(tmp_path, 3, change, compression=how)
    record = server.round()
    assert set(record.answered) == {"site-1", "site-3"}
    assert "no finite numbers" in record.refused["site-2"]


def _plain(answer: RecordDict) -> None:
    answer[ARRAYS] = to_record({"w": np.zeros((2, 3), np.float32)})


def _shape(answer: RecordDict) -> None:
    answer[ARRAYS] = to_record({"w": np.zeros((1, 1), np.int8)})


def _no_scale(answer: RecordDict) -> None:
    del answer[SCALES]


def _scales(answer: RecordDict) -> None:
    answer[SCALES] = to_record({"w": np.ones((2, 3), np.float32)})


def _unknown(answer: RecordDict) -> None:
    answer[ARRAYS] = to_record({"v": np.zeros((2, 3), np.int8)})


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_plain, "w is float32; updates are compressed to int8"),
        (_shape, r"w has the shape \(1, 1\)"),
        (_no_scale, "not a compressed answer"),
        (_scales, "the scale of w is no number"),
        (_unknown, "not a compressed answer"),
    ],
)
def test_an_answer_that_is_not_compressed_as_was_told_is_refused(tmp_path: Path, spoil: Any, why: str) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        packed = compress(from_records(answer.array_records[ARRAYS]), INITIAL.parameters, "int8", site)
        for name, part in packed.items():
            answer[name] = to_record(part)
        if site == "site-2":
            spoil(answer)

    record = server_of(tmp_path, 3, change, compression="int8").round()
    assert set(record.answered) == {"site-1", "site-3"}
    assert re.search(why, record.refused["site-2"])


def test_bytes_are_counted_for_each_site(tmp_path: Path) -> None:
    record = server_of(tmp_path, 2).round()
    assert set(record.traffic) == {"site-1", "site-2"}
    down, up = record.traffic["site-1"]
    weights = size_of(RecordDict({ARRAYS: to_record(INITIAL.parameters), BUFFERS: to_record(INITIAL.buffers)}))
    assert down >= 2 * weights  # to be trained with, and to be validated
    assert weights <= up < down


def test_large_updates_shrink_as_promised() -> None:
    sent = {"w": np.zeros(100_000, np.float32)}
    moved = {"w": np.linspace(-1, 1, 100_000, dtype=np.float32)}

    def size(how: Any) -> int:
        return size_of(RecordDict({name: to_record(part) for name, part in compress(moved, sent, how, "").items()}))

    assert size("float16") < 0.51 * size("none")
    assert size("int8") < 0.26 * size("none")


@pytest.mark.slow
def test_a_module_learns_as_well_from_updates_in_eight_bits(project: Path) -> None:
    common = ("tracking.kind=none", "training.mode=federated", "++federation.partition.sites=2", "module.width=64")
    plain = ai4sdk.run("train", *common, "training.max_epochs=4")
    small = ai4sdk.run("train", *common, "training.max_epochs=4", "++federation.compression=int8")
    last, other = (read_json(run.paths.federation / "00004/round.json") for run in (plain, small))
    assert other["metrics"]["val_loss"] == pytest.approx(last["metrics"]["val_loss"], rel=0.1)
    assert weights(small) != weights(plain)
    for site, (down, up) in other["traffic"].items():
        assert down == last["traffic"][site][0]
        assert up < last["traffic"][site][1]
    assert "traffic/up_bytes" in small.paths.metrics.read_text()
