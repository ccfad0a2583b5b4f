"""Why data cannot be reached, told in one sentence with the thing to do, whichever client met the trouble."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from ai4sdk.errors import Ai4Error, DataError, EnvironmentFault

__all__ = ["CONNECT_TIMEOUT", "READ_TIMEOUT", "explain", "out_of_space", "probe", "reaching", "without_credentials"]

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds that a server has to take a connection."""

READ_TIMEOUT = 7.0
"""Seconds that a server has to send the next bytes; clients ask twice before they give up."""

_STATUS = {
    401: ("the server wants a user name and password, or refuses those given", "credentials"),
    403: ("the server refuses access", "credentials"),
    404: ("there is nothing at this address", "address"),
    407: ("the proxy wants a user name and password", "proxy"),
    410: ("what was at this address is gone", "address"),
    429: ("the server is asked too often", "wait"),
}
_HINTS = {
    "credentials": "check storage.username and storage.password (or storage.token), and that this user may read it",
    "anonymous": "set storage.username and storage.password; for a public bucket storage.options: {anon: true}",
    "address": "check the spelling of dataset.uri, storage.endpoint and storage.root",
    "proxy": "check the environment variables http_proxy and https_proxy",
    "wait": "try again later",
    "server": "check storage.endpoint (host and port) and that the server is up; then run the same command again",
    "name": "check the host name in dataset.uri or storage.endpoint, and the network of this machine",
    "certificate": "check that the address begins with the right scheme (http or https); for a certificate authority "
    "of your own set SSL_CERT_FILE",
}
_S3_CODES = {
    "NoSuchKey": 404,
    "NoSuchBucket": 404,
    "AccessDenied": 403,
    "InvalidAccessKeyId": 401,
    "SignatureDoesNotMatch": 401,
    "ExpiredToken": 401,
    "InvalidToken": 401,
}


def without_credentials(address: str) -> str:
    """Return an address without user name, password and the values of its query, fit to be shown."""
    try:
        parts = urlsplit(address)
    except ValueError:
        scheme, _, rest = address.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "..." if parts.query else "", ""))


def probe(url: str, address: str) -> None:
    """See whether the server of a URL takes a connection, before a client with patience of its own is asked.

    Nothing is done where a proxy stands between, because the server cannot be reached directly then.

    Parameters
    ----------
    url
        URL with scheme and host.
    address
        What to call it in an error.

    Raises
    ------
    DataError
        If the name is unknown, or no connection is taken within `CONNECT_TIMEOUT`.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if not host:
        raise DataError(f"{address} names no server", hint="an address is like https://host/path")
    try:
        port = parts.port or (443 if parts.scheme in ("https", "webdavs") else 80)
    except ValueError:
        raise DataError(f"the port in {address} is no number", hint=_HINTS["address"]) from None
    scheme = "https" if port == 443 or parts.scheme in ("https", "webdavs") else "http"
    from urllib.request import getproxies, proxy_bypass  # 20 ms that plans of local data are spared

    proxies = getproxies()
    if (scheme in proxies or "all" in proxies) and not proxy_bypass(host):
        return
    with reaching(address), socket.create_connection((host, port), timeout=CONNECT_TIMEOUT):
        log.debug("%s takes connections", host)


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turn whatever a client of a remote store raises inside into a DataError about ``address``."""
    try:
        yield
    except Ai4Error:
        raise
    except Exception as error:
        raise explain(error, address) from error


def out_of_space(error: OSError) -> bool:
    """Tell whether an error means that a disk or a quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def explain(error: BaseException, address: str) -> Ai4Error:
    """Say in one sentence why ``address`` cannot be read.

    Parameters
    ----------
    error
        What a client raised; the errors behind it are looked at too, because clients wrap them.
    address
        Address to name, without credentials.

    Returns
    -------
    Ai4Error
        A `DataError`; an `EnvironmentFault` where this machine's own disk is full.
    """
    chain = list(_behind(error))
    for link in chain:
        if isinstance(link, OSError) and out_of_space(link):
            return EnvironmentFault(f"no space left for a copy of {address}", hint="free some, or set storage.cache")
    for link in chain:
        if (status := _status(link)) is not None:
            reason, hint = _STATUS.get(status, (f"the server answers with status {status}", "wait"))
            return DataError(f"cannot read {address}: {reason}", hint=_HINTS[hint])
    for link in chain:
        if found := _trouble(link):
            reason, hint = found
            return DataError(f"cannot read {address}: {reason}", hint=_HINTS[hint])
    return DataError(f"cannot read {address}: {type(error).__name__}: {_first_line(error)}", hint=_HINTS["server"])


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that led to this one, innermost first: the innermost knows the reason."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return reversed(chain)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status an error carries, where the clients (aiohttp, httpx, webdav4, botocore) put it."""
    for name in ("status", "status_code"):
        value = getattr(error, name, None)
        if isinstance(value, int) and value >= 400:
            return int(value)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = response.get("Error", {}).get("Code")
        if code in _S3_CODES:
            return _S3_CODES[code]
        value = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return value if isinstance(value, int) and value >= 400 else None
    return None


def _trouble(error: BaseException) -> tuple[str, str] | None:
    """Return the reason of an error without HTTP status, and the name of its hint.

    The clients' own classes are told by name, because the packages may not be there to import.
    """
    name = type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError) or "Certificate" in name:
        why = getattr(error, "verify_message", "") or "it is not valid for this host"
        return f"the server's certificate is not accepted: {why}", "certificate"
    if isinstance(error, ssl.SSLError) or "SSL" in name:
        return "the server does not speak TLS as expected", "certificate"
    if isinstance(error, socket.gaierror) or "DNS" in name:
        return "the host name is not known", "name"
    if isinstance(error, ConnectionRefusedError):
        return "no server listens there (connection refused)", "server"
    if isinstance(error, TimeoutError) or "Timeout" in name or getattr(error, "errno", None) == errno.ETIMEDOUT:
        return "the server does not answer in time", "server"
    if isinstance(error, ConnectionError) or "Disconnected" in name or name in ("RemoteProtocolError", "ReadError"):
        return "the server broke the connection", "server"
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN):
        return os.strerror(error.errno).lower(), "name"
    if name in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
        return "no credentials are given", "anonymous"
    if name in ("ConnectError", "EndpointConnectionError", "ClientConnectorError", "ConnectionClosedError"):
        return "no connection to the server", "server"
    if isinstance(error, FileNotFoundError) or name == "ResourceNotFound":
        return _STATUS[404]
    if isinstance(error, PermissionError):
        return _STATUS[403]
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"
