"""Remote data: real servers on this machine, with the right and the wrong credentials, and on their bad days."""

from __future__ import annotations

import http.server
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ai4sdk.backends.kubernetes.results import bring, send
from ai4sdk.data.fetch import local_source
from ai4sdk.data.fingerprint import fingerprint
from ai4sdk.data.hashes import cache_folder
from ai4sdk.data.module import load_data
from ai4sdk.data.source import find_source
from ai4sdk.data.storage import locate
from ai4sdk.data.summary import summarize
from ai4sdk.errors import Ai4Error, DataError, EnvironmentFault
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import FileDataset, Storage

FLOWERS = "length,colour,kind\n" + "".join(
    f"{index},{'red' if index % 3 else 'blue'},{'rose' if index % 2 else 'lily'}\n" for index in range(40)
)


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def changed_later(path: Path, content: str) -> None:
    """Change a file with a time of change that servers show in whole seconds."""
    path.write_text(content)
    then = time.time() - 5
    os.utime(path, (then, then))


def whole_way(dataset: FileDataset, storage: Storage, project: Path, path: Path) -> None:
    """Plan, train, change the data, be refused."""
    planned = fingerprint(dataset, storage, project)
    summary = summarize(dataset, storage, project, "auto")
    assert (summary.rows, summary.classes, summary.complete) == (40, 2, True)
    data = load_data(dataset, storage=storage, project=project, task="auto", seed=0, instantiate=dict)
    assert sum(len(x) for x, _ in data.datamodule.train_dataloader()) == (summary.splits or {})["train"]
    changed_later(path, FLOWERS.replace("39,", "38,"))
    with pytest.raises(DataError, match="data changed since the plan was made"):
        load_data(
            dataset.model_copy(update={"fingerprint": planned.value}),
            storage=storage,
            project=project,
            task="auto",
            seed=0,
            instantiate=dict,
        )


def refused(dataset: FileDataset, storage: Storage, project: Path) -> Ai4Error:
    with pytest.raises((DataError, EnvironmentFault)) as caught:
        summarize(dataset, storage, project, "auto")
    shown = str(caught.value)
    for secret in ("right-secret", "app-password", "wrong-secret"):
        assert secret not in shown
    assert caught.value.hint
    return caught.value


# HTTP --------------------------------------------------------------------------------------------------------------


