"""A prefix of a bucket, through the client that s3fs keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ai4sdk.data.storage import Location
from ai4sdk.errors import DataError
from ai4sdk.serving.events.names import PRIVATE, bare_prefixes
from ai4sdk.serving.events.stores.base import PAGE, Gone, Item, Refused, status_of, trouble, troubled

__all__ = ["S3Store"]

_EXISTS = 412
_AT_ONCE = 409  # another conditional write of the same name is under way
_CHECKSUMS = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
"""What only Amazon's own service and some others understand is left out."""


class S3Store:
    """Objects of a bucket below a prefix; their version is the ETag.

    Parameters
    ----------
    location
        An ``s3`` location.
    owner
        Name of who writes.
    """

    moves = False

    def __init__(self, location: Location, owner: str = "one") -> None:
        self.address = location.address
        self.bucket, _, prefix = location.path.strip("/").partition("/")
        self.prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        self.atomic = True
        self._owner = owner
        self._files = location.filesystem()

    @staticmethod
    def options(given: dict[str, Any]) -> dict[str, Any]:
        """Return options of a storage with those that older stores need."""
        return {**given, "config_kwargs": {**_CHECKSUMS, **given.get("config_kwargs", {})}}

    def prepare(self, *, writing: bool) -> None:
        """See that the bucket is there, and whether the store minds conditions."""
        if not self.bucket:
            raise DataError(f"{self.address} names no bucket", hint="an address is like s3://bucket/folder")
        with troubled(self.address, "list"):
            self._files.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
        if writing:
            probe = f"{PRIVATE}/probe.{self._owner}"
            self.put(probe, b"")
            self.atomic = not self.create(probe, b"")
            with contextlib.suppress(Refused):  # some may write and not delete
                self.remove(probe)

    def pages(self, prefixes: Sequence[str]) -> Iterator[list[Item]]:
        """Yield the store's own pages."""
        for prefix in bare_prefixes(prefixes):
            for page in self._listed(prefix):
                yield [item for item in page if item.key]

    def names(self, folder: str) -> list[str]:
        """List what begins with the folder's name and has no further slash."""
        pages = self._listed(f"{folder}/", Delimiter="/")
        return [item.key.rpartition("/")[2] for page in pages for item in page]

    def _listed(self, prefix: str, **more: Any) -> Iterator[list[Item]]:
        following: dict[str, Any] = {}
        while True:
            with troubled(self.address, "list"):
                answer = self._files.call_s3(
                    "list_objects_v2",
                    Bucket=self.bucket,
                    Prefix=self.prefix + prefix,
                    MaxKeys=PAGE,
                    **more,
                    **following,
                )
                page = [self._item(entry["Key"], entry, "Size") for entry in answer.get("Contents", ())]
                following = {"ContinuationToken": answer["NextContinuationToken"]} if answer.get("IsTruncated") else {}
            yield page
            if not following:
                break

    def stat(self, key: str) -> Item | None:
        """Ask for an object's headers."""
        with troubled(self.address, "look at"):
            try:
                answer = self._files.call_s3("head_object", Bucket=self.bucket, Key=self.prefix + key)
            except FileNotFoundError:
                return None
            return self._item(self.prefix + key, answer, "ContentLength")

    def read(self, item: Item, most: int) -> bytes:
        """Read an object in this version only."""
        try:
            answer, data = self._get(item.key, most + 1, IfMatch=f'"{item.version}"')
        except FileNotFoundError:
            raise Gone(item.key) from None
        except Exception as error:
            if status_of(error) == _EXISTS:
                raise Gone(item.key) from None
            raise trouble(error, f"{self.address.rstrip('/')}/{item.key}", "read") from error
        if answer["ETag"].strip('"') != item.version:  # a store that does not mind conditions
            raise Gone(item.key)
        return data

    def create(self, name: str, data: bytes) -> bool:
        """Put an object unless there is one; without conditions, look first."""
        if not self.atomic and self.exists(name):
            return False
        with troubled(self.address, "write to"):
            try:
                self._put(name, data, IfNoneMatch="*")
            except Exception as error:
                if status_of(error) == _EXISTS:
                    return False
                if status_of(error) == _AT_ONCE:
                    raise DataError(f"{self.address}: {name} is just being written", hint="try again") from error
                raise
        return True

    def put(self, name: str, data: bytes) -> None:
        """Put an object."""
        with troubled(self.address, "write to"):
            self._put(name, data)

    def fetch(self, name: str) -> bytes | None:
        """Read an object."""
        with troubled(self.address, "read"):
            try:
                return self._get(name, None)[1]
            except FileNotFoundError:
                return None

    def exists(self, name: str) -> bool:
        """Ask for an object's headers."""
        return self.stat(name) is not None

    def move(self, source: str, target: str) -> bool:
        """Not in one step."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Delete an object."""
        with troubled(self.address, "write to"):
            self._files.call_s3("delete_object", Bucket=self.bucket, Key=self.prefix + name)

    def _put(self, name: str, data: bytes, **conditions: str) -> None:
        kind = {"ContentType": "application/json"} if name.endswith(".json") else {}
        self._files.call_s3("put_object", Bucket=self.bucket, Key=self.prefix + name, Body=data, **kind, **conditions)

    def _get(self, name: str, most: int | None, **conditions: str) -> tuple[dict[str, Any], bytes]:
        from fsspec.asyn import sync

        async def get() -> tuple[dict[str, Any], bytes]:
            answer = await self._files._call_s3("get_object", Bucket=self.bucket, Key=self.prefix + name, **conditions)
            async with answer["Body"] as body:
                parts, length = [], 0
                while (most is None or length < most) and (
                    part := await body.read(2**20 if most is None else min(2**20, most - length))
                ):
                    parts.append(part)
                    length += len(part)
            return answer, b"".join(parts)

        found: tuple[dict[str, Any], bytes] = sync(self._files.loop, get)
        answer, data = found
        told = answer.get("ContentLength")
        if told is not None and len(data) < told and (most is None or len(data) < most):
            raise ConnectionError(f"{len(data)} bytes came instead of {told}")
        return answer, data

    def _item(self, path: str, answer: dict[str, Any], size: str) -> Item:
        return Item(path.removeprefix(self.prefix), str(answer["ETag"]).strip('"'), int(answer[size]))
