"""Where an address points, and the files that are there: on this machine, or on any file system fsspec knows."""

from __future__ import annotations

import base64
import difflib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

from ai4sdk.data.hashes import file_state
from ai4sdk.data.reach import CONNECT_TIMEOUT, READ_TIMEOUT, probe, reaching, without_credentials
from ai4sdk.data.secrets import resolve_secrets
from ai4sdk.errors import DataError, EnvironmentFault
from ai4sdk.spec import Storage

__all__ = ["Entry", "Location", "locate"]

_PACKAGES = {
    "http": ("aiohttp", "http"),
    "s3": ("s3fs", "s3"),
    "webdav": ("webdav4", "webdav"),
}
"""Protocol → package that speaks it, extra of ai4sdk that installs it."""

_ALIASES = {
    "": "file",
    "https": "http",
    "s3a": "s3",
    "webdavs": "webdav",
    "dav": "webdav",
    "davs": "webdav",
    "local": "file",
}
_LISTERS = 16
_SPELLING = "check the spelling of dataset.uri and storage.endpoint"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file at a location.

    Parameters
    ----------
    name
        Path below the location with ``/`` between parts; empty where the location is the file itself.
    size
        Length in bytes; -1 where the server does not tell it.
    mark
        What tells two states of the file apart: its ETag, checksum, or time of change on a server, and what the file
        system says of a local one.
    modified
        Time of the last change, seconds since 1970, where known.
    """

    name: str
    size: int
    mark: str = ""
    modified: float | None = None


@dataclass(frozen=True)
class Location:
    """A file or folder somewhere.

    Parameters
    ----------
    protocol
        fsspec's name of the file system; ``file`` for this machine.
    path
        Path on that file system: absolute for ``file``, ``bucket/key`` for ``s3``, a whole URL for ``http``.
    address
        What to call it in messages; holds no credentials.
    server
        URL of the server, where there is one.
    credentials
        ``endpoint``, ``username``, ``password`` and ``token`` as far as given, secrets still as references.
    options
        Further arguments of the file system, secrets still as references.
    """

    protocol: str
    path: str
    address: str
    server: str | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, to be read without a copy."""
        return self.protocol == "file"

    @property
    def name(self) -> str:
        """Last part of the path, as written in the address."""
        return (
            unquote(urlsplit(self.path).path if self.protocol == "http" else self.path).rstrip("/").rpartition("/")[2]
        )

    def filesystem(self) -> Any:
        """Return the fsspec file system, made on first use; secrets are looked up here.

        Raises
        ------
        EnvironmentFault
            If the package that speaks the protocol is not installed, or a secret is missing.
        DataError
            If no server takes the connection, or the options of the storage are refused.
        """
        return self._filesystem

    @cached_property
    def _filesystem(self) -> Any:
        package, extra = _PACKAGES.get(self.protocol, (None, None))
        if package and importlib.util.find_spec(package) is None:
            raise EnvironmentFault(
                f"{self.address} needs the package {package}, which is not installed",
                hint=f"pip install 'ai4sdk[{extra}]'",
            )
        import fsspec

        options = _client_options(self.protocol, resolve_secrets(self.credentials), resolve_secrets(self.options))
        try:
            kind = fsspec.get_filesystem_class(self.protocol)
        except ValueError:
            raise DataError(
                f"no file system is called {self.protocol!r} (in {self.address})",
                hint="use a path, http, https, s3, webdav or webdavs, or a protocol that fsspec knows",
            ) from None
        except ImportError as error:
            raise EnvironmentFault(
                f"{self.address} needs a package that is not installed: {error}",
                hint="install it beside ai4sdk",
            ) from error
        if self.server:
            probe(self.server, self.address)
        try:
            with reaching(self.address):
                made = kind(**options, skip_instance_cache=True)
        except DataError as error:
            if isinstance(error.__cause__, TypeError):
                raise DataError(
                    f"the file system {self.protocol} refuses its options: {error.__cause__}",
                    hint="check storage.options",
                ) from error.__cause__
            raise
        if self.protocol == "s3":
            made.retries = 1  # each try already waits for READ_TIMEOUT
        return made

    def entries(self) -> list[Entry]:
        """List the files at this location, sorted by name; hidden ones are left out.

        Raises
        ------
        DataError
            If there is nothing at this address, or it cannot be reached.
        """
        found = self._local_entries() if self.is_local else self._remote_entries()
        return sorted(found, key=lambda entry: entry.name)

    def local_path(self, entry: Entry) -> Path:
        """Return the file of an entry; for local locations."""
        return Path(self.path, entry.name) if entry.name else Path(self.path)

    def remote_path(self, entry: Entry) -> str:
        """Return the path of an entry on the file system."""
        if not entry.name:
            return self.path
        name = quote(entry.name) if self.protocol == "http" else entry.name
        return f"{self.path.rstrip('/')}/{name}"

    def open(self, entry: Entry) -> BinaryIO:
        """Open a file for reading, at any position.

        Raises
        ------
        DataError
            If it is gone or cannot be read.
        """
        if self.is_local:
            path = self.local_path(entry)
            try:
                return open(path, "rb")
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error
        with reaching(self.address):
            return cast(BinaryIO, self.filesystem().open(self.remote_path(entry), "rb"))

    def _local_entries(self) -> Iterator[Entry]:
        root = Path(self.path)
        try:
            if root.is_file():
                status = root.stat()
                yield Entry("", status.st_size, file_state(status), status.st_mtime)
                return
            if not root.is_dir():
                raise DataError(f"there is no file or folder {root}", hint=_nearest_sibling(root))
            yield from _walk(root, "", {_identity(root.stat())})
        except OSError as error:
            raise DataError(
                f"cannot read {error.filename or root}: {error.strerror}", hint="check its permissions"
            ) from error

    def _remote_entries(self) -> list[Entry]:
        filesystem = self.filesystem()
        with reaching(self.address):
            if self.protocol == "http":
                return self._web_entries(filesystem)
            info = filesystem.info(self.path)
            if info.get("type") != "directory":
                return [_entry("", info)]
            base = filesystem._strip_protocol(self.path).strip("/")
            below = filesystem.find(self.path, detail=True)
            named = ((_below(path, base), details) for path, details in below.items())
            return [_entry(name, details) for name, details in named if name and not _hidden(name)]

    def _web_entries(self, filesystem: Any) -> list[Entry]:
        """List what a page links to; a URL that does not end in a slash is a file if its name has a suffix."""
        if not self.path.endswith("/") and "." in self.name:
            return [_entry("", filesystem.info(self.path))]
        base = self.path.rstrip("/") + "/"
        names = sorted(
            name
            for url in filesystem.find(base)
            if url.startswith(base) and (name := url[len(base) :]) and "?" not in name and not _hidden(name)
        )
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_LISTERS) as pool:
            details = pool.map(filesystem.info, [base + name for name in names])
            return [_entry(unquote(name), info) for name, info in zip(names, details, strict=True)]


