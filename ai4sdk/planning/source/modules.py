"""Where a module lies on disk, found as Python's import would find it, without importing it or its parents."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec
from pathlib import Path
from typing import Literal

__all__ = ["Module", "ModuleFinder"]

ModuleKind = Literal["source", "namespace", "opaque"]

_SUFFIXES = [*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES]


@dataclass(frozen=True)
class Module:
    """A module as import would find it.

    Parameters
    ----------
    name
        Full dotted name.
    kind
        ``source`` for a readable file, ``namespace`` for folders without ``__init__.py``, ``opaque`` for compiled
        or built-in modules, which cannot be read.
    file
        File of the module; nothing for a namespace or a built-in module.
    folders
        Where its submodules are looked for; empty unless it is a package.
    mine
        Whether it lies in one of the folders searched first, which hold the user's own code.
    """

    name: str
    kind: ModuleKind
    file: Path | None = None
    folders: tuple[Path, ...] = ()
    mine: bool = False


class ModuleFinder:
    """Finds modules in the user's folders, then on ``sys.path``.

    It looks at the disk each time it is asked for a new name: import's own finders trust a folder's time stamp and
    miss a file made an instant ago.

    Parameters
    ----------
    search
        Folders that come first.
    """

    def __init__(self, search: Sequence[Path]) -> None:
        self.search = tuple(dict.fromkeys(Path(folder).absolute() for folder in search))
        installed = (Path(entry).absolute() for entry in sys.path)
        self.path = tuple(dict.fromkeys((*self.search, *installed)))
        self._found: dict[str, Module | None] = {}

    def find(self, name: str) -> Module | None:
        """Return the module of a dotted name, or nothing where import would find none."""
        if name not in self._found:
            parent, _, last = name.rpartition(".")
            if not last.isidentifier():
                self._found[name] = None
            elif not parent:
                self._found[name] = self._find_top(name)
            else:
                package = self.find(parent)
                folders = package.folders if package else ()
                self._found[name] = _find_in(folders, name, bool(package and package.mine))
        return self._found[name]

    def _find_top(self, name: str) -> Module | None:
        if name in sys.builtin_module_names:
            return Module(name, "opaque")
        mine = _find_in(self.search, name, True)
        if mine and mine.kind != "namespace":
            return mine
        found = _find_in(self.path, name, False)
        if found and found.kind != "namespace":
            return found
        editable = self._find_by_hooks(name)
        if editable and (found is None or editable.kind != "namespace"):
            return editable
        if found and mine:  # one package over several folders, the user's among them
            return Module(name, "namespace", None, found.folders, True)
        return found

    def _find_by_hooks(self, name: str) -> Module | None:
        # Editable installs and zip files are known only to the hooks of import. Asked for a top-level name, they
        # say where it lies without importing it.
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):
            return None
        return _module_of_spec(name, spec) if spec else None

    def children(self, module: Module | None) -> set[str]:
        """Return the names of a package's submodules, or of all top-level modules."""
        names: set[str] = set() if module else set(sys.builtin_module_names) | set(sys.stdlib_module_names)
        for folder in module.folders if module else self.path:
            try:
                entries = list(os.scandir(folder))
            except OSError:
                continue
            for entry in entries:
                stem = _module_name(entry)
                if stem and stem.isidentifier():
                    names.add(stem)
        return names


def _module_name(entry: os.DirEntry[str]) -> str | None:
    if entry.is_dir():
        return entry.name if entry.name != "__pycache__" else None
    suffix = next((suffix for suffix in _SUFFIXES if entry.name.endswith(suffix)), None)
    stem = entry.name.removesuffix(suffix) if suffix else None
    return stem if stem != "__init__" else None


def _find_in(folders: Iterable[Path], name: str, mine: bool) -> Module | None:
    last = name.rpartition(".")[2]
    portions = []
    for folder in folders:
        base = os.path.join(folder, last)  # noqa: PTH118 - a hundred of these run in a plan; Path is five times slower
        is_folder = os.path.isdir(base)  # noqa: PTH112
        if is_folder and (file := _first_file(f"{base}/__init__")):
            return Module(name, _kind(file), Path(file), (Path(base),), mine)
        if file := _first_file(base):
            return Module(name, _kind(file), Path(file), (), mine)
        if is_folder:
            portions.append(Path(base))
    return Module(name, "namespace", None, tuple(portions), mine) if portions else None


def _first_file(base: str) -> str | None:
    return next((base + suffix for suffix in _SUFFIXES if os.path.isfile(base + suffix)), None)  # noqa: PTH113


def _kind(file: str) -> ModuleKind:
    return "source" if file.endswith(tuple(SOURCE_SUFFIXES)) else "opaque"


def _module_of_spec(name: str, spec: ModuleSpec) -> Module:
    folders = tuple(Path(folder) for folder in spec.submodule_search_locations or ())
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    if file is None or not file.is_file():
        return Module(name, "namespace" if folders else "opaque", None, folders)
    return Module(name, _kind(str(file)), file, folders)
