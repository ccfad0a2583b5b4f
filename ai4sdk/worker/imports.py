"""Import a folder of code beside other versions of itself.

Two runs of one project hold two versions of ``mymodule``. Python keeps one module a name, so the second import would
silently give the first version. Here each folder of code gets a hidden package of its own, named after its content;
within it ``import mymodule`` finds the folder's own ``mymodule``, and every other name is imported as ever.
Code that imports its own modules by text (``importlib.import_module("mymodule.parts")``) is not redirected.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["CodeFolder", "code_digest", "open_code", "python_files", "same_code"]

_PREFIX = "_ai4sdk_code_"
_lock = threading.Lock()
_folders: dict[str, CodeFolder] = {}


class CodeFolder:
    """A folder of code with a module namespace of its own; made by `open_code`.

    Parameters
    ----------
    folder
        Where the code lies.
    digest
        SHA-256 of its content.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self.prefix = f"{_PREFIX}{digest[:16]}"
        self.names = frozenset(_top_names(folder))
        self.builtins = {**vars(builtins), "__import__": self._import}
        package = ModuleType(self.prefix, f"Code of {folder}.")
        package.__path__ = [str(folder)]
        sys.modules[self.prefix] = package

    def holds(self, target: str) -> bool:
        """Tell whether a dotted path starts in this folder."""
        return target.partition(".")[0] in self.names

    def localized(self, config: Any) -> Any:
        """Return a config whose ``_target_`` values point into this folder where it holds them."""
        if isinstance(config, Mapping):
            return {
                key: f"{self.prefix}.{value}"
                if key == "_target_" and isinstance(value, str) and self.holds(value)
                else self.localized(value)
                for key, value in config.items()
            }
        if isinstance(config, list | tuple):
            return [self.localized(value) for value in config]
        return config

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not self.holds(name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        own = f"{self.prefix}.{name}"
        if fromlist:
            return builtins.__import__(own, globals, locals, fromlist, 0)
        importlib.import_module(own)
        return sys.modules[f"{self.prefix}.{name.partition('.')[0]}"]


class _Loader(SourceFileLoader):
    """Runs a module with its folder's own ``import``; reads and writes no compiled files."""

    def path_stats(self, path: Any) -> Any:
        raise OSError("compiled files are not used")  # SourceLoader then compiles the source itself

    def exec_module(self, module: ModuleType) -> None:
        folder = _folder_of(module.__name__)
        if folder is not None:
            module.__dict__["__builtins__"] = folder.builtins
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds the modules of code folders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX) or path is None:
            return None
        portions: list[str] = []
        for entry in path:
            spec = FileFinder(entry, (_Loader, SOURCE_SUFFIXES)).find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
            if spec is not None:
                portions += spec.submodule_search_locations or []
        if not portions:
            return None
        namespace = ModuleSpec(fullname, None, is_package=True)
        namespace.submodule_search_locations = portions
        return namespace


def open_code(folder: Path) -> CodeFolder:
    """Return the namespace of a folder of code; equal content gives the same one.

    Parameters
    ----------
    folder
        What would be put on ``sys.path``. Its content must not change any more.
    """
    digest = code_digest(folder)
    with _lock:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        known = _folders.get(digest)
        if known is None:
            known = _folders[digest] = CodeFolder(folder.resolve(), digest)
        elif not known.folder.is_dir():  # the copy it was read from is gone; modules not imported yet come from here
            known.folder = folder.resolve()
            sys.modules[known.prefix].__path__ = [str(known.folder)]
        return known


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files under a folder in a fixed order."""
    for path in sorted(folder.rglob("*.py")):
        if "__pycache__" not in path.parts and path.is_file():
            yield path


def code_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of the Python files under a folder, in hexadecimal."""
    digest = hashlib.sha256()
    for path in python_files(folder):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def same_code(folder: Path, places: Sequence[Path]) -> bool:
    """Tell whether each Python file of a folder lies, byte for byte, in one of the places at the same relative path."""
    files = list(python_files(folder))
    return bool(files) and all(
        any(_equal(path, place / path.relative_to(folder)) for place in places) for path in files
    )


def _equal(one: Path, other: Path) -> bool:
    try:
        return other.is_file() and one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def _top_names(folder: Path) -> Iterator[str]:
    suffixes = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name.isidentifier() and next(python_files(entry), None):
            yield entry.name
        elif entry.is_file() and entry.name.endswith(suffixes):
            yield entry.name.partition(".")[0]


def _folder_of(module: str) -> CodeFolder | None:
    prefix = module.partition(".")[0]
    return next((folder for folder in _folders.values() if folder.prefix == prefix), None)
