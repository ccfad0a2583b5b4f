"""Modules exported for ONNX Runtime, kept from one start to the next: an export takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import time
from pathlib import Path

from ai4sdk.data.hashes import cache_folder
from ai4sdk.worker.description import Description

__all__ = ["keep_export", "kept_export"]

log = logging.getLogger(__name__)

_MAKERS = ("torch", "onnxscript", "onnxruntime")
_DIGEST = 32
_UNUSED_FOR = 90 * 86400.0
"""Seconds after which an export that nobody used is deleted."""


def kept_export(known: Description) -> bytes | None:
    """Return what was kept for a package; nothing where there is none, or where its file is damaged."""
    file = _file_of(known)
    try:
        content = file.read_bytes()
    except OSError:
        return None
    graph = content[_DIGEST:]
    if hashlib.sha256(graph).digest() != content[:_DIGEST]:
        log.info("%s is damaged; the module is exported again", file)
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # it was used now
    return graph


def keep_export(known: Description, graph: bytes) -> None:
    """Keep an export, and delete those that nobody has used for long. Where that is impossible, nothing is kept."""
    file = _file_of(known)
    fresh = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(hashlib.sha256(graph).digest() + graph)
        fresh.replace(file)
        for other in file.parent.iterdir():
            if other.stat().st_mtime < time.time() - _UNUSED_FOR:
                other.unlink()
    except OSError as error:
        log.info("the export is not kept: %s", error)
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def _file_of(known: Description) -> Path:
    """Return the file of a package's export: its weights and code are known by their digests."""
    makers = " ".join(f"{name} {importlib.metadata.version(name)}" for name in _MAKERS)
    key = hashlib.sha256(f"{makers}\n{known.model_dump_json()}".encode()).hexdigest()
    return cache_folder() / "onnx" / f"{key}.onnx"
