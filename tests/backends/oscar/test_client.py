"""What a cluster's refusals mean, and what to do about them."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.backends.oscar.calls import call, content_of, event_of, start, upload
from ai4sdk.backends.oscar.client import Cluster, connect
from ai4sdk.errors import Ai4Error, EnvironmentFault, NotFound, RunFailed, UsageError
from ai4sdk.spec import OscarBackend

POND = {"name": "pond", "token": "its-own"}


class Fake:
    """A cluster that answers as it is told: (method, path) → (status, body); and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, str]] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str, str, bytes]] = []
        self.endpoint = ""

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.endpoint, "Bearer sesame")


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made.asked.append((self.command, self.path, self.headers["Authorization"], body))
            status, text = made.answers.get((self.command, self.path), (404, ""))
            self.send_response(status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "said", "kind", "told"),
    [
        (400, "A service with the provided name already exists", UsageError, "already exists"),
        (400, "Error creating service pond: workload is NOT admitted", EnvironmentFault, "backend.cpu"),
        (401, "", EnvironmentFault, "who asks"),
        (403, "bucket count quota exceeded", EnvironmentFault, "quota exceeded"),
        (403, "User has no permission", EnvironmentFault, "you may not"),
        (409, "A secret with the given name already exists", UsageError, "backend.service"),
        (500, "Error creating the service: etcd", EnvironmentFault, "etcd"),
        (409, "", UsageError, "backend.service"),
        (500, 'the bucket "fish" already exists\n', UsageError, "OSCAR makes buckets itself"),
        (500, "<html><body>nginx</body></html>", EnvironmentFault, "status 500"),
        (413, "<html>", UsageError, "status 413"),
        (429, "slow\x1b[2J down", EnvironmentFault, "slow[2J down"),
        (503, "", EnvironmentFault, "it may be starting"),
    ],
)
def test_each_refusal_of_a_service_says_what_it_means(
    fake: Fake, status: int, said: str, kind: type[Ai4Error], told: str
) -> None:
    fake.answers["POST", "/system/services"] = (status, said)
    with pytest.raises(Ai4Error) as caught:
        fake.cluster.create({"name": "pond"})
    assert isinstance(caught.value, kind)
    assert told in str(caught.value)
    assert "<" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", ["<html>", "[]", "7", '"x"', '{"name": "lake"}', '{"name', "[" * 100_000, '{"name": ["pond"]}']
)
@pytest.mark.parametrize("status", [200, 404])
def test_what_is_no_oscar_is_told_as_such(fake: Fake, status: int, answer: str) -> None:
    fake.answers["GET", "/system/services/pond"] = (status, answer if status == 200 else f"<html>{answer}")
    with pytest.raises(EnvironmentFault, match="does not answer as OSCAR does") as caught:
        fake.cluster.known("pond")
    assert caught.value.hint == "check backend.cluster"


@pytest.mark.parametrize("answer", ["{}", "7", '["pond"]', '[{"image": "x"}]', "<html>"])
def test_a_list_of_services_that_is_none_is_told_as_such(fake: Fake, answer: str) -> None:
    fake.answers["GET", "/system/services"] = (200, answer)
    with pytest.raises(EnvironmentFault, match="does not answer as OSCAR does"):
        fake.cluster.services()


def test_an_address_with_nothing_of_oscar_is_told_as_such(fake: Fake) -> None:
    for doing in (fake.cluster.services, fake.cluster.config):
        with pytest.raises(EnvironmentFault, match="does not answer as OSCAR does"):
            doing()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_an_answer_that_breaks_off_or_is_none_is_a_fault_of_the_cluster(raw: bytes) -> None:
    broken = pytest.raises(EnvironmentFault, match=r"does not answer|status 500|as OSCAR does")
    with answering(lambda connection: connection.sendall(raw)) as endpoint, broken:
        Cluster(endpoint, "").services()


