"""Names and labels that Kubernetes takes, made of names that it would not."""

from __future__ import annotations

import hashlib
import re

__all__ = ["ROOM_IN_A_SET", "label_value", "object_name"]

ROOM = 44
"""Longest name in characters; with attempt and index it is a host's name, which may have 63."""


ROOM_IN_A_SET = 38
"""The same in a JobSet, which adds the names of its part and of its pod."""


def object_name(run_id: str, attempt: int = 1, room: int = ROOM) -> str:
    """Return the name of the Job of a run, of its Service and of its ConfigMap.

    Different runs have different names, and so have the attempts of a run: Kubernetes refuses what is there already.
    Where the run's id had to be changed a part of its hash tells it from others.
    """
    plain = re.sub(r"[^a-z0-9-]+", "-", run_id.lower())
    return f"ai4-{_told_apart(plain, run_id, room)}-{attempt}"


def label_value(text: str) -> str:
    """Return a label that tells a text from all others; the text itself wherever it may be one."""
    return _told_apart(re.sub(r"[^A-Za-z0-9_.-]+", "-", text), text, 63)


def _told_apart(plain: str, text: str, room: int) -> str:
    plain = plain.strip("-_.")
    if plain == text and len(plain) <= room:
        return plain
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return "-".join(part for part in (plain[: room - 9].strip("-_."), digest) if part)
