"""Who is at fault is told by the status of an answer."""

from __future__ import annotations

import json

import pytest

from ai4sdk.serving.events.faults import Dead, Ours, judge
from ai4sdk.serving.messages import JSON, Response


def answer(status: int, body: bytes = b"{}", kind: str = JSON) -> Response:
    return Response(status, kind, body)


@pytest.mark.parametrize("kind", [JSON, "Application/JSON; charset=utf-8"])
def test_json_is_a_result(kind):
    judge(answer(200, kind=kind), 1)


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422])
def test_the_object_is_at_fault(status):
    with pytest.raises(Dead):
        judge(answer(status), 1)


@pytest.mark.parametrize("status", [408, 500, 502, 504, 100, 302])
def test_we_are(status):
    with pytest.raises(Ours) as caught:
        judge(answer(status), 1)
    assert caught.value.counts


@pytest.mark.parametrize("status", [429, 503])
def test_nobody_is(status):
    with pytest.raises(Ours) as caught:
        judge(answer(status), 1)
    assert not caught.value.counts


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": "no picture"}', "no picture"),
        (b'{"message": "no picture"}', "no picture"),
        (b'{"error": {"code": 3}}', '{"error": {"code": 3}}'),
        (b"plain words", "plain words"),
        (b"", "status 422"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (json.dumps({"error": "x" * 9999}).encode(), "x" * 2000),
        (b"[" * 100_000, "[" * 2000),
    ],
)
def test_the_reason_is_what_the_answer_says(body, reason):
    with pytest.raises(Dead) as caught:
        judge(answer(422, body), 3)
    assert caught.value.reason == reason
    assert (caught.value.attempts, caught.value.status) == (3, 422)
