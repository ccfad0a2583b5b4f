"""How objects are processed as they arrive."""

from __future__ import annotations

from pydantic import Field

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Size, Span

__all__ = ["EventsEndpoint", "ServingEvents"]


class EventsEndpoint(Section):
    """Where to listen: ``GET /health`` and ``/metrics``, and ``POST /events`` for what an S3 store says of arrivals."""

    address: str = Field(default="127.0.0.1:8085", pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}$")
    """Address and port to listen at."""

    token: str | None = None
    """Bearer token that a store must show; best as ``${secret:NAME}``."""


class ServingEvents(Section):
    """Objects under ``input`` are processed once per version; results appear under ``output``.

    Addresses are paths, ``s3://``, ``webdav(s)://`` or ``storage://`` ones; the section ``storage`` says how to be let
    in.
    """

    input: str = Field(min_length=1)
    """Folder or prefix that is watched. Nothing is changed there."""

    output: str = Field(min_length=1)
    """Folder or prefix for results, ``KEY.VERSION.json``."""

    dead_letter: str = Field(min_length=1)
    """Folder or prefix for objects that could not be processed, each with ``.error.json`` that says why."""

    model: str | None = None
    """Name of the model that is asked; needed where several are served."""

    suffixes: list[str] = Field(default_factory=list)
    """Endings of keys that are processed, such as ``.jpg``, as they are written; all if empty."""

    prefixes: list[str] = Field(default_factory=list)
    """Beginnings of keys (below ``input``) that are processed; all if empty."""

    every: Span = Field(default=10.0, gt=0)
    """How often the input is listed."""

    settle: Span = Field(default=2.0)
    """How long a file in a folder must not have changed before it is taken."""

    concurrency: int = Field(default=4, ge=1, le=1024)
    """Objects that are processed at once."""

    retries: int = Field(default=3, ge=0, le=100)
    """How often an object is tried again where the server was at fault."""

    deaths: int = Field(default=10, ge=1, le=1000)
    """How often a server may be killed while it works on an object, before that is taken for the cause. What was begun
    is done one at a time after a restart, so that others are not suspected."""

    backoff: Span = Field(default=1.0, gt=0)
    """Longest wait before the first retry; doubled for each further one. How long exactly is drawn by chance."""

    longest_backoff: Span = Field(default=60.0, gt=0)
    """What waits grow to at most."""

    max_object: Size = Field(default=64 * 2**20, ge=1)
    """Size of the largest object that is read; larger ones are dead letters."""

    timeout: Span = Field(default=300.0, gt=0)
    """How long an answer may take."""

    lease: Span = Field(default=60.0, ge=1)
    """How long a server may be silent before another takes over what it had begun."""

    keep: Span = Field(default=30 * 86400.0, ge=1)
    """How long an object must be gone from the input before it is forgotten. Put back as the same version after that,
    it is processed again; so this must be longer than an input may be away, such as a disk that is not mounted."""

    grace: Span = Field(default=30.0)
    """How long objects may go on when the server is asked to stop."""

    state: str = Field(default="events", min_length=1)
    """Folder that remembers what is done, one a server; a relative path starts at the project."""

    listen: EventsEndpoint | None = None
    """Where S3 stores say what arrived, and monitors ask. The input is listed ``every`` so often in any case."""
