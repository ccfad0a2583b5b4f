"""The stand-in's address: HTTP on this machine alone."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ai4sdk.backends.oscar.standin.cluster import Asked, Cluster
from ai4sdk.backends.oscar.standin.files import write_private
from ai4sdk.errors import EnvironmentFault
from ai4sdk.runs.files import read_json

__all__ = ["ACCESS", "Access", "read_access", "serving"]

ACCESS = "access.json"
"""File with the address and the password of a stand-in that runs, for its user's eyes only."""
_MOST = 100 * 2**20
"""Bytes of a request's body."""

Access = dict[str, str]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        given = self.headers.get("Content-Length") or "0"
        length = int(given) if given.isascii() and given.isdigit() else -1
        if length < 0:
            self.send_error(400)
            self.close_connection = True
            return
        if length > _MOST:
            self.send_error(413)
            self.close_connection = True
            return
        address = urlsplit(self.path)
        who, kind = (self.headers.get(name, "") for name in ("Authorization", "Content-Type"))
        reply = self.server.cluster.answer(
            Asked(self.command, address.path, address.query, who, self.rfile.read(length), kind)
        )
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what matters is in the jobs' logs."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, cluster: Cluster) -> None:
        self.cluster = cluster
        super().__init__(("127.0.0.1", port), _Handler)


@contextlib.contextmanager
def serving(folder: Path, port: int = 0, **options: Any) -> Iterator[tuple[Access, ThreadingHTTPServer]]:
    """Make a stand-in and its server, which the caller lets serve.

    Parameters
    ----------
    folder
        Keeps everything; what was there goes on.
    port
        Port of 127.0.0.1; 0 is any.
    options
        Further arguments of `Cluster`.

    Raises
    ------
    EnvironmentFault
        If the port is taken, or another stand-in runs in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = read_access(folder)
    if there is not None:
        raise EnvironmentFault(f"a stand-in runs in {folder} already: {there['endpoint']}", hint="--folder FOLDER")
    password = secrets.token_urlsafe(16)
    cluster = Cluster(folder, "oscar", password, **options)
    try:
        server = _Server(port, cluster)
    except OSError as error:
        cluster.close()
        raise EnvironmentFault(f"port {port} cannot be had: {error.strerror or error}", hint="--port 0") from error
    address = f"http://127.0.0.1:{server.server_address[1]}"
    access = {"endpoint": address, "username": "oscar", "password": password}
    file = folder / ACCESS
    cluster.begin()
    try:
        write_private(file, {**access, "pid": str(os.getpid())})
        yield access, server
    finally:
        file.unlink(missing_ok=True)
        server.server_close()
        cluster.close()


def read_access(folder: Path) -> Access | None:
    """Return how to reach the stand-in of a folder, nothing if none runs there."""
    try:
        access: Access = read_json(folder / ACCESS)
        os.kill(int(access["pid"]), 0)
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return None
    except PermissionError:  # of another user
        return None
    return {name: access[name] for name in ("endpoint", "username", "password")}
