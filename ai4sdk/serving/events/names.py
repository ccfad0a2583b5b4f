"""What things are called: pure functions of an object's key and version, so that a repeat writes the same name."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "PRIVATE",
    "bare_prefixes",
    "claim_name",
    "claims_folder",
    "content_type",
    "copy_name",
    "digest_of",
    "error_name",
    "is_hidden",
    "is_wanted",
    "mark_name",
    "may_lead_to_wanted",
    "result_name",
    "scratch_name",
    "shown",
    "staged_name",
    "version_mark",
]

PRIVATE = ".ai4sdk"
"""Folder in the output for what servers tell each other."""

_LONGEST = 160
"""Bytes of a part of a name; file systems allow 255, and endings are added."""

_LONGEST_WHOLE = 700
"""Bytes of a name; buckets allow 1024 with their prefix, and endings are added."""

_MARK = re.compile(r"\.(?=[0-9a-f]{16}(\.|$))")


def version_mark(version: str) -> str:
    """Return 16 hexadecimal digits that stand for a version."""
    return hashlib.sha256(version.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def result_name(key: str, version: str) -> str:
    """Return where the result of a version goes, below the output."""
    return f"{_escaped(key)}.{version_mark(version)}.json"


def copy_name(key: str, version: str) -> str:
    """Return where the copy of a version goes, below the dead letters; its suffix stays."""
    folder, slash, name = _escaped(key).rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    mark = version_mark(version)
    return f"{folder}{slash}{stem}.{mark}.{suffix}" if dot and stem else f"{folder}{slash}{name}.{mark}"


def error_name(key: str, version: str) -> str:
    """Return where the reason goes why a version is a dead letter."""
    return f"{copy_name(key, version)}.error.json"


def claim_name(key: str, version: str, number: int) -> str:
    """Return the name of a claim of a version, below the output."""
    digest = digest_of(key, version)
    return f"{claims_folder(digest)}/{digest}.{number}"


def claims_folder(digest: str) -> str:
    """Return the folder of a version's claims; the first two digits of its digest say which."""
    return f"{PRIVATE}/claims/{digest[:2]}"


def mark_name(digest: str, since: int, server: str) -> str:
    """Return the name of a mark that a server misses a version in the input, and since when."""
    return f"{claims_folder(digest)}/{digest}.missed-{since}-{server}"


def staged_name(key: str, version: str, number: int, kind: str) -> str:
    """Return where the ``result`` or ``error`` of a version waits that the holder of a claim will publish."""
    return f"{PRIVATE}/staged/{digest_of(key, version)}.{number}.{kind}"


def scratch_name(owner: str, name: str) -> str:
    """Return where a server puts a file before it gets its name; without a name, the folder of all of them."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24] if name else ""
    return f"{PRIVATE}/scratch/{owner}/{digest}"


def shown(key: str) -> str:
    """Return a key as text that can be encoded; bytes that are no UTF-8 are replaced."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def content_type(key: str) -> str:
    """Return what an object is by its suffix; what is packed (``.csv.gz``) is not what it is packed of."""
    kind, packed = mimetypes.guess_type(f"./{shown(key).rpartition('/')[2]}")  # never an address, such as data:,
    return kind if kind and not packed else "application/octet-stream"


def is_hidden(key: str) -> bool:
    """Tell whether a key is left alone: some part of it begins with a dot, or it ends as folders do."""
    return key.endswith("/") or any(part.startswith(".") and part not in (".", "..") for part in key.split("/"))


def is_wanted(key: str, prefixes: Sequence[str], suffixes: Sequence[str]) -> bool:
    """Tell whether a key is to be processed."""
    begins = not prefixes or key.startswith(tuple(prefixes))
    return begins and (not suffixes or key.endswith(tuple(suffixes))) and bool(key) and not is_hidden(key)


def may_lead_to_wanted(folder: str, prefixes: Sequence[str]) -> bool:
    """Tell whether keys below a folder (which ends in a slash) can begin as wanted."""
    return not prefixes or any(folder.startswith(each) or each.startswith(folder) for each in prefixes)


def bare_prefixes(prefixes: Iterable[str]) -> list[str]:
    """Return prefixes without those that others cover, so that nothing is listed twice; ``[""]`` without any."""
    bare: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not bare or not prefix.startswith(bare[-1]):
            bare.append(prefix)
    return bare or [""]


def digest_of(key: str, version: str) -> str:
    """Return 40 hexadecimal digits that stand for a version of a key."""
    return hashlib.sha256(f"{key}\0{version}".encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _escaped(key: str) -> str:
    """Return a key as a path that stays where it is put, on any store; different keys stay different.

    A folder is never called as a result or an error may be, so that nobody's keys can be in the way of others' results.
    """
    *folders, last = (_escaped_part(part) for part in key.split("/"))
    return _shortened("/".join([*(_MARK.sub("%2E", folder) for folder in folders), last]), key, _LONGEST_WHOLE)


def _escaped_part(part: str) -> str:
    if part in ("", ".", ".."):
        return part.replace(".", "%2E") or "%"
    text = "".join(char if char.isprintable() and char not in "%\\" else _percent(char) for char in part)
    return _shortened(text, part, _LONGEST)


def _shortened(text: str, whole: str, most: int) -> str:
    """Cut an escaped text off where it is too long, and add a digest of what it stands for; its suffix stays."""
    data = text.encode()
    if len(data) <= most:
        return text
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    stem, dot, suffix = text.rpartition("/")[2].rpartition(".")
    ending = f".{suffix}" if dot and stem and len(suffix) <= 16 else ""
    return f"{data[: most - 50].decode('utf-8', 'ignore')}~{digest}{ending}"


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