def test_an_answer_that_comes_too_slowly_is_not_waited_for() -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                connection.sendall(b"x")

    with answering(drip) as endpoint:
        with pytest.raises(EnvironmentFault, match=r"nothing within 0\.3 s"):
            Cluster(endpoint, "").run("pond", b"{}", "t", 0.3)
        over.set()
    with answering(lambda connection: over.wait(2) and None) as endpoint:
        over.clear()
        with pytest.raises(EnvironmentFault, match=r"nothing within 0\.2 s"):
            Cluster(endpoint, "").run("pond", b"{}", "t", 0.2)
        over.set()


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Answer one connection with bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                answer(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_pages_that_lead_back_are_read_once(fake: Fake) -> None:
    page = (200, json.dumps({"jobs": {"a": {"status": "Failed"}}, "next_page": "x"}))
    fake.answers["GET", "/system/logs/pond"] = fake.answers["GET", "/system/logs/pond?page=x"] = page
    assert list(fake.cluster.jobs("pond")) == ["a"]
    fake.answers["GET", "/system/logs/pond"] = (200, '{"jobs": ["a"]}')
    with pytest.raises(EnvironmentFault, match="as OSCAR does"):
        fake.cluster.jobs("pond")


def test_what_does_no_tls_is_told(fake: Fake) -> None:
    with pytest.raises(EnvironmentFault, match="no TLS there"):
        Cluster(fake.endpoint.replace("http:", "https:"), "").services()


def test_who_asks_is_said_to_the_cluster_and_to_nobody_it_sends_to(fake: Fake) -> None:
    fake.answers["GET", "/system/services"] = (302, "")
    fake.headers["Location"] = f"{fake.endpoint}/elsewhere"
    with pytest.raises(EnvironmentFault, match="sends elsewhere"):
        fake.cluster.services()
    assert [(path, who) for _, path, who, _ in fake.asked] == [("/system/services", "Bearer sesame")]


def test_a_cluster_that_is_not_there_is_told_with_its_address() -> None:
    with pytest.raises(EnvironmentFault, match=r"http://127.0.0.1:9 does not answer: Connection refused"):
        Cluster("http://127.0.0.1:9", "").services()
    with pytest.raises(EnvironmentFault, match="does not answer"):
        Cluster("http://no-such-host.invalid", "").services()


def test_a_certificate_that_is_not_trusted_is_told(tmp_path: Path) -> None:
    certificates = pytest.importorskip("ai4sdk.federated.deploy.certificates")
    certificates.write_certificates(tmp_path, ["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    endpoint = f"https://localhost:{server.server_port}"
    try:
        with pytest.raises(EnvironmentFault, match="is not trusted"):
            Cluster(endpoint, "").services()
        with pytest.raises(EnvironmentFault, match="status 501"):
            Cluster(endpoint, "", verify=False).services()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_jobs_come_in_pages_or_all_at_once(fake: Fake) -> None:
    fake.answers["GET", "/system/logs/pond"] = (
        200,
        json.dumps({"jobs": {"a": {"status": "Failed"}}, "next_page": "x/1"}),
    )
    fake.answers["GET", "/system/logs/pond?page=x%2F1"] = (200, json.dumps({"jobs": {"b": {"status": "Running"}}}))
    fake.answers["GET", "/system/logs/old"] = (200, json.dumps({"c": {"status": "Succeeded"}}))
    fake.answers["GET", "/system/logs/none"] = (200, json.dumps({"jobs": None, "next_page": ""}))
    assert list(fake.cluster.jobs("pond")) == ["a", "b"]
    assert list(fake.cluster.jobs("old")) == ["c"]
    assert fake.cluster.jobs("none") == {}


def test_a_call_that_failed_is_no_fault_of_this_machine(fake: Fake) -> None:
    fake.answers["GET", "/system/services/pond"] = (200, json.dumps(POND))
    fake.answers["POST", "/run/pond"] = (500, "exit status 1\nthe prediction failed with status 3:\nno such column")
    with pytest.raises(RunFailed, match="no such column"):
        call(fake.cluster, "pond", b"{}", 5)
    fake.answers["POST", "/run/pond"] = (502, "")
    with pytest.raises(EnvironmentFault, match="it may be starting"):
        call(fake.cluster, "pond", b"{}", 5)


def test_calls_are_let_in_by_the_bearer_token_or_the_services_own(fake: Fake) -> None:
    fake.answers["POST", "/run/pond"] = (200, base64.b64encode(b"x").decode())
    fake.answers["GET", "/system/services/pond"] = (200, json.dumps(POND))
    assert call(fake.cluster, "pond", b"{}", 5) == b"x"
    assert call(Cluster(fake.endpoint, "Basic b3NjYXI6"), "pond", b"{}", 5) == b"x"
    assert [who for method, _, who, _ in fake.asked if method == "POST"] == ["Bearer sesame", "Bearer its-own"]
    fake.answers["GET", "/system/services/pond"] = (200, '{"name": "pond"}')
    with pytest.raises(EnvironmentFault, match="does not tell the token of pond"):
        call(Cluster(fake.endpoint, "Basic b3NjYXI6"), "pond", b"{}", 5)


def test_an_exposed_service_is_asked_where_its_server_is(stand_in: Cluster, defined: Any) -> None:
    stand_in.create(defined(expose={}).service)
    for _ in range(600):
        with contextlib.suppress(EnvironmentFault):  # until it has started
            call(stand_in, "pond", b"1", 20)
            break
        time.sleep(0.05)
    (record,) = json.loads(call(stand_in, "pond", b"1", 20, file="folder/row.csv"))
    assert record == {"of": "1", "kind": "text/csv", "path": "/predict"}
    with pytest.raises(RunFailed, match="no such column"):
        call(stand_in, "pond", b"raises", 20)


def test_a_server_is_given_nothing_of_who_asks_unless_it_wants_to_know(fake: Fake) -> None:
    place = "/system/services/pond/exposed/predict"
    fake.answers["POST", place] = (200, '{"predictions": [7]}')
    for expose, who in (({"api_port": [80]}, None), ({"api_port": [80], "set_auth": True}, "Basic cG9uZDppdHMtb3du")):
        fake.answers["GET", "/system/services/pond"] = (200, json.dumps({**POND, "expose": expose}))
        assert call(fake.cluster, "pond", b"{}", 5) == b"[7]"
        assert fake.asked[-1][1:3] == (place, who)
    fake.answers["POST", place] = (503, '{"error": "too many"}')
    with pytest.raises(EnvironmentFault, match="too many"):
        call(fake.cluster, "pond", b"{}", 5)


def test_a_job_is_named_only_if_it_is_sure(fake: Fake) -> None:
    fake.answers["POST", "/job/pond"] = (201, "")
    fake.answers["GET", "/system/logs/pond"] = (200, json.dumps({"jobs": {}}))
    assert start(fake.cluster, "pond", b"{}") is None
    with pytest.raises(UsageError, match="--upload"):
        start(fake.cluster, "pond", b"x" * 100_000)


def test_a_services_token_is_enough_to_call_it(stand_in: Cluster, defined: Any, ended: Any) -> None:
    stand_in.create(defined().service)
    token = stand_in.known("pond")["token"]
    guest = Cluster(stand_in.endpoint, f"Bearer {token}", stand_in=True)
    assert json.loads(call(guest, "pond", b"7", 20)) == {"of": 7}
    assert start(guest, "pond", b"7") is None
    ended(stand_in, "pond", 1)
    with pytest.raises(EnvironmentFault, match="who asks"):
        guest.services()


def test_an_answer_is_a_file_or_text() -> None:
    assert content_of(base64.b64encode(b"\0\xff").decode() + "\n") == b"\0\xff"
    assert content_of("it says: hello\n") == b"it says: hello\n"
    assert content_of("") == b""


def test_no_content_is_taken_for_json() -> None:
    for content in (b"\xd7\x6d\xf8", b"\xb6\xbb\x9e", b"\x9e\xe9\x65", b"", b"x", b"{}"):
        text = event_of(content)
        assert base64.b64decode(text) == content
        with pytest.raises(ValueError, match=r".*"):
            json.loads(text)


def test_files_are_put_where_the_service_is_started_for_them(fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("x\n1\n")
    places = [{"path": "fish/in", "suffix": [".json"]}, {"path": "fish/rows", "prefix": ["rows"]}]
    fake.answers["GET", "/system/services/pond"] = (200, json.dumps({"name": "pond", "input": places}))
    provider = {"endpoint": (tmp_path / "a b").as_uri(), "access_key": "", "secret_key": ""}
    fake.answers["GET", "/system/config"] = (200, json.dumps({"minio_provider": provider}))
    stand_in = Cluster(fake.endpoint, "Bearer sesame", stand_in=True)
    assert upload(stand_in, "pond", file) == "fish/rows/rows.csv"
    assert (tmp_path / "a b" / "fish" / "rows" / "rows.csv").read_text() == "x\n1\n"
    with pytest.raises(EnvironmentFault, match="cannot be written"):  # no cluster elsewhere names files of this machine
        upload(fake.cluster, "pond", file)
    (tmp_path / "a b" / "fish" / "rows" / "rows.csv").unlink()
    (tmp_path / "a b" / "fish" / "rows").rmdir()
    (tmp_path / "a b" / "fish" / "rows").write_text("a file where a folder should be")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        upload(stand_in, "pond", file)
    fake.answers["GET", "/system/config"] = (200, "{}")
    with pytest.raises(EnvironmentFault, match="does not say where its MinIO is"):
        upload(fake.cluster, "pond", file)
    with pytest.raises(UsageError, match=r"takes other\.csv"):
        upload(fake.cluster, "pond", file.rename(tmp_path / "other.csv"))
    fake.answers["GET", "/system/services/pond"] = (200, json.dumps({"name": "pond", "input": None}))
    with pytest.raises(UsageError, match="has no input"):
        upload(fake.cluster, "pond", tmp_path / "other.csv")
    with pytest.raises(NotFound):
        upload(fake.cluster, "lake", tmp_path / "other.csv")


def test_credentials_are_looked_up_where_they_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = {"kind": "oscar", "cluster": "https://a.example.org/", "image": "x"}
    monkeypatch.setenv("TOKEN", "sesame")
    token = OscarBackend.model_validate({**address, "token": "${secret:TOKEN}"})
    assert connect(token, tmp_path) == Cluster("https://a.example.org", "Bearer sesame")
    basic = OscarBackend.model_validate({**address, "username": "oscar", "password": "${secret:TOKEN}"})
    assert connect(basic, tmp_path).authorization == "Basic " + base64.b64encode(b"oscar:sesame").decode()
    with pytest.raises(UsageError, match="who asks"):
        connect(OscarBackend.model_validate(address), tmp_path)
    for cluster, told in (("http://a.example.org", 1), ("http://localhost:8080", 0), ("https://a.example.org", 0)):
        caplog.clear()
        connect(OscarBackend.model_validate({**address, "cluster": cluster, "token": "${secret:TOKEN}"}), tmp_path)
        assert len(caplog.records) == told
    for broken in ("two words", "line\nbreak", "schlüssel"):
        monkeypatch.setenv("TOKEN", broken)
        with pytest.raises(EnvironmentFault, match="is no token") as caught:
            connect(token, tmp_path)
        assert broken not in str(caught.value)
    monkeypatch.delenv("TOKEN")
    with pytest.raises(EnvironmentFault, match="TOKEN is not set"):
        connect(token, tmp_path)


@pytest.mark.engine
def test_files_are_put_into_a_bucket_of_s3(store: Any, tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    service = {"name": "pond", "input": [{"path": "fish/in", "storage_provider": "minio.default"}]}

    class Told(Cluster):
        def service(self, name: str) -> dict[str, Any]:
            return service

        def config(self) -> dict[str, Any]:
            return {"minio_provider": store.provider}

    file = tmp_path / "row 1.json"
    file.write_text("7")
    assert upload(Told("http://127.0.0.1:9", ""), "pond", file) == "fish/in/row 1.json"
    assert (store.folder / "fish" / "in" / "row 1.json").read_text() == "7"
    for change in ({"secret_key": "wrong"}, {"endpoint": "http://127.0.0.1:9"}, {"endpoint": "nonsense"}):
        there = dict(store.provider)
        store.provider.update(change)
        with pytest.raises(EnvironmentFault, match="cannot be written"):
            upload(Told("http://127.0.0.1:9", ""), "pond", file)
        store.provider.update(there)
