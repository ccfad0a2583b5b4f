"""A site's connection, made of what lies in its files."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509

from ai4sdk.errors import EnvironmentFault
from ai4sdk.federated.deploy.certificates import load_or_make_key
from ai4sdk.federated.deploy.client import SiteClient

__all__ = ["TOKEN_VARIABLE", "connect", "read_token"]

TOKEN_VARIABLE = "AI4SDK_FEDERATION_TOKEN"
_CA = "--ca FILE, with the certificate that the coordinator sent; connections are never made without"


def read_token(file: str | None) -> str:
    """Return the token in a file, or in the environment; raises `EnvironmentFault` if there is none."""
    try:
        token = os.environ.get(TOKEN_VARIABLE, "") if file is None else Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"the token in {file} cannot be read: {error}", hint="--token-file FILE") from None
    if not token.strip() or not token.strip().isascii():
        where = f"in {file}" if file is not None else f"in ${TOKEN_VARIABLE}"
        raise EnvironmentFault(f"there is no token {where}", hint="--token-file FILE, with what the coordinator sent")
    return token.strip()


def connect(address: str, ca: str, token_file: str | None, key: str) -> SiteClient:
    """Return a connection with what a site has in its files.

    Raises
    ------
    EnvironmentFault
        If one of them cannot be read.
    """
    try:
        authority = Path(ca).read_bytes()
    except OSError as error:
        raise EnvironmentFault(
            f"the coordinator's certificate authority {ca} cannot be read: {error}",
            hint=_CA,
        ) from None
    try:
        x509.load_pem_x509_certificates(authority)
    except ValueError:
        raise EnvironmentFault(f"{ca} holds no certificate in PEM", hint=_CA) from None
    return SiteClient(address, authority, read_token(token_file), load_or_make_key(Path(key)))
