"""What answers of a cluster mean, and that there are none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import ai4sdk
from ai4sdk.backends.ray import client
from ai4sdk.backends.ray.client import Cluster, Exists, NotAnswering, address_of
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.runs.state import read_state
from ai4sdk.testing.helpers import command

NOT_TWICE = """Traceback (most recent call last):
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
  File "job_manager.py", line 560, in submit_job
ValueError: Job with submission_id one-1 already exists. Please use a different submission_id.
."""
NO_SUCH = """Traceback (most recent call last):
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
TypeError: entrypoint_memory must be an integer, got <class 'str'>
."""


class Server(ThreadingHTTPServer):
    """Answers everything alike, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status, self.text = 200, "{}"
        self.lost = False
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.asked.append((self.command, self.path, dict(self.headers)))
        if server.lost and self.command == "POST":
            self.close_connection = True
            return
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(server.text.encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", running.address)
        yield running
        running.shutdown()


@pytest.mark.parametrize(
    ("status", "text", "expected", "words"),
    [
        (500, NOT_TWICE, Exists, "Job with submission_id one-1 already exists"),
        (500, NO_SUCH, UsageError, "Ray refuses the job: entrypoint_memory must be an integer"),
        (401, "Unauthorized", EnvironmentFault, "does not accept your token: Unauthorized"),
        (500, "No available agent to submit job, please try again later.", NotAnswering, "No available agent"),
        (404, "<html>nginx</html>", NotAnswering, "does not answer as Ray does"),
        (200, "<html>nginx</html>", NotAnswering, "does not answer as Ray does"),
    ],
)
def test_an_answer_is_told_in_its_own_words(
    server: Server, status: int, text: str, expected: type[Exception], words: str
) -> None:
    server.status, server.text = status, text
    with pytest.raises(expected, match=words):
        Cluster(server.address).submit({})


def test_a_job_that_is_not_there_is_none(server: Server) -> None:
    server.status, server.text = 404, "Job one/1 does not exist"
    assert Cluster(server.address).job("one/1") is None
    assert server.asked[0][1] == "/api/jobs/one%2F1"


def test_a_cluster_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ANSWER", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(NotAnswering, match=f"{address} does not answer: timed out"):
            Cluster(address).jobs()


@pytest.mark.parametrize(
    ("option", "variables", "address"),
    [
        ("http://one:8265/", {"RAY_ADDRESS": "http://two:8265"}, "http://one:8265"),
        (None, {"RAY_API_SERVER_ADDRESS": "https://two/ray", "RAY_ADDRESS": "http://three:1"}, "https://two/ray"),
        (None, {"RAY_ADDRESS": "http://three:1"}, "http://three:1"),
        (None, {"RAY_ADDRESS": "ray://three:10001"}, "http://127.0.0.1:8265"),
        (None, {}, "http://127.0.0.1:8265"),
    ],
)
def test_a_cluster_is_found_as_rays_own_command_line_finds_it(
    monkeypatch: pytest.MonkeyPatch, option: str | None, variables: dict[str, str], address: str
) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert address_of(option) == address


def test_a_token_and_headers_come_from_rays_own_variables(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.text = "[]"
    Cluster(server.address).jobs()
    (tmp_path / "token").write_text("geheim\n")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"X-Pond": "1"}')
    Cluster(server.address).jobs()
    (_, _, before), (_, _, after) = server.asked
    assert "Authorization" not in before
    assert (after["Authorization"], after["X-Pond"]) == ("Bearer geheim", "1")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(EnvironmentFault, match="RAY_AUTH_MODE is token, and there is none in"):
        Cluster(server.address).jobs()


def test_an_unreachable_cluster_ends_a_command_with_the_code_of_the_environment(
    function_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    refused = command("run", "config=pond.yaml", "backend=ray")
    assert refused.returncode == 7
    assert "the Ray cluster http://127.0.0.1:1 does not answer: Connection refused" in refused.stderr
    assert "backend.address=" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(Path("runs").glob("*"))


def test_a_submission_whose_answer_is_lost_counts_and_then_runs_stand_as_they_did(
    function_project: Path, server: Server
) -> None:
    server.lost = True
    server.text = json.dumps({"submission_id": "-", "status": "PENDING", "message": "", "end_time": None})
    run = ai4sdk.run("pond.yaml", "backend=ray", wait=False)
    assert [verb for verb, *_ in server.asked] == ["POST", "GET"]
    server.status, server.text = 500, "No available agent"
    told = command("status", run.id)
    assert told.returncode == 0
    assert "this is how it stood; the Ray cluster" in told.stdout
    assert not read_state(run.paths).state.ended
