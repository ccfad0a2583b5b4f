from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ai4sdk.data.fingerprint import fingerprint, fingerprint_path, fingerprint_source, require
from ai4sdk.data.hashes import cache_folder, hash_files
from ai4sdk.data.source import find_source
from ai4sdk.errors import DataError
from ai4sdk.spec import FileDataset, Splits, Storage

HERE = Storage()


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_same_content_same_fingerprint_anywhere(tmp_path: Path) -> None:
    files = {"a/1.png": b"one", "b/2.png": b"two"}
    first, second = folder(tmp_path / "x", files), folder(tmp_path / "y", files)
    found = fingerprint(FileDataset(uri=str(first)), HERE, tmp_path)
    assert found.value == fingerprint(FileDataset(uri="y"), HERE, tmp_path).value
    assert found.value.startswith("sha256:")
    assert len(found.value) == 71
    assert (found.files, found.bytes) == (2, 6)
    assert found.newest == pytest.approx((first / "b/2.png").stat().st_mtime)
    assert second.exists()


def test_a_single_file_may_be_renamed(tmp_path: Path) -> None:
    folder(tmp_path, {"a.csv": b"x,y\n1,2\n", "b.csv": b"x,y\n1,2\n"})
    assert (
        fingerprint(FileDataset(uri="a.csv"), HERE, tmp_path).value
        == fingerprint(FileDataset(uri="b.csv"), HERE, tmp_path).value
    )


@pytest.mark.parametrize(
    "files",
    [
        {"a/1.png": b"onf", "b/2.png": b"two"},
        {"a/1.png": b"one", "c/2.png": b"two"},
        {"a/1.png": b"one"},
        {"a/1.png": b"one", "b/2.png": b"two", "b/3.png": b""},
        {"a/1.png": b"two", "b/2.png": b"one"},
    ],
)
def test_any_change_changes_it(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder(tmp_path / "x", {"a/1.png": b"one", "b/2.png": b"two"})
    folder(tmp_path / "y", files)
    assert fingerprint_path(tmp_path / "x") != fingerprint_path(tmp_path / "y")


def test_only_data_counts(tmp_path: Path) -> None:
    folder(tmp_path / "x", {"a/1.png": b"one", "b/2.JPG": b"two"})
    before = fingerprint(FileDataset(uri="x"), HERE, tmp_path)
    folder(tmp_path / "x", {"README.md": b"read", ".DS_Store": b"junk", "a/.thumb.png": b"t", "__MACOSX/a/1.png": b"m"})
    assert fingerprint(FileDataset(uri="x"), HERE, tmp_path).value == before.value


def test_with_given_splits_only_named_files_count(tmp_path: Path) -> None:
    folder(tmp_path / "x", {"train.csv": b"1", "test.csv": b"2", "old.csv": b"3"})
    dataset = FileDataset(uri="x", splits=Splits(method="given", train="train.csv", val=None, test="test.csv"))
    before = fingerprint(dataset, HERE, tmp_path)
    folder(tmp_path / "x", {"old.csv": b"changed"})
    assert fingerprint(dataset, HERE, tmp_path).value == before.value
    folder(tmp_path / "x", {"test.csv": b"changed"})
    assert fingerprint(dataset, HERE, tmp_path).value != before.value


def test_changed_data_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"a.csv": b"x,y\n1,2\n"})
    source = find_source(FileDataset(uri="a.csv"), HERE, tmp_path)
    planned = fingerprint_source(source)
    require(planned, planned.value, source)
    for content in (b"x,y\n1,3\n", b"x,y\n1"):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(DataError, match="data changed since the plan was made"):
            require(fingerprint_source(source.again()), planned.value, source)


def test_a_change_right_after_hashing_is_seen(tmp_path: Path) -> None:
    """Same size, same time of change: what coarse file systems make of two quick writes."""
    file = tmp_path / "a.csv"
    file.write_bytes(b"1")
    status = file.stat()
    first = hash_files([file])
    file.write_bytes(b"2")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hash_files([file]) != first


def test_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1")
    hash_files([tmp_path / "a.csv"])
    assert not (cache_folder() / "hashes.sqlite").exists()


def test_a_settled_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"content")
    now = time.time()
    monkeypatch.setattr("ai4sdk.data.hashes.time.time", lambda: now + 60)
    first = hash_files([file])
    reads = []
    monkeypatch.setattr("ai4sdk.data.hashes.hashlib.file_digest", lambda *_: reads.append(1))
    assert hash_files([file]) == first
    assert not reads


def test_a_damaged_store_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"content")
    store = cache_folder() / "hashes.sqlite"
    store.parent.mkdir(parents=True)
    store.write_bytes(b"this is no database, and long enough to be looked at" * 100)
    now = time.time()
    monkeypatch.setattr("ai4sdk.data.hashes.time.time", lambda: now + 60)
    first = hash_files([file])
    assert hash_files([file]) == first
    with sqlite3.connect(store) as database:
        assert database.execute("SELECT count(*) FROM hashes").fetchone() == (1,)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, own_home: Path) -> None:
    (own_home / "cache").write_text("a file where a folder should be")
    (tmp_path / "a.bin").write_bytes(b"content")
    assert len(hash_files([tmp_path / "a.bin"])[0]) == 64


def test_two_processes_at_once_agree(tmp_path: Path, own_home: Path) -> None:
    folder(tmp_path / "x", {f"{index}.png": bytes([index]) * 100 for index in range(200)})
    code = f"""
import time
from pathlib import Path
import ai4sdk.data.hashes as hashes
now = time.time
hashes.time = type("Later", (), {{"time": staticmethod(lambda: now() + 60)}})
from ai4sdk.data.fingerprint import fingerprint_path
print({{fingerprint_path(Path({str(tmp_path / "x")!r})) for _ in range(5)}})
"""
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {run.communicate(timeout=120)[0] for run in runs}
    assert answers == {f"{{'{fingerprint_path(tmp_path / 'x')}'}}\n"}


def test_a_link_back_is_not_followed_for_ever(tmp_path: Path) -> None:
    folder(tmp_path / "x", {"a/1.png": b"one"})
    (tmp_path / "x" / "a" / "up").symlink_to(tmp_path / "x")
    assert fingerprint(FileDataset(uri="x"), HERE, tmp_path).files == 1


def test_linked_folders_count(tmp_path: Path) -> None:
    folder(tmp_path / "elsewhere", {"1.png": b"one"})
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").symlink_to(tmp_path / "elsewhere")
    assert fingerprint(FileDataset(uri="x"), HERE, tmp_path).files == 1


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    folder(tmp_path, {"measurements.csv": b"x"})
    with pytest.raises(DataError, match="there is no file or folder") as caught:
        fingerprint(FileDataset(uri="measurement.csv"), HERE, tmp_path)
    assert "measurements.csv" in (caught.value.hint or "")
