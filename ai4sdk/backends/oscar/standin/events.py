"""Files that appear in buckets, told as MinIO tells of them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

__all__ = ["Watcher", "event_of"]

_EVERY = 0.2


def event_of(bucket: str, key: str, size: int, when: float) -> str:
    """Return what MinIO says of a new object."""
    quoted = quote_plus(key, safe="/")
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when)),
        "eventName": "s3:ObjectCreated:Put",
        "userIdentity": {"principalId": "oscar"},
        "requestParameters": {"principalId": "oscar", "region": "", "sourceIPAddress": "127.0.0.1"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "oscar"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": {"key": quoted, "size": size, "versionId": "1"},
        },
    }
    event = {"EventName": "s3:ObjectCreated:Put", "Key": f"{bucket}/{quoted}", "Records": [record]}
    return json.dumps(event, separators=(",", ":"))


def _watched(services: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Return services and the places that MinIO tells them of, whatever files there are called."""
    for service in services:
        for place in service["notified"]:
            yield service, place


class Watcher:
    """Looks into buckets for files that are new, or have changed, and have been left alone since the last look.

    What is there when a service is made is not new to it.

    Parameters
    ----------
    buckets
        Folder that has the buckets.
    services
        What there is now.
    start
        Is given a service and an event.
    """

    def __init__(
        self,
        buckets: Path,
        services: Callable[[], Iterable[Mapping[str, Any]]],
        start: Callable[[Mapping[str, Any], str], object],
    ) -> None:
        self._buckets, self._services, self._start = buckets, services, start
        self._seen: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        self._changing: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="events", daemon=True)

    def begin(self) -> None:
        """Begin to look."""
        self.notice()
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def notice(self) -> None:
        """Take what is at places that are new for old. Whatever comes after this returns, is an event."""
        with self._lock:
            self._notice(list(_watched(self._services())))

    def look(self) -> None:
        """Look once."""
        with self._lock:
            wanted = list(_watched(self._services()))
            self._notice(wanted)
            for service, place in wanted:
                self._look_at(service, place)

    def _notice(self, wanted: list[tuple[Mapping[str, Any], str]]) -> None:
        keys = {(service["name"], place) for service, place in wanted}
        for gone in self._seen.keys() - keys:
            del self._seen[gone]
        for key in keys - self._seen.keys():
            self._seen[key], self._changing[key] = _files(self._buckets / key[1]), {}

    def _look_at(self, service: Mapping[str, Any], place: str) -> None:
        key = (service["name"], place)
        found = _files(self._buckets / place)
        seen, changing = self._seen[key], self._changing[key]
        bucket, _, folder = place.partition("/")
        for name, version in found.items():
            if seen.get(name) == version:
                continue
            if changing.get(name) != version:
                changing[name] = version  # it may be written yet
                continue
            seen[name] = version
            del changing[name]
            self._start(service, event_of(bucket, f"{folder}/{name}".strip("/"), version[0], version[1] / 1e9))
        for name in seen.keys() - found.keys():
            del seen[name]

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self.look()


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if not name.startswith("."):
                try:
                    status = path.stat()
                except OSError:  # it is gone again, or not ours to see
                    continue
                found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found
