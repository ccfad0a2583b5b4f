"""A checkpoint on disk is whole, or it is the one before."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ai4sdk.errors import EnvironmentFault, RunFailed
from ai4sdk.worker.checkpoint import (
    checkpoint_due,
    previous,
    read_checkpoint,
    read_last,
    remove_half_written,
    write_checkpoint,
)


def checkpoint(number: float, size: int = 10) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((size,), number)}, "epoch": int(number)}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint(checkpoint(1), path)
    assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], torch.ones(10))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_the_one_before_is_kept_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(checkpoint(1), path, keep_previous=True)
    inode = path.stat().st_ino
    write_checkpoint(checkpoint(2), path, keep_previous=True)
    assert previous(path).stat().st_ino == inode
    write_checkpoint(checkpoint(3), path, keep_previous=True)
    assert read_checkpoint(previous(path))["epoch"] == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "last.prev.ckpt"]


@pytest.mark.parametrize("room", [0, 100, 5_000, 60_000, 399_000])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_half_one(room: int, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(checkpoint(1, 100_000), path)
    with largest_file(room), pytest.raises(EnvironmentFault, match=r"disk full.*last\.ckpt") as caught:
        write_checkpoint(checkpoint(2, 100_000), path)
    assert caught.value.exit_code == 7
    assert "resume" in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert read_checkpoint(path)["epoch"] == 1
    write_checkpoint(checkpoint(3, 100_000), path)
    assert read_checkpoint(path)["epoch"] == 3


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    write_checkpoint(checkpoint(1), tmp_path / "last.ckpt")
    (tmp_path / ".last.ckpt.4711.part").write_bytes(b"PK")
    remove_half_written(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EnvironmentFault, match="could not be written"):
        write_checkpoint(checkpoint(1), tmp_path / "file" / "last.ckpt")


@pytest.mark.parametrize("left", [0, 1, 100, 1500])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(left: int, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(checkpoint(1), path, keep_previous=True)
    write_checkpoint(checkpoint(2), path, keep_previous=True)
    path.write_bytes(path.read_bytes()[:left])
    found = read_last(path)
    assert found is not None
    assert found["epoch"] == 1


def test_flipped_bytes_never_pass_for_a_checkpoint_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"PK\x03\x04" + b"\xff" * 500)
    with pytest.raises(RunFailed, match="damaged"):
        read_checkpoint(path)
    assert read_last(path) is None


def test_without_any_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert read_last(tmp_path / "last.ckpt") is None


class Trap:
    """Runs code when it is unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return (spring, ())


def spring() -> str:
    Trap.sprung = True
    return "sprung"


def test_objects_are_read_only_from_checkpoints_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": Trap()}, path)
    with pytest.raises(RunFailed, match="would run code"):
        read_checkpoint(path)
    assert not Trap.sprung
    assert read_checkpoint(path, trusted=True)["hyper_parameters"] == "sprung"


def test_what_is_no_mapping_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(RunFailed, match="no checkpoint"):
        read_checkpoint(tmp_path / "list.ckpt")


@pytest.mark.parametrize(
    ("since", "cost", "begins", "due"),
    [
        (300.0, 9.0, False, True),
        (299.0, 0.0, False, False),
        (0.5, 0.0, True, True),  # none was taken yet: its cost is not known
        (0.5, 0.01, True, False),  # would take a fiftieth of the time
        (2.1, 0.01, True, True),
        (299.0, 60.0, True, False),
        (300.0, 60.0, True, True),
    ],
)
def test_checkpoints_are_due_in_time_but_not_too_often(since: float, cost: float, begins: bool, due: bool) -> None:
    assert checkpoint_due(since=since, cost=cost, every=300.0, epoch_begins=begins) is due
