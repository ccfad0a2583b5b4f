"""What the stand-in has in the place of OSCAR's supervisor: a process for each call, with the event at its input.

It takes what grycap/faas-supervisor takes (``SCRIPT`` and ``FUNCTION_CONFIG``, each in base64) and keeps its rules, the
odd ones, too: no exit status of a script counts. Buckets are folders below ``AI4SDK_BUCKETS``.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote_plus

__all__ = ["StoredObject", "accepts", "answer_of", "main", "object_of"]

BUCKETS = "AI4SDK_BUCKETS"
_STORAGES = ("minio:s3", "aws:s3")


@dataclass(frozen=True)
class StoredObject:
    """What an event of a storage is about."""

    bucket: str
    key: str
    time: str


def main() -> int:
    """Serve one call: standard input has the event, standard output gets the answer."""
    event = sys.stdin.read()
    config = json.loads(base64.b64decode(os.environ["FUNCTION_CONFIG"]))
    buckets = Path(os.environ[BUCKETS])
    with tempfile.TemporaryDirectory() as inputs, tempfile.TemporaryDirectory() as outputs:
        os.environ.update(TMP_INPUT_DIR=inputs, TMP_OUTPUT_DIR=outputs)
        found = object_of(event)
        os.environ["INPUT_FILE_PATH"] = str(_bring(event, found, buckets, Path(inputs)))
        if found is not None:
            os.environ.update(STORAGE_OBJECT_KEY=found.key, EVENT_TIME=found.time, EVENT=json.dumps(json.loads(event)))
        script = Path(inputs, "script.sh")
        script.write_bytes(base64.b64decode(os.environ["SCRIPT"]))
        said = _executed(script)
        _upload(Path(outputs), config.get("output") or [], buckets)
        sys.stdout.write(f"{answer_of(Path(outputs), said, stored=found is not None)}\n")
    return 0


def object_of(event: str) -> StoredObject | None:
    """Return the object that an event of MinIO or S3 tells of; nothing for any other text."""
    try:
        value = json.loads(event)
    except ValueError:
        return None
    if isinstance(value, dict) and isinstance(value.get("event"), dict):  # delegated by another cluster
        value = value["event"]
    records = value.get("Records") if isinstance(value, dict) else None
    if not records or records[0].get("eventSource") not in _STORAGES:
        return None
    stored = records[0]["s3"]
    return StoredObject(stored["bucket"]["name"], unquote_plus(stored["object"]["key"]), records[0]["eventTime"])


def accepts(place: Mapping[str, Any], name: str) -> bool:
    """Tell whether a file of such a name is meant by an input or output."""
    begins, ends = place.get("prefix") or [""], place.get("suffix") or [""]
    return any(map(name.startswith, begins)) and any(map(name.endswith, ends))


def answer_of(outputs: Path, said: str, *, stored: bool) -> str:
    """Return the answer to a call: what the script printed, or the files that it left, in base64."""
    files = [] if stored else list(_files(outputs))
    if not files:
        return said
    if len(files) == 1:
        return base64.b64encode(files[0].read_bytes()).decode()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for file in files:
            archive.write(file, str(file.relative_to(outputs)))
    return base64.b64encode(whole.getvalue()).decode()


def _bring(event: str, found: StoredObject | None, buckets: Path, inputs: Path) -> Path:
    if found is not None:
        path = inputs / PurePosixPath(found.key).name
        shutil.copyfile(buckets / found.bucket / found.key, path)
        return path
    path = inputs / f"event-file-{uuid.uuid4()}"
    try:
        value = json.loads(event)
    except ValueError:
        path.write_bytes(base64.b64decode(event))
        return path
    if not isinstance(value, dict):
        raise OSError(f"an event is an object, or in base64, not {event.strip()[:20]}")  # OSCAR's raises a TypeError
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _executed(script: Path) -> str:
    """Run the script, and return what it printed. What it ends with is nobody's concern here, as with OSCAR's own."""
    process = subprocess.Popen(["/bin/sh", str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate()
    return said.decode(errors="ignore")


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _upload(outputs: Path, places: Sequence[Mapping[str, Any]], buckets: Path) -> None:
    files = list(_files(outputs))
    for place in places:
        for file in files:
            name = str(file.relative_to(outputs))
            if accepts(place, name):
                target = buckets / place["path"] / name
                data = file.read_bytes()  # whatever cannot be read ends the supervisor, as it should
                target.parent.mkdir(parents=True, exist_ok=True)
                scratch = target.with_name(f".{target.name}.part")
                scratch.write_bytes(data)
                scratch.replace(target)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, binascii.Error) as error:
        sys.stderr.write(f"supervisor: {error}\n")
        sys.exit(1)
