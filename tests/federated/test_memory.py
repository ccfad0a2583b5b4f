"""What a site keeps is there when the server asks for it, and gone when nobody can."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ai4sdk.errors import EnvironmentFault
from ai4sdk.federated.memory import Memory

ONE, TWO = {"own/w": np.array([1.0])}, {"own/w": np.array([2.0])}


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_round_that_is_done_again_begins_with_what_the_one_before_left(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.save("north", 1, ONE, since=0)
    memory.save("north", 2, TWO, since=1)  # and the server is killed before it takes that down
    assert memory.load("north", 1)["own/w"] == [1.0]
    assert memory.load("north", 2)["own/w"] == [2.0]
    assert memory.load("south", 0) == memory.load("north", 0) == {}


def test_what_nobody_asks_for_again_is_removed(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for number in range(1, 6):
        memory.save("north", number, ONE, since=number - 1)
    assert kept(tmp_path) == ["00004.safetensors", "00005.safetensors"]


def test_a_site_that_lost_its_memory_says_so_and_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(tmp_path)
    memory.save("north", 1, ONE, since=0)
    (tmp_path / "north/00001.safetensors").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING):
        assert memory.load("north", 1) == {}
    assert "what north kept in round 1 is lost" in caplog.text


def test_what_cannot_be_kept_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "north").write_text("a file where its folder should be")
    with pytest.raises(EnvironmentFault, match="what north keeps of round 3 could not be written") as raised:
        Memory(tmp_path).save("north", 3, ONE, since=2)
    assert raised.value.hint