def locate(uri: str, storage: Storage, project: Path) -> Location:
    """Tell where an address points.

    Parameters
    ----------
    uri
        A path (relative to the project; ``~`` is the home folder), a ``file://``, ``http(s)://``, ``s3://``,
        ``webdav(s)://`` or ``memory://`` address, one of any other protocol of fsspec, or ``storage://`` for a path
        under the job's storage.
    storage
        The job's storage. Its credentials are used for ``storage://`` and for addresses on the same server only.
    project
        Folder that relative paths start from.

    Returns
    -------
    Location
        Nothing is reached yet.

    Raises
    ------
    DataError
        If the address cannot be understood.
    """
    try:
        return _located(uri, storage, project)
    except (ValueError, RuntimeError) as error:  # a host, a port or a home folder that cannot be
        raise DataError(
            f"the address {without_credentials(uri)!r} cannot be understood: {error}", hint=_SPELLING
        ) from None


def _located(uri: str, storage: Storage, project: Path) -> Location:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _local(uri, project)
    scheme = scheme.lower()
    protocol = _ALIASES.get(scheme, scheme)
    for address in (uri, storage.endpoint or ""):
        urlsplit(address)  # raises ValueError where a host cannot be
    if protocol == "file":
        return _local(unquote(rest) if rest.startswith("/") else rest, project)
    if protocol == "storage":
        return _in_storage(rest, storage, project)
    if protocol == "http":
        let_in = _let_in(storage) if _same_server(uri, storage.endpoint) else {}
        return Location("http", uri, without_credentials(uri), uri, **let_in)
    if protocol == "webdav":
        return _webdav(scheme, rest, storage, uri)
    address = without_credentials(uri)
    if protocol == _ALIASES.get(storage.protocol, storage.protocol):
        return Location(protocol, rest, address, storage.endpoint, **_let_in(storage))
    return Location(protocol, rest, address)


def _local(path: str, project: Path) -> Location:
    whole = Path(os.path.normpath(project.absolute() / Path(path).expanduser()))
    return Location("file", str(whole), str(whole))


