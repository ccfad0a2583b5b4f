"""Notifications of real stores are understood; anything else is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.serving.events.notices import arrivals


def record(key: str, bucket: str = "pond", name: str = "s3:ObjectCreated:Put") -> dict:
    return {
        "eventSource": "minio:s3",
        "eventTime": "2026-11-28T10:00:00.000Z",
        "eventName": name,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 3, "eTag": "0"}},
    }


def said(*records: dict, **more: object) -> bytes:
    return json.dumps({**more, "Records": list(records)}).encode()


def test_minio():
    body = said(record("in%2Fa+b%C3%A4.jpg"), EventName="s3:ObjectCreated:Put", Key="pond/in/a bä.jpg")
    assert arrivals(body, "pond", "in/")[0] == "a bä.jpg"


def test_ceph_does_not_quote():
    key = "in/a+b 100%25.jpg"
    assert key.removeprefix("in/") in arrivals(said(record(key, name="ObjectCreated:Put")), "pond", "in/")


def test_without_records_there_are_key_and_event_name():
    body = json.dumps({"Key": "pond/in/a.jpg", "EventName": "s3:ObjectCreated:CompleteMultipartUpload"}).encode()
    assert arrivals(body, "pond", "in/") == ["a.jpg"]


def test_oscar_hands_events_on_as_text_or_object():
    event = said(record("in/a.jpg"))
    for inner in (event.decode(), json.loads(event)):
        body = json.dumps({"event": inner, "storage_provider": {"minio": {}}}).encode()
        assert arrivals(body, "pond", "in/") == ["a.jpg"]


def test_what_is_removed_or_elsewhere_is_left_out():
    body = said(
        record("in/a.jpg", name="s3:ObjectRemoved:Delete"),
        record("in/b.jpg", bucket="lake"),
        record("out/c.jpg"),
        record("in/"),
    )
    assert arrivals(body, "pond", "in/") == []
    assert arrivals(said(), "pond", "in/") == []


def test_amazons_test_event_is_no_mistake():
    assert arrivals(b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "pond"}', "pond", "") == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"\xff\xfe",
        b"[]",
        b"3",
        b"{}",
        b'{"Records": {}}',
        b'{"Records": [3]}',
        b'{"Records": [{}]}',
        b'{"Records": [{"s3": {"bucket": {"name": 3}, "object": {"key": "a"}}}]}',
        b'{"Records": [{"s3": {"bucket": {"name": "pond"}, "object": {"key": ""}}}]}',
        b'{"Records": [{"eventName": 3, "s3": {"bucket": {"name": "pond"}, "object": {"key": "a"}}}]}',
        b'{"Key": "pond/a"}',
        b'{"Key": 3, "EventName": "s3:ObjectCreated:Put"}',
        b'{"event": "no json", "storage_provider": ""}',
        b'{"event": 3, "storage_provider": ""}',
        b"[" * 100_000,
        said(record("a" * 1025)),
        said(record("a%00b")),
    ],
)
def test_anything_else_is_refused(body):
    with pytest.raises(ValueError, match=r"event|record|Records|JSON|text|key"):
        arrivals(body, "pond", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["Records", "Key", "EventName", "event", "s3", "bucket", "name", "object", "key", "Event"]), inner
    ),
)  # fmt: skip


@settings(deadline=None)
@given(JSON)
def test_nothing_makes_it_fail_in_another_way(value):
    try:
        found = arrivals(json.dumps(value).encode(), "pond", "")
    except ValueError:
        return
    assert all(isinstance(key, str) and key for key in found)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200))
def test_a_key_is_among_the_readings_quoted_or_not(key):
    from urllib.parse import quote, quote_plus

    for written in (key, quote(key), quote_plus(key)):
        assert key in arrivals(said(record(written)), "pond", "")
