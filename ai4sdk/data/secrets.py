"""Secret references: looked up where a value is used, never written down, never shown."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai4sdk.errors import DataError, EnvironmentFault

__all__ = ["resolve_secret", "resolve_secrets", "secret_file"]

log = logging.getLogger(__name__)

_REFERENCE = re.compile(r"\$\{secret:([A-Za-z_][\w.-]*)\}")


def secret_file(name: str) -> Path:
    """Return the file that keeps a secret: ``~/.config/ai4sdk/secrets/NAME``, or under ``XDG_CONFIG_HOME``."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "ai4sdk" / "secrets" / name


def resolve_secret(text: str) -> str:
    """Replace a secret reference by the secret.

    Parameters
    ----------
    text
        ``${secret:NAME}``, or any other text, which is returned as it is.

    Returns
    -------
    str
        The environment variable ``NAME``, else the content of `secret_file`, without surrounding blanks.

    Raises
    ------
    EnvironmentFault
        If neither exists, or the file cannot be read or is empty.
    DataError
        If a reference is only a part of the text.
    """
    reference = _REFERENCE.fullmatch(text.strip())
    if reference is None:
        if "${secret:" in text:
            raise DataError(
                "a secret reference must be the whole of a value and name one secret",
                hint="write ${secret:NAME} alone; NAME has letters, digits, '_', '-' and '.'",
            )
        return text
    name = reference[1]
    if value := os.environ.get(name, "").strip():
        return value
    file = secret_file(name)
    hint = f"export {name}=..., or write it to {file} (chmod 600)"
    try:
        mode = file.stat().st_mode
        value = file.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        raise EnvironmentFault(f"the secret {name} is not set on this machine", hint=hint) from None
    except UnicodeDecodeError:
        # The error itself would quote bytes of the secret.
        raise EnvironmentFault(f"the secret {name} in {file} is not UTF-8 text", hint=hint) from None
    except OSError as error:
        raise EnvironmentFault(f"the secret {name} cannot be read from {file}: {error.strerror}", hint=hint) from None
    if not value:
        raise EnvironmentFault(f"the secret {name} in {file} is empty", hint=hint)
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("%s can be read by other users of this machine; run: chmod 600 %s", file, file)
    return value


def resolve_secrets(value: Any) -> Any:
    """Return a copy of nested mappings and lists with every secret reference resolved; see `resolve_secret`."""
    if isinstance(value, str):
        return resolve_secret(value)
    if isinstance(value, Mapping):
        return {key: resolve_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve_secrets(item) for item in value]
    return value
