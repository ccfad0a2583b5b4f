"""Pictures and recordings, which are a sample a file: how their files are called and what they begin with."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

__all__ = ["NOUNS", "PICTURES", "RECORDINGS", "MediaFormat", "told_by_content", "told_by_name"]

MediaFormat = Literal["images", "audio"]

NOUNS: dict[str, str] = {"images": "picture", "audio": "recording"}
"""Formats whose files are a sample each, and what such a sample is called."""

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Suffixes of pictures."""

RECORDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
"""Suffixes of recordings."""

_BEGINNINGS: dict[bytes, MediaFormat] = {
    b"\x89PNG": "images",
    b"\xff\xd8": "images",
    b"GIF8": "images",
    b"II*\0": "images",
    b"MM\0*": "images",
    b"fLaC": "audio",
    b"OggS": "audio",
    b"ID3": "audio",
}
_IN_RIFF: dict[bytes, MediaFormat] = {b"WEBP": "images", b"WAVE": "audio"}


def told_by_content(head: bytes) -> MediaFormat | None:
    """Tell by its first dozen bytes whether a file is a picture or a recording."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return _IN_RIFF.get(head[8:12])
    if head[:2] == b"BM":  # which texts may begin with, too; in a picture four bytes of nothing follow its size
        return "images" if head[6:10] == bytes(4) else None
    if _is_mp3(head):
        return "audio"
    return next((told for beginning, told in _BEGINNINGS.items() if head.startswith(beginning)), None)


def told_by_name(name: str) -> MediaFormat | None:
    """Tell by the end of its name whether a file is a picture or a recording."""
    suffix = PurePath(name).suffix.lower()
    return "images" if suffix in PICTURES else "audio" if suffix in RECORDINGS else None


def _is_mp3(head: bytes) -> bool:
    """Tell whether a frame of layer III begins; eleven bits that are set mark frames, which UTF-16 texts have, too."""
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[1] & 0x18 != 0x08