def _in_storage(rest: str, storage: Storage, project: Path) -> Location:
    protocol = _ALIASES.get(storage.protocol, storage.protocol)
    path = "/".join(part for part in ((storage.root or "").rstrip("/"), rest.strip("/")) if part)
    if protocol == "file":
        return _local(path or ".", project)
    address = f"storage://{rest}"
    if storage.endpoint:
        address = f"{without_credentials(storage.endpoint).rstrip('/')}/{path.lstrip('/')}"
    elif protocol == "s3":
        address = f"s3://{path}"
    if protocol in ("http", "webdav") and not storage.endpoint:
        raise DataError(
            f"{address} has no server",
            hint="set storage.endpoint, such as https://share.services.ai4os.eu/remote.php/webdav",
        )
    if protocol == "http":
        path = f"{(storage.endpoint or '').rstrip('/')}/{path.lstrip('/')}"
    return Location(protocol, path, address, storage.endpoint, **_let_in(storage))


def _webdav(scheme: str, rest: str, storage: Storage, uri: str) -> Location:
    host, _, path = rest.partition("/")
    host = host.rpartition("@")[2]
    secure = scheme in ("webdavs", "davs")
    let_in: dict[str, Any] = {}
    if _same_server(uri, storage.endpoint):
        let_in = _let_in(storage)
        # Credentials meant for https never travel in the clear because an address says webdav://.
        secure = secure or urlsplit(storage.endpoint or "").scheme == "https"
    server = f"{'https' if secure else 'http'}://{host}"
    credentials = {**let_in.pop("credentials", {}), "endpoint": server}
    return Location("webdav", path, without_credentials(uri), server, credentials, **let_in)


def _same_server(uri: str, endpoint: str | None) -> bool:
    return (
        endpoint is not None and urlsplit(uri).netloc.rpartition("@")[2] == urlsplit(endpoint).netloc.rpartition("@")[2]
    )


def _let_in(storage: Storage) -> dict[str, Any]:
    """Return what a storage says about being let in, as arguments of `Location`."""
    names = ("endpoint", "username", "password", "token")
    given = {name: value for name in names if (value := getattr(storage, name))}
    return {"credentials": given, "options": storage.options}


def _client_options(protocol: str, given: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn credentials into the arguments that the client of a protocol takes, and bound its patience."""
    rest = dict(options)
    user, password, token = given.get("username"), given.get("password"), given.get("token")
    if protocol == "s3":
        config = {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "retries": {"max_attempts": 0},
            **rest.pop("config_kwargs", {}),
        }
        named = {"endpoint_url": given.get("endpoint"), "key": user, "secret": password, "token": token}
        given_only = {key: value for key, value in named.items() if value}
        return {"use_listings_cache": False, "config_kwargs": config, **given_only, **rest}
    if protocol == "webdav":
        dav: dict[str, Any] = {"base_url": given["endpoint"], "retry": False, "timeout": READ_TIMEOUT}
        if user:
            dav["auth"] = (user, password or "")
        if token:
            dav["headers"] = {"Authorization": f"Bearer {token}"}
        return {**dav, **rest}
    if protocol == "http":
        import aiohttp

        client: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
            "trust_env": True,
        }
        if user:
            pair = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            client["headers"] = {"Authorization": f"Basic {pair}"}
        if token:
            client["headers"] = {"Authorization": f"Bearer {token}"}
        return {"use_listings_cache": False, "client_kwargs": {**client, **rest.pop("client_kwargs", {})}, **rest}
    return {**{key: value for key, value in given.items() if key != "endpoint"}, **rest}


def _entry(name: str, info: Mapping[str, Any]) -> Entry:
    """Read what a file system tells about a file; each has its own keys."""
    size = info.get("size")
    for key in ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "checksum"):
        if info.get(key):
            mark = str(info[key])
            break
    else:
        changed = next(
            (info[key] for key in ("Last-Modified", "LastModified", "modified", "mtime") if info.get(key)), ""
        )
        mark = str(changed)
    return Entry(name, -1 if size is None else int(size), mark)


def _below(path: str, base: str) -> str:
    whole = path.strip("/")
    return whole[len(base) :].strip("/") if whole.startswith(base) else whole


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _walk(folder: Path, prefix: str, above: set[tuple[int, int]]) -> Iterator[Entry]:
    """Yield the files below a folder; a link back to a folder above is not followed for ever."""
    with os.scandir(folder) as found:
        for item in sorted(found, key=lambda item: item.name):
            if _hidden(item.name):
                continue
            name = f"{prefix}{item.name}"
            if item.is_dir():
                identity = _identity(item.stat())
                if identity not in above:
                    yield from _walk(Path(item.path), f"{name}/", above | {identity})
            elif item.is_file():
                status = item.stat()
                yield Entry(name, status.st_size, file_state(status), status.st_mtime)


def _nearest_sibling(path: Path) -> str:
    """Say what exists beside a path that does not."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    try:
        names = sorted(item.name for item in parent.iterdir())
    except OSError:
        names = []
    if near := difflib.get_close_matches(path.name, names, n=1):
        return f"did you mean {parent / near[0]}?"
    return f"{parent} exists; a relative dataset.uri starts at the project"
