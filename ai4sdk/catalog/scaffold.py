"""Starting a project of the user's own: folders and files to change, out of templates."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from ai4sdk.errors import EnvironmentFault, UsageError

__all__ = ["init_project"]

_TEMPLATES = Path(__file__).with_name("templates") / "project"
_SUFFIX = ".tmpl"  # keeps linters, packagers and git from taking templates for the real thing
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*")
_LONGEST = 64


def init_project(folder: Path, *, name: str) -> list[Path]:
    """Write a project that can be trained at once and changed from there.

    Parameters
    ----------
    folder
        Top folder of the project; made if it does not exist.
    name
        Name of its module and its job: a letter, then letters, digits, ``-`` and ``_``.

    Returns
    -------
    list of Path
        The files that were written; those that stood there with the same content are left out.

    Raises
    ------
    UsageError
        If the name cannot be used, or files in the folder would be overwritten; nothing is written then.
    EnvironmentFault
        If the folder cannot be written; what was begun is taken back.
    """
    files = _rendered(_words(name))
    _refuse_conflicts(folder, files)
    wanted = {place: content for place, content in files.items() if not (folder / place).is_file()}
    try:
        _write(folder, wanted)
    except OSError as error:
        raise EnvironmentFault(
            f"the project cannot be written to {folder}: {error.strerror or error}",
            hint="nothing was changed; choose another folder, or free space on this disk",
        ) from error
    return [folder / place for place in wanted]


def _words(name: str) -> dict[str, str]:
    """Return what the placeholders of the templates stand for."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        near = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-0123456789")[:_LONGEST].strip("-")
        raise UsageError(
            f"{name!r} cannot be the name of a project",
            hint=f"a letter, then letters, digits, - and _, at most {_LONGEST}: {near or 'my-project'}",
        )
    parts = re.split(r"[_-]", name)
    # The suffix keeps a project called `json` or `torch` from hiding the package of that name.
    package = "_".join(part.lower() for part in parts) + "_model"
    title = "".join(part[:1].upper() + part[1:] for part in parts)
    return {"name": name, "package": package, "class": f"{title}Model"}


def _rendered(words: dict[str, str]) -> dict[Path, bytes]:
    """Return place in the project → content, for all files."""
    files = {}
    for template in sorted(_TEMPLATES.rglob(f"*{_SUFFIX}")):
        place = _filled(template.relative_to(_TEMPLATES).as_posix().removesuffix(_SUFFIX), words)
        files[Path(place)] = _filled(template.read_text(encoding="utf-8"), words).encode()
    return files


def _filled(text: str, words: dict[str, str]) -> str:
    for word, meaning in words.items():
        text = text.replace(f"@{word}@", meaning)
    return text


def _refuse_conflicts(folder: Path, files: dict[Path, bytes]) -> None:
    if _is_no_folder(folder):
        raise UsageError(f"{folder} is a file", hint="name a folder: ai4sdk init FOLDER")
    conflicts = []
    for place, content in files.items():
        blocked = next((up for up in place.parents if _is_no_folder(folder / up)), None)
        if blocked is not None:
            conflicts.append(str(blocked))
        elif os.path.lexists(folder / place) and not _holds(folder / place, content):
            conflicts.append(str(place))
    if conflicts:
        listed = ", ".join(dict.fromkeys(conflicts))
        raise UsageError(
            f"{folder} holds files that would be overwritten: {listed}",
            hint="move them away, or choose another folder: ai4sdk init FOLDER",
        )


def _is_no_folder(path: Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError:
        return False


def _write(folder: Path, files: dict[Path, bytes]) -> None:
    """Write all files, or none if one cannot be written; never over a file that appeared in the meantime."""
    made: list[Path] = []
    try:
        _make_folder(folder, made)
        for place, content in files.items():
            _make_folder((folder / place).parent, made)
            with open(folder / place, "xb") as file:
                made.append(folder / place)
                file.write(content)
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # a folder into which somebody else has put something stays
                path.rmdir() if path.is_dir() else path.unlink()
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    for missing in reversed([up for up in (folder, *folder.parents) if not up.exists()]):
        missing.mkdir()
        made.append(missing)
