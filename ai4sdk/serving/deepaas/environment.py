"""An environment for a module: made once of what it is made of, and found again by that."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ai4sdk.errors import EnvironmentFault, NotFound
from ai4sdk.runs.files import write_text
from ai4sdk.serving.deepaas.worker import module_environment

__all__ = ["make_environment"]

_NOT_SOURCE = {"__pycache__", "build", "dist", "node_modules"}
_READY = ".ai4sdk-ready"


def make_environment(
    source: Path, folder: Path, *, python: Path | None = None, requirements: Sequence[str] = ()
) -> Path:
    """Make a virtual environment with a module in it, or return the one that was made of the same before.

    Parameters
    ----------
    source
        Folder with a ``pyproject.toml`` or ``setup.py``, or a file of requirements.
    folder
        Where environments are kept, each under a digest of what it is made of. One that was not finished is made anew.
    python
        Interpreter to make it with, as a path or the name of a command; by default the one that runs this.
    requirements
        What else it shall hold, such as ``deepaas==2.5.2``.

    Returns
    -------
    Path
        The environment.

    Raises
    ------
    NotFound
        If the source is neither.
    EnvironmentFault
        If something cannot be installed.
    """
    source = source.absolute()  # pip would look a relative one up in its index, where strangers have names
    is_project = any((source / name).is_file() for name in ("pyproject.toml", "setup.py"))
    if not (is_project or source.is_file()):
        raise NotFound(
            f"{source} is no module to install: it has no pyproject.toml or setup.py",
            hint="name a folder that has one, or a file of requirements",
        )
    interpreter = Path(shutil.which(python) or python) if python else Path(sys.executable)
    place = folder / _digest(source, interpreter, requirements)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{place.name}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two of us may want the same
        # it may have been made with an interpreter that was taken away since
        if not (place / _READY).is_file() or not (place / "bin" / "python").exists():
            shutil.rmtree(place, ignore_errors=True)
            wanted = [str(source)] if is_project else ["-r", str(source)]
            _do([str(interpreter), "-m", "venv", str(place)], f"an environment cannot be made with {interpreter}")
            pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
            _do([*pip, *requirements, *wanted], f"{source} cannot be installed")
            write_text(place / _READY, "\n".join([str(source), *requirements]) + "\n")
    return place


def _do(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=module_environment()
        )
    except OSError as error:
        raise EnvironmentFault(f"{what}: {error.strerror or error}") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise EnvironmentFault(what, hint="it was said last:\n" + "\n".join(lines[-8:]))


def _digest(source: Path, python: Path, requirements: Sequence[str]) -> str:
    told = hashlib.sha256(repr((str(python.resolve()), sorted(requirements))).encode())
    for path in _files(source):
        try:
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise EnvironmentFault(f"{path} cannot be read: {error.strerror or error}") from error
        told.update(os.fsencode(path.relative_to(source).as_posix()) + b"\0" + content)
    return told.hexdigest()[:20]


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source).parts
        if path.is_file() and not any(
            part.startswith(".") or part in _NOT_SOURCE or part.endswith(".egg-info") for part in inside
        ):
            yield path
