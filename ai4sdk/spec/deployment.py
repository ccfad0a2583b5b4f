"""How a federation of real sites is reached: where the coordinator listens, and how a site joins."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Span

__all__ = ["SITE_NAME", "Join", "Listen", "checked_address"]

SITE_NAME = r"^[A-Za-z0-9][\w.-]*$"
"""Pattern of the names of sites."""

_ADDRESS = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}$"


def checked_address(text: str) -> str:
    """Return ``HOST:PORT`` as it is; raises `ValueError` if it is none."""
    if not re.fullmatch(_ADDRESS.strip("^$"), text):
        raise ValueError(f"{text!r} is no address: host and port are needed, such as coordinator.example.org:9443")
    if int(text.rpartition(":")[2]) > _LAST_PORT:
        raise ValueError(f"{text!r} is no address: ports end at {_LAST_PORT}")
    return text


_LAST_PORT = 65535
Address = Annotated[str, AfterValidator(checked_address), WithJsonSchema({"type": "string", "pattern": _ADDRESS})]


class Listen(Section):
    """Where a coordinator waits for sites, and for how long. `ai4sdk federated server` writes it."""

    address: Address = "0.0.0.0:9443"
    """Address and port to listen at."""

    certificate: str = Field(min_length=1)
    """File with the certificate that proves to sites who listens, in PEM, with those of who signed it."""

    key: str = Field(min_length=1)
    """File with the certificate's private key, in PEM."""

    wait: Span = Field(default=600.0, gt=0)
    """How long a round waits for ``federation.min_sites`` sites to be there; then that counts as a try."""

    deadline: Span = Field(default=3600.0, gt=0)
    """How long a round waits for answers; later ones are discarded."""

    gone_after: Span = Field(default=30.0, ge=10)
    """How long a site may be silent before a round does not wait for it any more. Sites are heard of every few
    seconds, also while they train."""


class Join(Section):
    """How a site joins. `ai4sdk federated join` writes it."""

    address: Address
    """Address and port of the coordinator."""

    site: str = Field(pattern=SITE_NAME, max_length=64)
    """Name of the site, which its token is for."""

    ca: str = Field(min_length=1)
    """File with the certificate that the coordinator's is signed by, in PEM."""

    token_file: str | None = None
    """File with the token; nothing for the environment variable ``AI4SDK_FEDERATION_TOKEN``."""

    key: str = Field(min_length=1)
    """File with the site's private key (EC P-384, PEM)."""

    approved: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Digest of the terms that the site agreed to; under others it leaves."""

    patience: Span = Field(default=3600.0, gt=0)
    """How long the site tries to reach a coordinator that is gone, before it gives up."""
