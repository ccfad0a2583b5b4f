"""Files of JSON that others look at while they are written, and that only their user may read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ai4sdk.runs.files import read_json

__all__ = ["read_all", "write_private"]


def write_private(path: Path, value: Any) -> None:
    """Replace a file by one that only this user may read; nobody sees half of it. One thread at a time."""
    scratch = path.with_name(f".{path.name}.part")
    scratch.unlink(missing_ok=True)
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
    scratch.replace(path)


def read_all(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Read files, but for those that are removed meanwhile."""
    found = []
    for path in sorted(paths):
        try:
            found.append(read_json(path))
        except FileNotFoundError:
            continue
    return found
