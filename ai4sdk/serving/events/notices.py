"""What stores send when something arrives: events of S3 as MinIO, Ceph, Amazon and OSCAR write them.

They are hints. A key that one names is looked up before anything is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, unquote_plus

__all__ = ["arrivals"]

_LONGEST_KEY = 1024
_CREATED = ("ObjectCreated", "s3:ObjectCreated", "ObjectRestore:Completed", "s3:ObjectRestore:Completed")


def arrivals(body: bytes, bucket: str, prefix: str) -> list[str]:
    """Return keys, below a prefix, that an event says have arrived.

    Stores quote keys (MinIO, Amazon) or do not (Ceph), and do not say which. Where it makes a difference, each reading
    is returned.

    Parameters
    ----------
    body
        ``{"Key", "EventName", "Records": [...]}``, ``{"Records": [...]}``, or what OSCAR hands on to another cluster:
        ``{"event": ..., "storage_provider": ...}``.
    bucket, prefix
        What is watched; events of other places and of other kinds are left out.

    Raises
    ------
    ValueError
        If it is no such event.
    """
    found: dict[str, None] = {}
    for name, key in _objects(_event(body)):
        if name == bucket:
            for reading in dict.fromkeys((unquote_plus(key), unquote(key), key)):
                if reading.startswith(prefix) and reading != prefix:
                    found[reading[len(prefix) :]] = None
    return list(found)


def _event(body: bytes) -> Mapping[str, Any]:
    event = _parsed(body)
    if "event" in event and "Records" not in event and "Key" not in event:
        inner = event["event"]
        event = _parsed(inner) if isinstance(inner, str) else inner
    if not isinstance(event, dict):
        raise ValueError("an event is a JSON object")
    return event


def _parsed(text: bytes | str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("this is no JSON") from None
    if not isinstance(value, dict):
        raise ValueError("an event is a JSON object")
    return value


def _objects(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield bucket and key of each object that was created."""
    if event.get("Event") == "s3:TestEvent":
        return
    if "Records" not in event:
        name, whole = event.get("EventName"), event.get("Key")
        if not isinstance(name, str) or not isinstance(whole, str):
            raise ValueError("an event has Records, or Key and EventName")
        bucket, _, key = whole.partition("/")
        if name.startswith(_CREATED):
            yield bucket, _valid(key)
        return
    records = event["Records"]
    if not isinstance(records, list):
        raise ValueError("Records is a list")
    for record in records:
        name = _at(record, "eventName") if isinstance(record, dict) and "eventName" in record else "ObjectCreated"
        bucket, key = _at(record, "s3", "bucket", "name"), _at(record, "s3", "object", "key")
        if name.startswith(_CREATED):
            yield bucket, _valid(key)


def _at(record: Any, *path: str) -> str:
    value = record
    for part in path:
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"a record has no {'.'.join(path)}")
        value = value[part]
    if not isinstance(value, str):
        raise ValueError(f"{'.'.join(path)} is text")
    return value


def _valid(key: str) -> str:
    if not key or len(unquote(key).encode("utf-8", "surrogatepass")) > _LONGEST_KEY or "\0" in unquote(key):
        raise ValueError("a key has 1 to 1024 bytes and no zero byte")
    return key
