"""What goes over a connection: heads with their bodies, in one write."""

import asyncio

import pytest
import uvicorn

from ai4sdk.serving.http import WHOLE, BehindProxies, HttpProtocol


class Transport(asyncio.Transport):
    """Keeps what is written, each write by itself."""

    def __init__(self):
        super().__init__()
        self.writes, self.is_closed = [], False

    def write(self, data):
        self.writes.append(bytes(data))

    def close(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed

    def pause_reading(self):
        pass

    resume_reading = pause_reading


def answered(said, app):
    """Return what is written in answer to what a client says, and the transport."""

    async def talk():
        config = uvicorn.Config(app, http=HttpProtocol, lifespan="off", ws="none", log_config=None, date_header=False)
        config.load()
        transport = Transport()
        protocol = HttpProtocol(config=config, server_state=uvicorn.server.ServerState(), app_state={})
        protocol.connection_made(transport)
        protocol.data_received(said)
        for _ in range(20):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport

    transport = asyncio.run(talk())
    return transport.writes, transport


def head_of(length):
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(length).encode())]}


async def echo(scope, receive, send):
    body = (await receive())["body"]
    await send(head_of(len(body)))
    await send({"type": "http.response.body", "body": body})


def request(method="POST", body=b"fish", *more):
    lines = [f"{method} / HTTP/1.1", "host: pond", f"content-length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("body", [b"fish", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_a_head_and_its_body_are_one_write(body):
    writes, _ = answered(request(body=body), echo)
    assert len(writes) == 1
    assert writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert writes[0].endswith(b"\r\n\r\n" + body)


def test_each_of_several_requests_at_once_has_its_own_answer_in_their_order():
    writes, _ = answered(request(body=b"cod") + request(body=b"eel") + request(body=b""), echo)
    assert [write.rpartition(b"\r\n\r\n")[2] for write in writes] == [b"cod", b"eel", b""]


def test_parts_of_a_body_are_sent_as_they_come():
    async def app(scope, receive, send):
        await send(head_of(6))
        for part, more in ((b"one", True), (b"two", False)):
            await send({"type": "http.response.body", "body": part, "more_body": more})

    writes, _ = answered(request(), app)
    assert [write[-3:] for write in writes] == [b"one", b"two"]


def test_a_head_alone_is_sent():
    async def app(scope, receive, send):
        await send(head_of(4))
        await send({"type": "http.response.body", "body": b""})

    writes, _ = answered(request("HEAD", b""), app)
    assert len(writes) == 1
    assert writes[0].endswith(b"content-length: 4\r\n\r\n")


def test_who_waits_to_be_asked_for_a_body_is_asked_at_once():
    writes, _ = answered(request("POST", b"fish", "expect: 100-continue"), echo)
    assert writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert writes[1].endswith(b"fish")
    assert len(writes) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_a_head_without_its_body_is_sent_before_the_connection_is_closed(fails):
    async def app(scope, receive, send):
        await send(head_of(4))
        if fails:
            raise ValueError("no fish")

    writes, transport = answered(request(), app)
    assert len(writes) == 1
    assert writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert transport.is_closed


@pytest.mark.parametrize(
    ("address", "headers", "client", "scheme"),
    [
        ("127.0.0.1", [], "127.0.0.1", "http"),
        ("127.0.0.1", [(b"x-forwarded-for", b"203.0.113.9")], "203.0.113.9", "http"),
        ("127.0.0.1", [(b"accept", b"*/*"), (b"x-forwarded-proto", b"https")], "127.0.0.1", "https"),
        ("198.51.100.7", [(b"x-forwarded-for", b"203.0.113.9")], "198.51.100.7", "http"),
    ],
)
def test_what_a_proxy_says_of_a_client_is_believed_if_it_is_this_machine_s(address, headers, client, scheme):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)

    scope = {"type": "http", "client": (address, 4711), "scheme": "http", "headers": headers}
    asyncio.run(BehindProxies(app)(scope, None, None))
    assert (seen["client"][0], seen["scheme"]) == (client, scheme)


def test_other_proxies_are_believed_where_that_is_said(monkeypatch):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)

    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "198.51.100.0/24")
    headers = [(b"x-forwarded-for", b"203.0.113.9")]
    scope = {"type": "http", "client": ("198.51.100.7", 4711), "scheme": "http", "headers": headers}
    asyncio.run(BehindProxies(app)(scope, None, None))
    assert seen["client"][0] == "203.0.113.9"


def test_a_body_is_known_to_be_whole_only_once_it_is():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope.get(WHOLE, False))
        await echo(scope, receive, send)

    answered(request(body=b"cod"), app)
    answered(request(body=b"")[:-4] + b"\r\n\r\n", app)
    answered(request(body=b"salmon")[:-3], app)
    assert seen == [True, True, False]


def test_a_second_head_that_is_never_whole_ends_its_connection():
    async def talk():
        config = uvicorn.Config(echo, http=HttpProtocol, lifespan="off", ws="none", log_config=None)
        config.load()
        transport, protocol = (
            Transport(),
            HttpProtocol(config=config, server_state=uvicorn.server.ServerState(), app_state={}),
        )
        protocol.slow = 0.05
        protocol.connection_made(transport)
        protocol.data_received(request(body=b"cod"))
        await asyncio.sleep(0.2)
        kept = not transport.is_closed
        protocol.data_received(b"POST / HTT")
        await asyncio.sleep(0.2)
        return kept, transport.is_closed

    assert asyncio.run(talk()) == (True, True)
