"""Where data lives, and how to be let in."""

from __future__ import annotations

from typing import Any, Literal

from ai4sdk.spec.base import Section, field_that_changes_nothing


class Storage(Section):
    """A file system that ``dataset.uri`` is read from.

    Credentials are written as references, ``${secret:NAME}``; they are looked up where they are used and
    appear in no plan, log or record.
    """

    protocol: Literal["file", "http", "s3", "webdav", "memory"] | str = "file"
    """fsspec's name of the file system; ``webdav`` is what Nextcloud speaks."""

    endpoint: str | None = None
    """Address of the server, such as ``https://share.services.ai4os.eu/remote.php/webdav``. Credentials are sent
    to this server only."""

    root: str | None = None
    """Folder or bucket that ``storage://`` addresses start from."""

    username: str | None = field_that_changes_nothing(default=None)
    """User name, or access key of an S3 store; best as ``${secret:NAME}``."""

    password: str | None = field_that_changes_nothing(default=None)
    """Password, app password, or secret key of an S3 store; best as ``${secret:NAME}``."""

    token: str | None = field_that_changes_nothing(default=None)
    """Bearer token, or session token of an S3 store; best as ``${secret:NAME}``."""

    options: dict[str, Any] = field_that_changes_nothing(default_factory=dict)
    """Further arguments of the fsspec file system, passed as they are."""

    cache: str | None = field_that_changes_nothing(default=None)
    """Folder for copies of remote data; by default ``~/.cache/ai4sdk/data``."""
