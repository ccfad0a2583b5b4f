"""A folder of a WebDAV server, such as Nextcloud."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ai4sdk.data.storage import Location
from ai4sdk.errors import DataError
from ai4sdk.serving.events.names import PRIVATE, may_lead_to_wanted, scratch_name
from ai4sdk.serving.events.stores.base import PAGE, Gone, Item, trouble, troubled

__all__ = ["DavStore"]

_THERE = 405  # MKCOL of a folder that is there
_NO_PARENT = (403, 404, 409)
_EXISTS = 412
_LOCKED = 423
_TURNS = 30


class DavStore:
    """Files of a WebDAV server below a folder; their version is the ETag, or time of change and size.

    Parameters
    ----------
    location
        A ``webdav`` location.
    owner
        Name of who writes, for files that are not whole yet.
    """

    moves = True

    def __init__(self, location: Location, owner: str = "one") -> None:
        self.address = location.address
        self.root = location.path.strip("/")
        self.atomic = True
        self._owner = owner
        self._client: Any = location.filesystem().client
        self._made: set[str] = set()

    def prepare(self, *, writing: bool) -> None:
        """See that the folder is there, or make it, and whether moves spare what is there."""
        if not writing:
            if self._properties("", depth=0) is None:
                raise DataError(f"there is no folder {self.address}", hint="create it, or change serving.events.input")
            return
        self.remove(scratch_name(self._owner, "").rstrip("/"))
        probe = f"{PRIVATE}/probe.{self._owner}"
        self.put(probe, b"")
        self.atomic = not self.create(probe, b"")
        self.remove(probe)

    def pages(self, prefixes: Sequence[str]) -> Iterator[list[Item]]:
        """Yield files folder by folder; a large folder is one page, as servers tell it."""
        folders = [""]
        page: list[Item] = []
        while folders:
            folder = folders.pop()
            found = self._properties(folder, depth=1)
            if found is None:
                if not folder:
                    raise DataError(f"there is no folder {self.address}", hint="create it again")
                continue  # gone meanwhile
            for name, properties in sorted(found.items()):
                if name.startswith("."):
                    continue
                key = f"{folder}{name}"
                if not properties.collection:
                    page.append(_item(key, properties))
                elif may_lead_to_wanted(f"{key}/", prefixes):
                    folders.append(f"{key}/")
            if len(page) >= PAGE:
                yield page
                page = []
        if page:
            yield page

    def stat(self, key: str) -> Item | None:
        """Ask for a file's properties."""
        found = self._properties(key, depth=0)
        return None if found is None or found[""].collection else _item(key, found[""])

    def read(self, item: Item, most: int) -> bytes:
        """Read a file, in this version only."""
        headers = {"Accept-Encoding": "identity"}
        try:
            with self._client.http.stream("GET", self._url(item.key), headers=headers) as answer:
                if answer.status_code in (404, 410):
                    raise Gone(item.key)
                answer.raise_for_status()
                # Not If-Match: tags that PROPFIND tells may be weak, which never match.
                tag = answer.headers.get("etag")
                if tag is not None and not item.version.startswith("-") and _plain(tag) != item.version:
                    raise Gone(item.key)
                data = bytearray()
                for part in answer.iter_bytes():
                    data += part
                    if len(data) > most:
                        break
        except Gone:
            raise
        except Exception as error:
            raise trouble(error, f"{self.address.rstrip('/')}/{item.key}", "read") from error
        if (tag is None or item.version.startswith("-")) and self.stat(item.key) != item:
            raise Gone(item.key)
        return bytes(data[: most + 1])

    def create(self, name: str, data: bytes) -> bool:
        """Put a file elsewhere, and move it unless there is one."""
        return self.move(self._scratch(name, data), name)

    def put(self, name: str, data: bytes) -> None:
        """Put a file elsewhere, and move it."""
        scratch = self._scratch(name, data)
        with troubled(self.address, "write to"):
            try:
                self._transfer(scratch, name, spare=False)
            except Exception:
                self._made.clear()
                raise

    def fetch(self, name: str) -> bytes | None:
        """Read a file."""
        with troubled(self.address, "read"):
            answer = self._client.http.get(self._url(name))
            if answer.status_code in (404, 410):
                return None
            answer.raise_for_status()
            return bytes(answer.content)

    def exists(self, name: str) -> bool:
        """Ask for a file's properties."""
        return self._properties(name, depth=0) is not None

    def move(self, source: str, target: str) -> bool:
        """Move a file unless the target is there."""
        for again in (True, False):
            with troubled(self.address, "write to"):
                status = self._transfer(source, target)
            if status in _NO_PARENT and not self.exists(source):
                raise Gone(source)
            if status == _EXISTS:
                if self.exists(source):
                    self.remove(source)
                return False
            if status < 300:
                return True
            if again and status in _NO_PARENT:
                self._make_folders(target)
        raise DataError(
            f"cannot write to {self.address}: the server answers with status {status}",
            hint="check that this user may write there",
        )

    def names(self, folder: str) -> list[str]:
        """List a folder."""
        found = self._properties(f"{folder}/", depth=1) or {}
        return [name for name, properties in found.items() if not properties.collection]

    def remove(self, name: str) -> None:
        """Delete a file."""
        with troubled(self.address, "write to"):
            answer = self._request("DELETE", self._url(name))
            if answer.status_code not in (404, 410):
                answer.raise_for_status()

    def _transfer(self, source: str, target: str, *, spare: bool = True) -> int:
        headers = {"Destination": self._url(target), "Overwrite": "F" if spare else "T"}
        answer = self._request("MOVE", self._url(source), headers=headers)
        if not spare or answer.status_code not in (*_NO_PARENT, _EXISTS):
            answer.raise_for_status()
        return int(answer.status_code)

    def _scratch(self, name: str, data: bytes) -> str:
        """Put a file that is not there for readers yet, and make the folder where it will be."""
        scratch = scratch_name(self._owner, name)
        with troubled(self.address, "write to"):
            for each in (scratch, name):
                folder = each.rpartition("/")[0]
                if folder not in self._made:
                    self._make_folders(each)
                    self._made.add(folder)
            try:
                self._request("PUT", self._url(scratch), content=data).raise_for_status()
            except Exception:
                self._made.clear()  # somebody may have removed folders
                raise
        return scratch

    def _make_folders(self, name: str) -> None:
        parts = self._path(name).split("/")[:-1]
        base = str(self._client.base_url).rstrip("/")
        with troubled(self.address, "write to"):
            for count in range(1, len(parts) + 1):
                answer = self._request("MKCOL", f"{base}/{quote('/'.join(parts[:count]))}/")
                # A server may refuse to make what is above the folders that are ours; then the last one fails.
                refused = answer.status_code in _NO_PARENT and count < len(parts)
                if answer.status_code != _THERE and not refused:
                    answer.raise_for_status()

    def _request(self, method: str, url: str, **more: Any) -> Any:
        """Ask the server; wait a little for what others have locked."""
        for turn in range(_TURNS):
            answer = self._client.http.request(method, url, **more)
            if answer.status_code != _LOCKED or turn == _TURNS - 1:
                break
            time.sleep(min(0.02 * 1.3**turn, 0.5) * random.random())
        return answer

    def _properties(self, name: str, depth: int) -> dict[str, Any] | None:
        """Return what the server says of a file or folder (under an empty name, with depth 0) or of what is in it."""
        from webdav4.multistatus import parse_multistatus_response

        with troubled(self.address, "list" if depth else "look at"):
            url = self._url(name)
            answer = self._request("PROPFIND", url, headers={"Depth": str(depth)}, follow_redirects=True)
            if answer.status_code in (404, 410):
                return None
            answer.raise_for_status()
            own = _path_of(url)
            found = {}
            for each in parse_multistatus_response(answer).responses.values():
                path = _path_of(each.href)
                if depth == 0:
                    found[""] = each.properties
                elif path != own:
                    found[path.rpartition("/")[2]] = each.properties
            if depth == 0 and not found:
                raise ConnectionError("the answer names no file")
            return found

    def _url(self, name: str) -> str:
        # Quoted here: the client would take %41 in a name for an A.
        return f"{str(self._client.base_url).rstrip('/')}/{quote(self._path(name))}"

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}".strip("/") if self.root else name.strip("/")


def _path_of(url: str) -> str:
    return unquote(urlsplit(url).path).rstrip("/")


def _item(key: str, properties: Any) -> Item:
    size = properties.content_length
    version = _plain(properties.etag) if properties.etag else f"-{properties.modified}-{size}"
    return Item(key, version, -1 if size is None else int(size))


def _plain(tag: str) -> str:
    """Return what of an ETag tells versions apart: servers add whether it is weak, and how the answer was packed."""
    return tag.strip().removeprefix("W/").strip('"').removesuffix("-gzip")
