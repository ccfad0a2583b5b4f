"""Servers as a whole: from addresses to results, on real stores, with notifications, and from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rclone import free_port, serve

from ai4sdk.data.storage import locate
from ai4sdk.errors import ConfigError, DataError, EnvironmentFault, RunFailed, UsageError
from ai4sdk.serving.events import endpoint as endpoints
from ai4sdk.serving.events import service
from ai4sdk.serving.events.counters import Counters
from ai4sdk.serving.events.endpoint import Endpoint
from ai4sdk.serving.events.names import result_name
from ai4sdk.serving.events.service import EventServer, serve_events
from ai4sdk.serving.events.stores.base import Store
from ai4sdk.serving.events.stores.opening import open_store
from ai4sdk.serving.messages import JSON, Request, Response
from ai4sdk.spec import Storage
from ai4sdk.spec.serving_events import EventsEndpoint, ServingEvents


async def length(request: Request) -> Response:
    if bytes(request.body).startswith(b"bad"):
        return Response(422, JSON, b'{"error": "no picture"}')
    return Response(200, JSON, json.dumps({"length": len(request.body)}).encode())


def section(**given: Any) -> ServingEvents:
    return ServingEvents.model_validate(
        {"input": "in", "output": "out", "dead_letter": "dead", "settle": 0, "every": 0.05, **given}
    )


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextlib.asynccontextmanager
async def running(server: EventServer) -> AsyncIterator[None]:
    task = asyncio.ensure_future(server.run())
    try:
        yield
    finally:
        server.stop()
        await asyncio.wait_for(task, 60)


async def until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), 60)


# Addresses


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"output": "in/results"}, "lie in each other"),
        ({"input": "data/in", "output": "data"}, "lie in each other"),
        ({"dead_letter": "./in/../in"}, "lie in each other"),
        ({"output": "out", "dead_letter": "out/"}, "the same place"),
        ({"input": "https://example.org/in"}, "cannot be used"),
        ({"state": "in/events"}, "remembers what is done lies in the input"),
        ({"input": ".", "output": "../out", "dead_letter": "../dead"}, "remembers what is done lies in the input"),
    ],
)
def test_addresses_that_would_go_wrong_are_refused_before_anything_is_done(given, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        EventServer(section(**given), Storage(), tmp_path, length)
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        EventServer(section(output="in/a", dead_letter="in/b", input="in"), Storage(), tmp_path, length)
    assert len(caught.value.problems) == 2


def test_prefixes_of_a_bucket_are_told_apart_by_their_parts(tmp_path):
    from ai4sdk.serving.events.stores.opening import locations

    storage = Storage(protocol="s3", endpoint="http://127.0.0.1:1", root="pond")
    names = {"input": "storage://in", "output": "storage://in-out", "dead_letter": "s3://lake/in"}
    assert locations(section(**names), storage, tmp_path)["output"].path == "pond/in-out"
    with pytest.raises(ConfigError, match="lie in each other"):
        locations(section(**{**names, "output": "storage://in/out"}), storage, tmp_path)


def test_an_input_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        EventServer(section(), Storage(), tmp_path, length)


def test_a_second_server_with_the_same_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()

    async def both() -> None:
        async with running(EventServer(section(), Storage(), tmp_path, length)):
            with pytest.raises(UsageError, match="another process works with"):
                EventServer(section(), Storage(), tmp_path, length)

    asyncio.run(both())


def test_once_tells_of_dead_letters(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good").write_text("good")
    (tmp_path / "in" / "bad").write_text("bad")
    with pytest.raises(RunFailed, match="1 object could not be processed"):
        serve_events(section(), Storage(), tmp_path, length, once=True)
    assert serve_events(section(), Storage(), tmp_path, length, once=True).done == 0


def test_once_waits_for_files_that_still_grow(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("abc")
    assert serve_events(section(settle=0.3), Storage(), tmp_path, length, once=True).done == 1


def test_a_subfolder_that_may_not_be_read_hides_no_other(tmp_path, monkeypatch):
    import os

    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "z").write_text("abc")
    listed = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert serve_events(section(), Storage(), tmp_path, length, once=True).done == 1


# The command


def prepare(folder: Path, config: Any) -> None:
    (folder / "answer.py").write_text(
        "from ai4sdk.serving.messages import Response\n"
        "async def ask(request):\n"
        "    return Response(200, 'application/json', b'{}')\n"
    )
    (folder / "watch.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))


GIVEN = {"input": "in", "output": "out", "dead_letter": "dead"}


@pytest.mark.parametrize(
    ("config", "more", "code", "message"),
    [
        ({"events": {**GIVEN, "retrys": 3}}, (), 2, "events.retrys"),
        ({"events": {**GIVEN, "concurrency": 0}}, (), 2, "events.concurrency"),
        ({"event": GIVEN}, (), 2, "keys events"),
        ("a: [", (), 2, "neither YAML nor JSON"),
        ({"events": GIVEN}, (), 3, "there is no folder"),
        ({"events": GIVEN}, ("--ask", "answer:nothing"), 6, "answer:nothing"),
        ({"events": GIVEN}, ("--ask", "nothing"), 6, "MODULE:FUNCTION"),
    ],
)
def test_mistakes_are_told_in_words(config, more, code, message, tmp_path, monkeypatch, capsys):
    from ai4sdk.serving.events import __main__ as command

    prepare(tmp_path, config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(command, "log_to_stderr", lambda: None)  # else for all tests that follow
    assert command.main(["watch.yaml", "--once", *(more or ("--ask", "answer:ask"))]) == code
    assert message in capsys.readouterr().err
    sys.modules.pop("answer", None)


def test_the_log_is_json_lines(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "café.txt").write_text("x")
    prepare(tmp_path, {"events": {**GIVEN, "settle": 0}})
    argv = [sys.executable, "-m", "ai4sdk.serving.events", "watch.yaml", "--once", "--ask", "answer:ask"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["done", "ended"]
    assert lines[0]["key"] == "café.txt"


# The endpoint


def endpoint(token: str | None = None) -> tuple[Endpoint, list[str], Counters]:
    offered: list[str] = []

    def offer(keys: list[str]) -> int:
        offered.extend(keys)
        return len(keys)

    counters = Counters()
    return Endpoint(("pond", "in/"), offer, counters, token), offered, counters


def ask(app: Endpoint, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
    import httpx

    async def send() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.request(method, path, content=body, headers=headers)

    return asyncio.run(send())


EVENT = json.dumps(
    {"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "pond"}, "object": {"key": "in/a"}}}]}
).encode()


def test_a_notification_is_taken():
    app, offered, counters = endpoint()
    answer = ask(app, "POST", "/events", EVENT)
    assert (answer.status_code, answer.json()) == (200, {"wanted": 1})
    assert offered == ["a"]
    assert counters.notifications == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/events", b"nonsense", 400),
        ("POST", "/events", b"x" * (2**20 + 1), 413),
        ("GET", "/events", b"", 405),
        ("POST", "/elsewhere", EVENT, 404),
    ],
)
def test_what_is_no_notification_is_refused(method, path, body, status):
    app, offered, _ = endpoint()
    assert ask(app, method, path, body).status_code == status
    assert offered == []


@pytest.mark.parametrize("shown", ["", "Bearer wrong", "Bearer", "Basic right", "right"])
def test_a_token_is_needed_if_there_is_one(shown):
    app, offered, counters = endpoint("right")
    headers = {"authorization": shown} if shown else {}
    assert ask(app, "POST", "/events", EVENT, **headers).status_code == 401
    assert offered == []
    assert counters.notifications_refused == 1
    assert ask(app, "POST", "/events", EVENT, authorization="bearer right").status_code == 200


def test_an_input_that_sends_no_notifications_takes_none():
    app = Endpoint(None, lambda keys: 0, Counters())
    assert ask(app, "POST", "/events", EVENT).status_code == 404
    assert ask(app, "GET", "/health").status_code == 200


def test_numbers_for_prometheus():
    app, _, counters = endpoint()
    counters.done = 12345678
    text = ask(app, "GET", "/metrics").text
    assert "\nai4sdk_events_done_total 12345678\n" in text
    assert "# TYPE ai4sdk_events_in_flight gauge" in text
    assert ask(app, "GET", "/health").status_code == 200


def test_a_folders_server_tells_how_it_goes(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("abc")
    port = free_port()
    found = ""

    async def look() -> None:
        nonlocal found
        server = EventServer(section(listen={"address": f"127.0.0.1:{port}"}), Storage(), tmp_path, length)
        task = asyncio.ensure_future(server.run())
        await until(lambda: server.counters.done == 1)
        found = await asyncio.to_thread(
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        )
        server.stop()
        await asyncio.wait_for(task, 60)

    asyncio.run(look())
    assert "ai4sdk_events_done_total 1\n" in found


def test_clients_that_say_nothing_keep_nobody_out_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "_CONNECTIONS", 4)
    monkeypatch.setattr(endpoints, "SLOW", 1.0)
    monkeypatch.setattr(service, "SLOW", 1.0)
    app, offered, counters = endpoint("right")
    begun = b"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer right\r\nContent-Length: 9\r\n\r\n{"
    port = free_port()

    def status(data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(data)
            answer = b"".join(iter(lambda: client.recv(100), b""))  # until the server closes, though more might come
            return answer[9:12]

    async def meet() -> None:
        health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        async with service._listening(EventsEndpoint(address=f"127.0.0.1:{port}"), app):
            assert await asyncio.to_thread(status, health) == b"200"
            slow = [asyncio.ensure_future(asyncio.to_thread(status, begun)) for _ in range(3)]
            await asyncio.sleep(0.3)
            silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(3)]
            assert await asyncio.to_thread(status, health) == b"503"
            assert await asyncio.gather(*slow) == [b"408"] * 3
            for each in silent:
                with each:
                    assert await asyncio.to_thread(each.recv, 100) == b""
            assert await asyncio.to_thread(status, health) == b"200"

    asyncio.run(meet())
    assert (offered, counters.notifications_refused) == ([], 3)


def test_a_port_that_is_taken(tmp_path):
    (tmp_path / "in").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EnvironmentFault, match="cannot listen at"):
            serve_events(section(listen={"address": address}), Storage(), tmp_path, length, once=True)
    serve_events(section(), Storage(), tmp_path, length, once=True)


# Real stores


@contextlib.contextmanager
def rclone(kind: str, folder: Path) -> Iterator[Storage]:
    folder.mkdir()
    port = free_port()
    if kind == "s3":
        (folder / "pond").mkdir()
        arguments, more = ["s3", "--auth-key", "ada,right-secret", str(folder)], {"root": "pond"}
    else:
        arguments, more = ["webdav", "--user", "ada", "--pass", "right-secret", str(folder)], {"root": "pond"}
    server = serve(arguments, port)
    try:
        yield Storage(
            protocol=kind, endpoint=f"http://127.0.0.1:{port}", username="ada", password="right-secret", **more
        )
    finally:
        server.terminate()
        server.wait()


def listed(store: Store) -> dict[str, bytes | None]:
    return {item.key: store.fetch(item.key) for page in store.pages([]) for item in page if item.key[0] != "."}


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["s3", "webdav"])
def test_objects_on_a_server_are_processed_to_it(kind, tmp_path):
    with rclone(kind, tmp_path / "store") as storage:
        places = {"input": "storage://in", "output": "storage://out", "dead_letter": "storage://dead"}
        stores = {key: open_store(locate(place, storage, tmp_path), "test") for key, place in places.items()}
        stores["input"].put("day 1/a+b.jpg", b"one")
        stores["input"].put("bad.jpg", b"bad one")
        with pytest.raises(RunFailed):
            serve_events(section(**places), storage, tmp_path, length, once=True)
        item = stores["input"].stat("day 1/a+b.jpg")
        assert listed(stores["output"]) == {result_name(item.key, item.version): b'{"length": 3}'}
        letters = listed(stores["dead"] if "dead" in stores else stores["dead_letter"])
        assert sorted(name.rpartition(".")[2] for name in letters) == ["jpg", "json"]
        again = serve_events(section(**places), storage, tmp_path, length, once=True)
        assert (again.done, again.dead) == (0, 0)
        other = serve_events(section(**places, state="other"), storage, tmp_path, length, once=True)
        assert (other.done, other.dead, other.recognised) == (0, 0, 2)


@pytest.mark.engine
def test_keys_of_a_bucket_cannot_leave_the_folder_for_results(tmp_path):
    keys = ["../../etc/passwd", "/absolute", "a//b", "a/./b", "x" * 300, "line\nbreak"]
    with rclone("s3", tmp_path / "store") as storage:
        from ai4sdk.serving.events.stores.base import Item

        places = {"input": "storage://in", "output": "results/out", "dead_letter": "results/dead"}
        server = EventServer(section(**places), storage, tmp_path, length)
        server._source.read = lambda item, most: b"x"  # a store on a disk has no such keys

        async def process() -> None:
            for key in keys:
                await server._work.process(Item(key, "1", 1))
            server.stop()
            await server.run()

        asyncio.run(process())
    found = [path for path in (tmp_path / "results" / "out").rglob("*.json") if ".ai4sdk" not in path.parts]
    assert len(found) == len(keys)
    outside = [path for path in tmp_path.rglob("*.json") if tmp_path / "results" not in path.parents]
    assert outside == []


class Bucket:
    """A bucket of a RADOS Gateway that sends notifications to a port."""

    def __init__(self, rgw: Any, name: str) -> None:
        import botocore.session

        session = botocore.session.get_session()
        more = {
            "endpoint_url": rgw.endpoint,
            "aws_access_key_id": rgw.key,
            "aws_secret_access_key": rgw.secret,
            "region_name": "default",
        }
        self.name = name
        self.s3, self.sns = session.create_client("s3", **more), session.create_client("sns", **more)
        self.s3.create_bucket(Bucket=name)

    def notify(self, port: int, prefix: str) -> None:
        topic = self.sns.create_topic(Name=self.name, Attributes={"push-endpoint": f"http://127.0.0.1:{port}/events"})[
            "TopicArn"
        ]
        self.s3.put_bucket_notification_configuration(
            Bucket=self.name,
            NotificationConfiguration={
                "TopicConfigurations": [
                    {
                        "Id": "arrivals",
                        "TopicArn": topic,
                        "Events": ["s3:ObjectCreated:*"],
                        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
                    }
                ]
            },
        )

    def put(self, key: str, data: bytes) -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=data)

    def keys(self, prefix: str, *, private: bool = False) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", [])
        return [entry["Key"].removeprefix(prefix) for entry in found if private or "/.ai4sdk/" not in entry["Key"]]


@pytest.mark.engine
@pytest.mark.slow
def test_a_real_store_says_what_arrived_and_the_poll_finds_what_it_did_not_say(rgw, tmp_path):
    bucket, port = Bucket(rgw, "arrivals"), free_port()
    storage = Storage(protocol="s3", endpoint=rgw.endpoint, root="arrivals", username=rgw.key, password=rgw.secret)
    places = {"input": "storage://in", "output": "storage://out", "dead_letter": "storage://dead"}
    (tmp_path / "answer.py").write_text(
        "import json\n"
        "from ai4sdk.serving.messages import Response\n"
        "async def ask(request):\n"
        "    return Response(200, 'application/json', json.dumps(len(request.body)).encode())\n"
    )

    def start(**more: Any) -> subprocess.Popen[bytes]:
        events = {**places, "listen": {"address": f"127.0.0.1:{port}"}, **more}
        (tmp_path / "watch.yaml").write_text(
            yaml.safe_dump({"events": events, "storage": storage.model_dump(exclude_defaults=True)})
        )
        argv = [sys.executable, "-m", "ai4sdk.serving.events", "watch.yaml", "--ask", "answer:ask"]
        return subprocess.Popen(argv, cwd=tmp_path)

    def metrics() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return ""

    server = start(every="1h")
    try:
        asyncio.run(until(lambda: "ai4sdk_events_listings_total 1" in metrics()))
        bucket.notify(port, "in/")
        for key in ("a+b.txt", "day 1/ä 100%.txt", "c.txt"):
            bucket.put(f"in/{key}", b"xyz")
        bucket.put("elsewhere/d.txt", b"xyz")
        asyncio.run(until(lambda: len(bucket.keys("out/")) == 3))  # an hour before the next listing
        assert "ai4sdk_events_listings_total 1\n" in metrics()
        server.terminate()
        assert server.wait(60) == 0
        bucket.put("in/missed.txt", b"xyz")  # nobody listens
        server = start(every=0.2)
        asyncio.run(until(lambda: len(bucket.keys("out/")) == 4))
        server.terminate()
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
    stems = sorted(name.rsplit(".", 2)[0] for name in bucket.keys("out/"))
    assert stems == ["a+b.txt", "c.txt", "day 1/ä 100%25.txt", "missed.txt"]
    assert bucket.keys("dead/") == []


STRANGE = [
    "../../etc/passwd", "..", "a/../b", "a/./b", "a//b", "/absolute", "line\nbreak", "tab\tand\rreturn", "bell\x07", "100%.txt",
    "%2e%2e/x", "q?x=1&y=2#z", "a+b c", "ä 海 \u202e", "zero", "back\\slash", "'\"<>&;$(x)", "~", "z" * 900, "bad",
    "bad" + "/deep" * 180, f"bad.{'0' * 16}.error.json/bad",
]  # fmt: skip


@pytest.mark.engine
@pytest.mark.slow
def test_whatever_a_real_store_takes_as_a_key_gets_a_result_or_a_letter_and_is_forgotten(rgw, tmp_path, monkeypatch):
    bucket = Bucket(rgw, "strange")
    for key in STRANGE:
        bucket.put(f"in/{key}", b"" if key == "zero" else key.encode())
    storage = Storage(protocol="s3", endpoint=rgw.endpoint, root="strange", username=rgw.key, password=rgw.secret)
    places = {"input": "storage://in", "output": "storage://out", "dead_letter": "storage://dead"}
    for _ in range(2):
        with contextlib.suppress(RunFailed):
            serve_events(section(**places), storage, tmp_path, length, once=True)
    bad = sum(key.startswith("bad") for key in STRANGE)
    assert len(bucket.keys("out/")) == len(STRANGE) - bad
    letters = [name for name in bucket.keys("dead/") if name.endswith(".error.json")]
    assert len(letters) == bad
    local = {"output": "results/out", "dead_letter": "results/dead", "state": "local"}
    with pytest.raises(RunFailed, match=f"{bad} objects"):
        serve_events(section(**{**places, **local}), storage, tmp_path, length, once=True)
    results = [path for path in (tmp_path / "results" / "out").rglob("*.json") if ".ai4sdk" not in path.parts]
    assert len(results) == len(STRANGE) - bad

    for key in STRANGE:
        bucket.s3.delete_object(Bucket="strange", Key=f"in/{key}")
    shards = {name[len(".ai4sdk/claims/") :][:2] for name in bucket.keys("out/", private=True) if "/claims/" in name}
    for _ in range(2):  # missed, and removed
        turns = iter(shards)
        monkeypatch.setattr("random.randrange", lambda _, turns=turns: int(next(turns), 16))
        monkeypatch.setattr("ai4sdk.serving.events.pruning._EVERY", 0.0)
        server = EventServer(section(**places, keep=1), storage, tmp_path, length)

        async def whole(server: EventServer = server) -> None:
            for _ in shards:
                await server._loop._list()

        asyncio.run(whole())
        server.close()
    assert [name for name in bucket.keys("out/", private=True) if "/claims/" in name] == []


@pytest.mark.engine
@pytest.mark.slow
def test_two_servers_that_are_killed_in_turn_share_a_bucket_and_lose_nothing(rgw, tmp_path):
    import random

    bucket, chance = Bucket(rgw, "shared"), random.Random(3)
    storage = Storage(protocol="s3", endpoint=rgw.endpoint, root="shared", username=rgw.key, password=rgw.secret)
    (tmp_path / "answer.py").write_text(
        "import asyncio\n"
        "from ai4sdk.serving.messages import Response\n"
        "async def ask(request):\n"
        "    await asyncio.sleep(0.05)\n"
        "    open('asked', 'a').write(request.parameters['name'] + '\\n')\n"
        "    return Response(200, 'application/json', b'{}')\n"
    )

    def start(name: str) -> subprocess.Popen[bytes]:
        places = {"input": "storage://in", "output": "storage://out", "dead_letter": "storage://dead"}
        events = {**places, "every": 0.2, "lease": 1, "state": name}
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({"events": events, "storage": storage.model_dump(exclude_defaults=True)})
        )
        argv = [sys.executable, "-m", "ai4sdk.serving.events", f"{name}.yaml", "--ask", "answer:ask"]
        return subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.DEVNULL)

    count = 60
    for number in range(count):
        bucket.put(f"in/{number}.txt", str(number).encode())
    servers = {name: start(name) for name in ("one", "two")}
    try:
        for turn in range(8):
            asyncio.run(asyncio.sleep(0.8 + chance.random()))
            name = ("one", "two")[turn % 2]
            servers[name].kill()
            servers[name].wait()
            servers[name] = start(name)
        asyncio.run(until(lambda: len(bucket.keys("out/")) >= count))
        for server in servers.values():
            server.terminate()
        codes = [server.wait(60) for server in servers.values()]
        assert set(codes) <= {0, -15}  # one that has only just been started ends by the signal itself
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
    assert sorted(int(name.partition(".")[0]) for name in bucket.keys("out/")) == list(range(count))
    assert bucket.keys("dead/") == []
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) <= count + 8 * 4, "more was done again than was in hand when servers were killed"
