"""Tests of data use real files and real servers on this machine; home, cache and secrets are the test's own."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rclone import free_port, serve

from ai4sdk.spec import FileDataset, Storage


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., FileDataset]:
    """Write a CSV file into the project and return the dataset that reads it."""

    def write(text: str, name: str = "data.csv", **settings: Any) -> FileDataset:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return FileDataset.model_validate({"uri": name, **settings})

    return write


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder over HTTP; gives its URL and the folder."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Storage, Path]]:
    """An S3 store with a bucket named ``bucket``; gives how to be let in, and the bucket's folder."""
    bucket = tmp_path / "s3" / "bucket"
    bucket.mkdir(parents=True)
    port = free_port()
    server = serve(["s3", "--auth-key", "reader,right-secret", str(tmp_path / "s3")], port)
    monkeypatch.setenv("S3_KEY", "reader")
    monkeypatch.setenv("S3_SECRET", "right-secret")
    yield (
        Storage(
            protocol="s3",
            endpoint=f"http://127.0.0.1:{port}",
            root="bucket",
            username="${secret:S3_KEY}",
            password="${secret:S3_SECRET}",
        ),
        bucket,
    )
    server.terminate()
    server.wait()


@pytest.fixture
def webdav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Storage, Path]]:
    """A WebDAV server as Nextcloud is one; gives how to be let in, and its folder."""
    folder = tmp_path / "dav"
    folder.mkdir()
    port = free_port()
    arguments = ["--user", "ada", "--pass", "app-password", "--baseurl", "/remote.php/webdav", "--dir-cache-time", "0s"]
    server = serve(["webdav", *arguments, str(folder)], port)
    monkeypatch.setenv("DAV_PASSWORD", "app-password")
    yield (
        Storage(
            protocol="webdav",
            endpoint=f"http://127.0.0.1:{port}/remote.php/webdav",
            username="ada",
            password="${secret:DAV_PASSWORD}",
        ),
        folder,
    )
    server.terminate()
    server.wait()
