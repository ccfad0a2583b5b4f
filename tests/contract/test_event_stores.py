"""Stores that objects are processed from and to keep what each of them promises."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rclone import free_port, serve

from ai4sdk.data.storage import locate
from ai4sdk.errors import DataError
from ai4sdk.serving.events.names import is_wanted, scratch_name
from ai4sdk.serving.events.stores.base import Gone, Item, Store
from ai4sdk.serving.events.stores.local import LocalStore, kind_of_mount
from ai4sdk.serving.events.stores.opening import open_store
from ai4sdk.spec import Storage


def everything(store: Store, *prefixes: str) -> dict[str, Item]:
    return {item.key: item for page in store.pages(prefixes) for item in page}


class StoreContract:
    """The suite; ``store`` is empty at the beginning of each test."""

    atomic: ClassVar[bool] = True

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    def change(self, store: Store, key: str, data: bytes) -> None:
        """Write as anybody would."""
        store.put(key, data)

    @pytest.fixture(autouse=True)
    def prepared(self, store: Store) -> None:
        store.prepare(writing=True)
        assert store.atomic is self.atomic

    def test_preparing_leaves_nothing_to_see(self, store):
        assert everything(store) == {}
        store.prepare(writing=False)

    def test_what_was_put_is_listed_and_read(self, store):
        store.put("a/b.txt", b"one")
        store.put("c.txt", b"")
        found = everything(store)
        assert {key: item.size for key, item in found.items()} == {"a/b.txt": 3, "c.txt": 0}
        assert all(item.settled for item in found.values())
        assert store.read(found["a/b.txt"], 100) == b"one"
        assert store.read(found["c.txt"], 100) == b""
        assert store.stat("a/b.txt") == found["a/b.txt"]
        assert store.fetch("a/b.txt") == b"one"

    @pytest.mark.parametrize(
        "key", ["ä ö.txt", "a+b.txt", "100%.txt", "%41.txt", "q?x=1&y.txt", "#1.txt", "a'b\"c.txt", "海/雪.txt"]
    )
    def test_keys_of_any_letters(self, store, key):
        store.put(key, b"x")
        found = everything(store)
        assert list(found) == [key]
        assert store.read(found[key], 10) == b"x"
        assert store.exists(key)
        assert store.create(f"results/{key}", b"y")
        assert store.fetch(f"results/{key}") == b"y"

    def test_hidden_names_are_not_listed_by_folder_stores_and_never_wanted(self, store):
        store.put(".ai4sdk/claims/1", b"x")
        store.put("a/.part", b"x")
        assert [key for key in everything(store) if is_wanted(key, (), ())] == []
        assert store.fetch(".ai4sdk/claims/1") == b"x"

    def test_a_folder_tells_its_names_hidden_or_not_and_a_missing_one_has_none(self, store, monkeypatch):
        monkeypatch.setattr("ai4sdk.serving.events.stores.s3.PAGE", 2)
        for name in ("1", "2", ".3", "below/4"):
            store.put(f".ai4sdk/claims/ab/{name}", b"x")
        store.put(".ai4sdk/claims/abc", b"x")
        assert sorted(store.names(".ai4sdk/claims/ab")) == [".3", "1", "2"]
        assert store.names(".ai4sdk/claims/cd") == []

    def test_prefixes_narrow_a_listing_and_show_nothing_twice(self, store):
        for key in ("in/1.txt", "in/2.txt", "other/1.txt", "in.txt"):
            store.put(key, b"x")
        listed = [item.key for page in store.pages(["in/", "in/1"]) for item in page]
        assert sorted(key for key in listed if key.startswith("in/")) == ["in/1.txt", "in/2.txt"]
        assert "other/1.txt" not in listed

    def test_more_than_a_page(self, store, monkeypatch):
        for module in ("local", "s3", "dav"):
            monkeypatch.setattr(f"ai4sdk.serving.events.stores.{module}.PAGE", 5)
        for number in range(12):
            store.put(f"{number % 3}/{number}", b"x")
        pages = list(store.pages([]))
        assert len(pages) > 1
        keys = [item.key for page in pages for item in page]
        assert sorted(keys) == sorted({f"{number % 3}/{number}" for number in range(12)})

    def test_another_content_is_another_version(self, store):
        self.change(store, "a.txt", b"one")
        before = everything(store)["a.txt"]
        self.change(store, "a.txt", b"two!")
        after = everything(store)["a.txt"]
        assert before != after
        with pytest.raises(Gone):
            store.read(before, 100)
        assert store.read(after, 100) == b"two!"

    def test_what_is_gone_is_said_to_be(self, store):
        store.put("a.txt", b"one")
        item = everything(store)["a.txt"]
        store.remove("a.txt")
        store.remove("a.txt")
        with pytest.raises(Gone):
            store.read(item, 100)
        assert store.stat("a.txt") is None
        assert store.stat("no/a.txt") is None
        assert store.fetch("a.txt") is None
        assert not store.exists("a.txt")

    def test_no_more_is_read_than_asked_for(self, store):
        store.put("a.bin", bytes(3_000_000))
        item = everything(store)["a.bin"]
        assert len(store.read(item, 2_500_000)) == 2_500_001
        assert len(store.read(item, 3_000_000)) == 3_000_000

    def test_create_spares_what_is_there(self, store):
        assert store.create("r/a.json", b"first")
        assert not store.create("r/a.json", b"second")
        assert store.fetch("r/a.json") == b"first"
        assert set(everything(store)) == {"r/a.json"}

    def test_put_replaces(self, store):
        store.put("a.json", b"first")
        store.put("a.json", b"second")
        assert store.fetch("a.json") == b"second"
        assert set(everything(store)) == {"a.json"}

    def test_of_many_that_create_a_name_one_wins(self, store):
        if not store.atomic:
            pytest.skip("this store does not mind conditions, and says so")
        for turn in range(3):
            barrier = threading.Barrier(8)

            with ThreadPoolExecutor(8) as pool:
                created = list(pool.map(partial(self.create_at_once, store, f"race/{turn}", barrier), range(8)))
            assert created.count(True) == 1
            assert store.fetch(f"race/{turn}") == str(created.index(True)).encode()

    def create_at_once(self, store: Store, name: str, barrier: threading.Barrier, number: int) -> bool:
        mine = self.other(store, number)
        barrier.wait()
        while True:
            try:
                return mine.create(name, str(number).encode())
            except DataError as error:  # S3 may ask to try again
                if "just being written" not in error.message:
                    raise

    def other(self, store: Store, number: int) -> Store:
        """Return the same place as another server has it."""
        return store

    def test_a_move_is_made_once_and_spares_what_is_there(self, store):
        if not store.moves:
            pytest.skip("this store does not move")
        store.put(".ai4sdk/staged/1", b"one")
        assert store.move(".ai4sdk/staged/1", "new/folder/a.json")
        assert store.fetch("new/folder/a.json") == b"one"
        with pytest.raises(Gone):
            store.move(".ai4sdk/staged/1", "b.json")
        store.put(".ai4sdk/staged/2", b"two")
        assert not store.move(".ai4sdk/staged/2", "new/folder/a.json")
        assert store.fetch("new/folder/a.json") == b"one"
        assert store.fetch(".ai4sdk/staged/2") is None

    def test_a_large_object(self, store):
        data = os.urandom(6_000_000)
        store.put("big.bin", data)
        assert store.read(everything(store)["big.bin"], 10_000_000) == data


class TestLocal(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "store")

    def other(self, store: Store, number: int) -> Store:
        return LocalStore(Path(store.address), owner=f"{number}")


class TestLocalWithoutRenamesThatSpare(StoreContract):
    """As on file systems that lack them: mounts of rclone, NFS."""

    atomic = False

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setattr("ai4sdk.serving.events.stores.local._rename_sparing", lambda source, target: None)
        return LocalStore(tmp_path / "store")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    port = free_port()
    server = serve(["s3", "--auth-key", "writer,right-secret", str(folder)], port)
    yield Storage(
        protocol="s3", endpoint=f"http://127.0.0.1:{port}", root="bucket", username="writer", password="right-secret"
    )
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def rclone_webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    folder = tmp_path_factory.mktemp("dav")
    port = free_port()
    arguments = ["--user", "ada", "--pass", "app-password", "--baseurl", "/remote.php/webdav"]
    server = serve(["webdav", *arguments, str(folder)], port)
    yield Storage(
        protocol="webdav",
        endpoint=f"http://127.0.0.1:{port}/remote.php/webdav",
        username="ada",
        password="app-password",
    )
    server.terminate()
    server.wait()


@pytest.mark.engine
@pytest.mark.usefixtures("credentials")
class TestS3WithoutConditions(StoreContract):
    """A store that does not mind If-None-Match, as older ones."""

    atomic = False

    @pytest.fixture
    def store(self, rclone_s3: Storage, tmp_path: Path) -> Store:
        return open_store(locate(f"storage://{uuid.uuid4().hex}", rclone_s3, tmp_path), "me")


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.usefixtures("credentials")
class TestWebDav(StoreContract):
    @pytest.fixture
    def store(self, rclone_webdav: Storage, tmp_path: Path) -> Store:
        self.storage, self.place = rclone_webdav, f"storage://{uuid.uuid4().hex}"
        return open_store(locate(self.place, rclone_webdav, tmp_path), "me")

    def other(self, store: Store, number: int) -> Store:
        return open_store(locate(self.place, self.storage, Path("/")), f"{number}")


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.usefixtures("credentials")
class TestRadosGateway(StoreContract):
    @pytest.fixture
    def store(self, rgw: Any, tmp_path: Path) -> Store:
        import s3fs

        storage = Storage(protocol="s3", endpoint=rgw.endpoint, root="contract", username=rgw.key, password=rgw.secret)
        s3fs.S3FileSystem(endpoint_url=rgw.endpoint, key=rgw.key, secret=rgw.secret, skip_instance_cache=True).call_s3(
            "create_bucket", Bucket="contract"
        )
        return open_store(locate(f"storage://{uuid.uuid4().hex}", storage, tmp_path), "me")


def test_a_file_is_taken_when_it_was_seen_unchanged_for_a_while_or_is_old(tmp_path):
    time_of_day, clock = [1000.0], [0.0]
    store = LocalStore(tmp_path, settle=2.0, now=lambda: time_of_day[0], clock=lambda: clock[0])
    (tmp_path / "a").write_text("x")
    os.utime(tmp_path / "a", (999, 999))
    assert not everything(store)["a"].settled
    clock[0] = 1.9
    assert not everything(store)["a"].settled
    clock[0] = 2.0
    assert everything(store)["a"].settled
    time_of_day[0] = 1061.0
    assert everything(LocalStore(tmp_path, settle=2.0, now=lambda: time_of_day[0]))["a"].settled


def test_a_file_that_still_grows_is_not_taken_where_the_clock_of_the_file_server_is_behind(tmp_path):
    clock = [0.0]
    store = LocalStore(tmp_path, settle=2.0, clock=lambda: clock[0])
    for size in range(1, 5):
        (tmp_path / "a").write_bytes(bytes(size))
        os.utime(tmp_path / "a", (time.time() - 30,) * 2)
        assert not everything(store)["a"].settled
        clock[0] += 1.5


def test_a_file_from_the_future_is_taken_when_it_was_seen_unchanged_for_a_while(tmp_path):
    clock = [0.0]
    store = LocalStore(tmp_path, settle=2.0, clock=lambda: clock[0])
    (tmp_path / "a").write_text("x")
    os.utime(tmp_path / "a", (time.time() + 1e6,) * 2)
    assert not everything(store)["a"].settled
    clock[0] = 1.9
    assert not everything(store)["a"].settled
    clock[0] = 2.0
    assert everything(store)["a"].settled


def test_a_file_that_is_exchanged_for_one_of_the_same_size_and_time_is_another_version(tmp_path):
    store = LocalStore(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (5, 5))
    before = everything(store)["a"]
    (tmp_path / "b").rename(tmp_path / "a")
    assert everything(store)["a"] != before


MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /data rw - fuse.rclone remote: rw
31 21 0:41 / /data/with\\040space rw - nfs4 host:/export rw
32 21 0:42 / /database rw - xfs /dev/sdb1 rw
33 21 0:43 / /twice rw - xfs /dev/sdc1 rw
34 33 0:44 / /twice rw - fuse.sshfs host: rw
nonsense
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/srv/in", "ext4"),
        ("/data/in", "fuse.rclone"),
        ("/data", "fuse.rclone"),
        ("/data/with space/in", "nfs4"),
        ("/database", "xfs"),
        ("/twice/in", "fuse.sshfs"),
    ],
)
def test_the_kind_of_file_system_a_folder_lies_on(folder, kind, tmp_path):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert kind_of_mount(Path(folder), str(tmp_path / "mountinfo")) == kind
    assert kind_of_mount(Path(folder), str(tmp_path / "nothing")) == ""


def test_a_file_stays_the_version_it_was_where_inodes_do_not_last(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    for name in ("a", "b"):
        os.utime(tmp_path / name, (5, 5))
    monkeypatch.setattr("ai4sdk.serving.events.stores.local.kind_of_mount", lambda folder: "fuse.sshfs")
    store = LocalStore(tmp_path)
    before = everything(store)["a"]
    (tmp_path / "b").rename(tmp_path / "a")  # another inode
    assert everything(store)["a"] == before
    assert store.read(before, 10) == b"x"


def test_what_a_kill_left_of_a_write_is_removed_by_its_owner_at_the_next_start(tmp_path):
    for owner in ("me", "other"):
        store = LocalStore(tmp_path, owner=owner)
        store.put("r.json", b"whole")
        (tmp_path / scratch_name(owner, "half.json")).write_bytes(b"ha")
    LocalStore(tmp_path, owner="me").prepare(writing=True)
    assert not (tmp_path / scratch_name("me", "half.json")).exists()
    assert (tmp_path / scratch_name("other", "half.json")).exists()


def test_links_are_not_followed(tmp_path):
    """Whoever may put files there must not be able to have others read."""
    (tmp_path / "secret").write_text("secret")
    inside = tmp_path / "in"
    (inside / "a").mkdir(parents=True)
    (inside / "a" / "x").write_text("x")
    (inside / "a" / "back").symlink_to(inside)
    (inside / "y").symlink_to(tmp_path / "secret")
    os.mkfifo(inside / "pipe")
    store = LocalStore(inside)
    assert set(everything(store)) == {"a/x"}
    assert store.stat("y") is None
    item = everything(store)["a/x"]
    (inside / "a" / "x").unlink()
    (inside / "a" / "x").symlink_to(tmp_path / "secret")
    with pytest.raises((Gone, DataError)):
        store.read(item, 100)


def test_a_folder_that_is_not_there_is_said_to_be(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        LocalStore(tmp_path / "in").prepare(writing=False)
