"""Tokens that admit sites: issued, bound to a site's key, expired, revoked.

A file holds them, readable by its owner only, with a hash in place of each token. It is read again whenever it has
changed, so that what is revoked is refused from the next request on.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ai4sdk.errors import EnvironmentFault, NotFound, UsageError

__all__ = ["Entry", "NotAdmitted", "Registry", "federation_folder"]

_SITE = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_TOKEN = re.compile(r"ai4-([0-9a-f]{8})-[\w-]{43}")


class NotAdmitted(Exception):
    """A token or key that admits nobody; says why in words that a stranger may read."""


@dataclass(frozen=True)
class Entry:
    """What is known of a token.

    Parameters
    ----------
    id
        What it is called; part of the token.
    site
        Whom it admits.
    hash
        SHA-256 of the token, which is drawn from 256 random bits.
    issued
        When, in seconds since 1970.
    expires
        When it stops to admit; ``None`` for never.
    revoked
        When it was revoked.
    key
        The site's public key (PEM); bound when it is issued or first used.
    """

    id: str
    site: str
    hash: str
    issued: float
    expires: float | None = None
    revoked: float | None = None
    key: str | None = None

    def state(self, now: float) -> str:
        """Return ``valid``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "valid"

    @property
    def fingerprint(self) -> str:
        """The first digits of the key's SHA-256, to compare by telephone; ``-`` before there is one."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16] if self.key else "-"


def federation_folder(runs: Path) -> Path:
    """Return where tokens and keys are kept, in the folder of all runs."""
    return runs / "federation"


class Registry:
    """The tokens in a file.

    Parameters
    ----------
    path
        The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._entries: list[Entry] = []

    def entries(self) -> list[Entry]:
        """Return all tokens, in the order in which they were issued.

        Raises
        ------
        EnvironmentFault
            If the file cannot be read: who was revoked is then unknown, and nobody is admitted.
        """
        with self._lock:
            try:
                found = self._path.stat()
                stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
                if stamp != self._seen:
                    values = json.loads(self._path.read_text(encoding="utf-8"))
                    self._entries = [Entry(**value) for value in values["tokens"]]
                    self._seen = stamp
            except FileNotFoundError:
                self._entries, self._seen = [], None
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise EnvironmentFault(
                    f"the tokens in {self._path} cannot be read: {error}",
                    hint="restore the file, or remove it and issue new tokens",
                ) from error
            return list(self._entries)

    def sites(self) -> list[str]:
        """Return all sites that ever had a token, in the order of their first: a site's number never changes."""
        return list(dict.fromkeys(entry.site for entry in self.entries()))

    def issue(self, site: str, lifetime: float | None = None, key: str | None = None) -> tuple[Entry, str]:
        """Make a token.

        Parameters
        ----------
        site
            Whom it admits.
        lifetime
            Seconds until it expires; ``None`` for never.
        key
            The site's public key, if it is known already; else the first that comes with the token is bound to it.

        Returns
        -------
        Entry, str
            What is kept, and the token, which is not.

        Raises
        ------
        UsageError
            If the name cannot be a site's, or the key is another site's.
        """
        if not _SITE.fullmatch(site):
            raise UsageError(f"{site!r} cannot be the name of a site", hint="letters, digits, and . _ - between them")
        with self._changing() as entries:
            known = {entry.id for entry in entries}
            identity = next(one for one in iter(lambda: secrets.token_hex(4), None) if one not in known)
            token = f"ai4-{identity}-{secrets.token_urlsafe(32)}"
            now = time.time()
            entry = Entry(identity, site, _hash(token), now, None if lifetime is None else now + lifetime, None, key)
            try:
                _refuse_shared(entries, entry, key)
            except NotAdmitted as error:
                raise UsageError(str(error), hint="each site makes a key of its own") from None
            entries.append(entry)
        return entry, token

    def revoke(self, identity: str) -> Entry:
        """Revoke a token, from the next request on; raises `NotFound`."""
        with self._changing() as entries:
            for index, entry in enumerate(entries):
                if entry.id == identity:
                    entries[index] = entry if entry.revoked is not None else replace(entry, revoked=time.time())
                    return entries[index]
        raise NotFound(f"there is no token {identity}", hint="ai4sdk federated token list")

    def find(self, token: str) -> Entry:
        """Return the entry of a token that admits now; raises `NotAdmitted`."""
        match = _TOKEN.fullmatch(token)
        found = next((entry for entry in self.entries() if match and entry.id == match[1]), None)
        if found is None or not hmac.compare_digest(found.hash, _hash(token)):
            raise NotAdmitted("no valid token")
        return self.still(found.id)

    def still(self, identity: str) -> Entry:
        """Return the entry of a token by its id if it admits now; raises `NotAdmitted`."""
        found = next((entry for entry in self.entries() if entry.id == identity), None)
        state = found.state(time.time()) if found is not None else "unknown"
        if found is None or state != "valid":
            raise NotAdmitted(f"the token is {state}")
        return found

    def bind(self, identity: str, key: str) -> Entry:
        """Bind a public key to a token, if none is yet; raises `NotAdmitted` where it is another, or another site's."""
        with self._changing() as entries:
            for index, entry in enumerate(entries):
                if entry.id != identity:
                    continue
                if entry.key is None:
                    _refuse_shared(entries, entry, key)
                    entries[index] = replace(entry, key=key)
                elif entry.key != key:
                    raise NotAdmitted("the token belongs to another key")
                return entries[index]
        raise NotAdmitted("the token is unknown")

    @contextmanager
    def _changing(self) -> Iterator[list[Entry]]:
        """Hand out the entries to be changed; what is raised meanwhile leaves the file as it was."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self.entries()
            before = list(entries)
            yield entries
            if entries != before:
                self._write(entries)
        finally:
            os.close(lock)

    def _write(self, entries: list[Entry]) -> None:
        scratch = self._path.with_name(f".{self._path.name}.part")
        text = json.dumps({"tokens": [asdict(entry) for entry in entries]}, indent=2) + "\n"
        try:
            scratch.unlink(missing_ok=True)
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> EnvironmentFault:
        return EnvironmentFault(f"tokens cannot be kept in {self._path}: {error}", hint="make the folder writable")


def _refuse_shared(entries: list[Entry], entry: Entry, key: str | None) -> None:
    if key is not None and any(other.key == key and other.site != entry.site for other in entries):
        raise NotAdmitted("the key is another site's")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