def test_http(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    write(folder, {"a.csv": FLOWERS})
    whole_way(FileDataset(uri=f"{url}/a.csv", label="kind"), Storage(), tmp_path, folder / "a.csv")


def test_a_folder_over_http(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    write(folder, {"x/b c/1.csv": FLOWERS, "x/a.csv": FLOWERS, "x/notes.txt": "no data"})
    dataset = FileDataset(uri=f"{url}/x/", label="kind")
    assert fingerprint(dataset, Storage(), tmp_path).files == 2
    assert summarize(dataset, Storage(), tmp_path, "auto").rows == 80
    copy = local_source(find_source(dataset, Storage(), tmp_path), Storage())
    assert [entry.name for entry in copy.entries] == ["a.csv", "b c/1.csv"]
    assert copy.location.local_path(copy.entries[1]).read_text() == FLOWERS


def test_what_is_not_at_a_url(web: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = web
    error = refused(FileDataset(uri=f"{url}/gone.csv"), Storage(), tmp_path)
    assert error.message == f"cannot read {url}/gone.csv: there is nothing at this address"


def test_no_server(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        uri = f"http://ada:wrong-secret@127.0.0.1:{taken.getsockname()[1]}/a.csv?token=wrong-secret"
        error = refused(FileDataset(uri=uri), Storage(), tmp_path)
    assert "127.0.0.1" in error.message
    assert "connection refused" in error.message


def test_no_such_host(tmp_path: Path) -> None:
    for storage, uri in (
        (Storage(), "https://no-such-host.invalid/a.csv"),
        (Storage(protocol="s3", endpoint="https://no-such-host.invalid"), "storage://b/a.csv"),
        (Storage(protocol="webdav", endpoint="https://no-such-host.invalid/dav"), "storage://a.csv"),
    ):
        error = refused(FileDataset(uri=uri), storage, tmp_path)
        assert "no-such-host.invalid" in error.message
        assert "host name is not known" in error.message


@pytest.fixture
def silent() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(20)
        yield server.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "s3", "webdav"])
def test_a_server_that_never_answers(
    silent: int, tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ai4sdk.data.storage.READ_TIMEOUT", 1.0)
    storage = Storage(
        protocol=protocol, endpoint=f"http://127.0.0.1:{silent}", username="ada", password="wrong-secret", root="b"
    )
    assert "does not answer in time" in refused(FileDataset(uri="storage://a.csv"), storage, tmp_path).message


def test_a_server_that_speaks_no_tls(web: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = web
    error = refused(FileDataset(uri=f"{url.replace('http', 'https')}/a.csv"), Storage(), tmp_path)
    assert "TLS" in error.message
    assert "http or https" in (error.hint or "")


def test_a_certificate_nobody_vouches_for(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no openssl here")
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    for storage, uri in (
        (Storage(), f"https://{host}/a.csv"),
        (Storage(protocol="webdav", endpoint=f"https://{host}/dav"), "storage://a.csv"),
        (Storage(protocol="s3", endpoint=f"https://{host}", username="a", password="b"), "storage://b/a.csv"),
    ):
        error = refused(FileDataset(uri=uri), storage, tmp_path)
        assert "certificate is not accepted" in error.message, uri
    server.shutdown()
    server.server_close()


class Careful(http.server.BaseHTTPRequestHandler):
    """Lets one user in, breaks off the first answers half way, and continues where it is asked to."""

    content = os.urandom(3_000_000)
    breaks = 0
    asked: list[str | None] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def answer(self, *, head: bool) -> None:
        if self.path.startswith("/private") and self.headers.get("Authorization") != "Bearer right-secret":
            self.send_response(401 if not self.headers.get("Authorization") else 403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path.startswith("/broken"):
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("ETag", '"v1"')
        self.end_headers()
        if head:
            return
        Careful.asked.append(wanted)
        end = len(self.content)
        if Careful.breaks > 0:
            Careful.breaks -= 1
            end = start + 1_000_000
        self.wfile.write(self.content[start:end])
        if end < len(self.content):
            self.close_connection = True


@pytest.fixture
def careful() -> Iterator[str]:
    Careful.breaks, Careful.asked = 0, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Careful)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetched(uri: str, project: Path, storage: Storage | None = None) -> Path:
    storage = storage or Storage()
    copy = local_source(find_source(FileDataset(uri=uri, format="npy"), storage, project), storage)
    return copy.location.local_path(copy.entries[0])


def test_a_download_that_breaks_off_goes_on_where_it_was(careful: str, tmp_path: Path) -> None:
    Careful.breaks = 2
    path = fetched(f"{careful}/a.npy", tmp_path)
    assert path.read_bytes() == Careful.content
    assert Careful.asked[0] is None
    assert [asked for asked in Careful.asked if asked] != []
    assert all(asked != "bytes=0-" for asked in Careful.asked)


def test_a_download_killed_in_the_middle_goes_on_the_next_time(careful: str, tmp_path: Path) -> None:
    path = fetched(f"{careful}/a.npy", tmp_path)
    (path.parents[1] / "manifest.json").unlink()
    path.rename(path.with_name("a.npy.part"))
    os.truncate(path.with_name("a.npy.part"), 1234)
    Careful.asked = []
    assert fetched(f"{careful}/a.npy", tmp_path).read_bytes() == Careful.content
    assert Careful.asked == ["bytes=1234-"]


def test_a_second_look_fetches_nothing(careful: str, tmp_path: Path) -> None:
    fetched(f"{careful}/a.npy", tmp_path)
    Careful.asked = []
    fetched(f"{careful}/a.npy", tmp_path)
    assert Careful.asked == []


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_copy_is_fetched_again(careful: str, tmp_path: Path, damage: str) -> None:
    path = fetched(f"{careful}/a.npy", tmp_path)
    if damage == "cut":
        os.truncate(path, 10)
    elif damage == "changed":
        path.write_bytes(b"x" * len(Careful.content))
    else:
        path.unlink()
    assert fetched(f"{careful}/a.npy", tmp_path).read_bytes() == Careful.content


def test_a_token(careful: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "right-secret")
    let_in = Storage(protocol="http", endpoint=careful, token="${secret:TOKEN}")
    assert fetched("storage://private/a.npy", tmp_path, let_in).stat().st_size == 3_000_000
    assert fetched(f"{careful}/private/a.npy", tmp_path, let_in).exists()
    dataset = FileDataset(uri="storage://private/a.npy")
    wrong = let_in.model_copy(update={"token": "wrong-secret"})
    assert "the server refuses access" in refused(dataset, wrong, tmp_path).message
    without = let_in.model_copy(update={"token": None})
    error = refused(dataset, without, tmp_path)
    assert "wants a user name and password" in error.message
    assert "storage.token" in (error.hint or "")
    monkeypatch.delenv("TOKEN")
    assert isinstance(refused(dataset, let_in, tmp_path), EnvironmentFault)


def test_credentials_go_to_their_own_server_only(careful: str, tmp_path: Path) -> None:
    elsewhere = Storage(protocol="http", endpoint="http://127.0.0.1:1", token="right-secret")
    error = refused(FileDataset(uri=f"{careful}/private/a.npy"), elsewhere, tmp_path)
    assert "wants a user name and password" in error.message


def test_a_server_in_trouble(careful: str, tmp_path: Path) -> None:
    error = refused(FileDataset(uri=f"{careful}/broken/a.npy"), Storage(), tmp_path)
    assert "status 503" in error.message


def test_a_full_disk(careful: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        with pytest.raises(EnvironmentFault, match="no space left") as caught:
            fetched(f"{careful}/a.npy", tmp_path, Storage(cache=str(small)))
        assert "storage.cache" in (caught.value.hint or "")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_disk_that_fills_up_while_fetching(careful: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        monkeypatch.setattr("ai4sdk.data.fetch.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**12}))
        with pytest.raises(EnvironmentFault, match="no space left"):
            fetched(f"{careful}/a.npy", tmp_path, Storage(cache=str(small)))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_cache_that_cannot_be_made(careful: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot keep a copy"):
        fetched(f"{careful}/a.npy", tmp_path, Storage(cache=str(tmp_path / "file" / "below")))


def test_two_processes_fetch_once(careful: str, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from ai4sdk.data.fetch import local_source
from ai4sdk.data.source import find_source
from ai4sdk.spec import FileDataset, Storage
copy = local_source(find_source(FileDataset(uri="{careful}/a.npy"), Storage(), Path()), Storage())
print(copy.location.local_path(copy.entries[0]).stat().st_size)
"""
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [run.communicate(timeout=120)[0] for run in runs] == ["3000000\n"] * 3
    assert len(Careful.asked) == 1


def test_a_file_changed_while_it_is_fetched(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    write(folder, {"a.csv": FLOWERS})
    source = find_source(FileDataset(uri=f"{url}/a.csv"), Storage(), tmp_path)
    changed_later(folder / "a.csv", FLOWERS.replace("39,", "38,"))
    with pytest.raises(DataError, match="data changed"):
        local_source(source, Storage())
    assert not list(cache_folder().rglob("manifest.json"))


# S3 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_s3(s3: tuple[Storage, Path], tmp_path: Path) -> None:
    storage, bucket = s3
    write(bucket, {"deep/a.csv": FLOWERS})
    whole_way(FileDataset(uri="storage://deep/a.csv", label="kind"), storage, tmp_path, bucket / "deep" / "a.csv")
    write(bucket, {"deep/a.csv": FLOWERS})
    assert summarize(FileDataset(uri="s3://bucket/deep/a.csv", label="kind"), storage, tmp_path, "auto").rows == 40


@pytest.mark.engine
def test_s3_pictures_with_given_splits(s3: tuple[Storage, Path], tmp_path: Path) -> None:
    from PIL import Image

    storage, bucket = s3
    for name in ("train/cat/1", "train/dog/1", "test/cat/2"):
        (bucket / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "white").save(bucket / "x" / f"{name}.png")
    splits = {"method": "given", "train": "train", "test": "test"}
    dataset = FileDataset.model_validate({"uri": "storage://x", "splits": splits, "images": {"size": [4, 4]}})
    summary = summarize(dataset, storage, tmp_path, "auto")
    assert (summary.class_names, summary.splits) == (("cat", "dog"), {"train": 2, "test": 1})
    data = load_data(dataset, storage=storage, project=tmp_path, task="auto", seed=0, instantiate=dict)
    x, y = next(iter(data.datamodule.test_dataloader()))
    assert (x.shape, y.tolist()) == ((1, 3, 4, 4), [0])


@pytest.mark.engine
@pytest.mark.parametrize(
    ("change", "uri", "message"),
    [
        ({"password": "wrong-secret"}, "storage://a.csv", "refuse"),
        ({"username": "nobody"}, "storage://a.csv", "refuse"),
        ({"root": "no-bucket"}, "storage://a.csv", "nothing at this address"),
        ({}, "storage://gone.csv", "nothing at this address"),
    ],
)
def test_s3_refuses(s3: tuple[Storage, Path], tmp_path: Path, change: dict[str, str], uri: str, message: str) -> None:
    storage, bucket = s3
    write(bucket, {"a.csv": FLOWERS})
    error = refused(FileDataset(uri=uri), storage.model_copy(update=change), tmp_path)
    assert message in error.message
    assert (storage.endpoint or "") in error.message


# WebDAV ------------------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_webdav(webdav: tuple[Storage, Path], tmp_path: Path) -> None:
    storage, folder = webdav
    write(folder, {"my data/a.csv": FLOWERS})
    dataset = FileDataset(uri="storage://my data/a.csv", label="kind")
    whole_way(dataset, storage, tmp_path, folder / "my data" / "a.csv")


@pytest.mark.engine
def test_webdav_by_its_whole_address(webdav: tuple[Storage, Path], tmp_path: Path) -> None:
    storage, folder = webdav
    write(folder, {"a.csv": FLOWERS})
    uri = f"{(storage.endpoint or '').replace('http', 'webdav')}/a.csv"
    assert summarize(FileDataset(uri=uri, label="kind"), storage, tmp_path, "auto").rows == 40


@pytest.mark.engine
def test_user_and_password_over_http(webdav: tuple[Storage, Path], tmp_path: Path) -> None:
    storage, folder = webdav
    write(folder, {"a.csv": FLOWERS})
    dataset = FileDataset(uri="storage://a.csv", label="kind")
    assert summarize(dataset, storage.model_copy(update={"protocol": "http"}), tmp_path, "auto").rows == 40
    wrong = storage.model_copy(update={"protocol": "http", "password": "wrong-secret"})
    assert "or refuses those given" in refused(dataset, wrong, tmp_path).message


@pytest.mark.engine
def test_webdav_folder(webdav: tuple[Storage, Path], tmp_path: Path) -> None:
    storage, folder = webdav
    np.save(tmp_path / "a.npy", np.ones((5, 2)))
    write(folder, {f"x/{name}.npy": (tmp_path / "a.npy").read_bytes() for name in ("a", "b", "ü c")})
    rooted = storage.model_copy(update={"root": "x"})
    assert summarize(FileDataset(uri="storage://"), rooted, tmp_path, "auto").rows == 15
    assert fingerprint(FileDataset(uri="storage://x"), storage, tmp_path).files == 3


@pytest.mark.engine
@pytest.mark.parametrize(
    ("change", "uri", "message"),
    [
        ({"password": "wrong-secret"}, "storage://a.csv", "wants a user name and password, or refuses"),
        ({"username": None}, "storage://a.csv", "wants a user name and password"),
        ({}, "storage://gone.csv", "nothing at this address"),
        ({}, "storage://gone/deeper/", "nothing at this address"),
    ],
)
def test_webdav_refuses(
    webdav: tuple[Storage, Path], tmp_path: Path, change: dict[str, str], uri: str, message: str
) -> None:
    storage, folder = webdav
    write(folder, {"a.csv": FLOWERS})
    error = refused(FileDataset(uri=uri), storage.model_copy(update=change), tmp_path)
    assert message in error.message
    assert (storage.endpoint or "") in error.message


# Any other ---------------------------------------------------------------------------------------------------------


def test_any_protocol_of_fsspec(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/ai4sdk/a.csv", FLOWERS.encode())
    try:
        assert summarize(FileDataset(uri="memory://ai4sdk/a.csv", label="kind"), Storage(), tmp_path, "auto").rows == 40
        rooted = Storage(protocol="memory", root="ai4sdk")
        assert summarize(FileDataset(uri="storage://a.csv", label="kind"), rooted, tmp_path, "auto").rows == 40
    finally:
        memory.rm("/ai4sdk", recursive=True)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai4sdk.data.storage.importlib.util.find_spec", lambda _: None)
    storage = Storage(protocol="s3", endpoint="http://127.0.0.1:1")
    with pytest.raises(EnvironmentFault) as caught:
        fingerprint(FileDataset(uri="storage://b/a.csv"), storage, tmp_path)
    assert caught.value.hint == "pip install 'ai4sdk[s3]'"


def test_a_server_cannot_have_files_written_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/ai4sdk2/../escape.csv", FLOWERS.encode())
    memory.pipe("/ai4sdk2/a.csv", FLOWERS.encode())
    from ai4sdk.data.storage import Entry, Location

    listed = [Entry("../escape.csv", len(FLOWERS), "v1"), Entry("a.csv", len(FLOWERS), "v1")]
    monkeypatch.setattr(Location, "entries", lambda _: listed)
    try:
        source = find_source(FileDataset(uri="memory://ai4sdk2"), Storage(), tmp_path)
        with pytest.raises(DataError, match="escape"):
            local_source(source, Storage())
    finally:
        memory.store.clear()


def test_nothing_of_a_location_shows_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = Storage(
        protocol="webdav", endpoint="https://u:right-secret@h/dav", username="ada", password="app-password"
    )
    with caplog.at_level(logging.DEBUG):
        for uri in (
            "storage://a.csv",
            "webdavs://u:right-secret@h/dav/a.csv",
            "https://u:right-secret@h/a.csv?sig=app-password",
        ):
            location = locate(uri, storage, tmp_path)
            assert "app-password" not in location.address
            assert "right-secret" not in location.address
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("uri", "storage", "protocol", "path"),
    [
        ("a/b.csv", {}, "file", "{project}/a/b.csv"),
        ("/a/b.csv", {}, "file", "/a/b.csv"),
        ("file:///a/b%20c.csv", {}, "file", "/a/b c.csv"),
        ("~/b.csv", {}, "file", "{home}/b.csv"),
        ("storage://b.csv", {"root": "data"}, "file", "{project}/data/b.csv"),
        ("storage://b.csv", {}, "file", "{project}/b.csv"),
        ("storage://k/b.csv", {"protocol": "s3", "root": "bucket/x/"}, "s3", "bucket/x/k/b.csv"),
        ("s3://bucket/b.csv", {}, "s3", "bucket/b.csv"),
        ("https://h/b.csv", {}, "http", "https://h/b.csv"),
        ("storage://b.csv", {"protocol": "https", "endpoint": "https://h/x/"}, "http", "https://h/x/b.csv"),
        ("webdavs://h/dav/b.csv", {}, "webdav", "dav/b.csv"),
        ("memory://x/b.csv", {}, "memory", "x/b.csv"),
    ],
)
def test_where_addresses_point(
    tmp_path: Path, own_home: Path, uri: str, storage: dict[str, Any], protocol: str, path: str
) -> None:
    found = locate(uri, Storage.model_validate(storage), tmp_path)
    assert (found.protocol, found.path) == (protocol, path.format(project=tmp_path, home=own_home))


def test_webdav_keeps_to_https_where_the_storage_does(tmp_path: Path) -> None:
    storage = Storage(protocol="webdav", endpoint="https://h/dav", username="ada", password="x")
    assert locate("webdav://h/dav/a.csv", storage, tmp_path).server == "https://h"
    other = locate("webdav://other/dav/a.csv", storage, tmp_path)
    assert other.server == "http://other"
    assert "password" not in other.credentials


@pytest.mark.parametrize("protocol", ["http", "webdav"])
def test_a_storage_needs_its_server(tmp_path: Path, protocol: str) -> None:
    with pytest.raises(DataError, match="has no server"):
        locate("storage://a.csv", Storage(protocol=protocol), tmp_path)


@pytest.mark.parametrize(
    "uri",
    [
        "http://[::1/a.csv",
        "http://h:port/a.csv",
        "~nobody-here/a.csv",
        "a\0b.csv",
        "x" * 5000,
        "://",
        "s3://",
        "file://",
        "storage://",
        "webdav://",
        "http://",
        "https://h:99999/a.csv",
        "webdavs://u:p@[/x",
        " ",
        ".",
        "/",
    ],
)
def test_no_address_ends_in_a_traceback(tmp_path: Path, uri: str) -> None:
    with pytest.raises(Ai4Error):
        summarize(FileDataset(uri=uri, format="csv"), Storage(), tmp_path, "auto")


@pytest.mark.parametrize(
    "settings",
    [
        {"protocol": "s3", "endpoint": "localhost:9000"},
        {"protocol": "s3", "endpoint": "nonsense"},
        {"protocol": "webdav", "endpoint": "nonsense"},
        {"protocol": "http", "endpoint": "nonsense"},
        {"protocol": "memory", "options": {"no-such": 1}},
        {"protocol": "no-such-protocol"},
        {"protocol": "s3", "endpoint": "http://127.0.0.1:1", "options": {"config_kwargs": {"no_such": 1}}},
        {"protocol": ""},
        {"protocol": "file", "root": "\0"},
    ],
)
def test_no_storage_ends_in_a_traceback(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(Ai4Error) as caught:
        summarize(FileDataset(uri="storage://b/a.csv"), Storage.model_validate(settings), tmp_path, "auto")
    assert caught.value.hint


@pytest.mark.parametrize("store", ["s3", "webdav"])
def test_what_pods_left_comes_home_by_way_of_a_server(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    storage, _ = request.getfixturevalue(store)
    plan: Any = SimpleNamespace(job={"backend": {"results": "storage://runs"}, "storage": storage.model_dump()})
    there, here = RunPaths(tmp_path / "claim" / "one"), RunPaths(tmp_path / "runs" / "one")
    write(there.root, {"package/weights": "0" * 5000, "metrics.jsonl": "1"})
    here.root.mkdir(parents=True)
    send(plan, there, tmp_path)
    assert bring(plan, here, tmp_path) == 2
    assert (here.package / "weights").read_text() == "0" * 5000
    send(plan, there, tmp_path)
    assert bring(plan, here, tmp_path) == 0
