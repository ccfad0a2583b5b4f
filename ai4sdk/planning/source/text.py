"""Source files, parsed no further than needed.

Parsing a file such as torch's ``__init__.py`` takes 20 ms, and a plan looks into a dozen of them for one name each.
So statements that have nothing to do with the names looked for are blanked out before parsing. Line numbers stay.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

__all__ = ["SourceError", "SourceFile", "installed_file", "parse"]

_STRING_OR_COMMENT = re.compile(
    r'''"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'''
    r"""|\'\'\'[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*\'\'\'"""
    r'''|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'''
    r"""|'[^'\\\n]*(?:\\.[^'\\\n]*)*'"""
    r"""|\#[^\n]*""",
    re.DOTALL,
)
_DEFINES = re.compile(r"(?:async\s+)?(def|class)\s+(\w+)")
_CONTINUES = re.compile(r"(?:else|elif|except|finally|case)\b")
_CONSTRUCTORS = frozenset({"__init__", "__new__", "__call__"})


class SourceError(Exception):
    """A source file that Python itself would refuse.

    Parameters
    ----------
    file, line
        Where.
    reason
        Why, in Python's words.
    """

    def __init__(self, file: Path, line: int | None, reason: str) -> None:
        super().__init__(f"{file}:{line or 1}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


def parse(source: str | bytes, file: Path) -> ast.Module:
    """Parse source without showing its warnings.

    Raises
    ------
    SourceError
        If it is not valid Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in a package's docstring is none of the user's business
        try:
            return ast.parse(source)
        except SyntaxError as error:
            raise SourceError(file, error.lineno, error.msg) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise SourceError(file, None, str(error) or "nested too deeply to read") from None


@dataclass
class _Block:
    """One statement with its decorators: lines ``first`` to ``last``, and the name that a def or class binds."""

    first: int
    last: int
    text: str
    kind: str | None = None
    name: str | None = None


class SourceFile:
    """A source file and the trees parsed from it.

    Parameters
    ----------
    path
        The file.
    whole
        Whether to parse all of it whatever is looked for, so that no syntax error is missed.

    Raises
    ------
    SourceError
        If the file cannot be read.
    """

    def __init__(self, path: Path, *, whole: bool) -> None:
        self.path = path
        self.whole = whole
        self._trees: dict[frozenset[str], ast.Module] = {}
        try:
            self._bytes = path.read_bytes()
        except OSError as error:
            raise SourceError(path, None, error.strerror or "cannot be read") from None

    @cached_property
    def full_tree(self) -> ast.Module:
        """The tree of the whole file."""
        return parse(self._bytes, self.path)

    def tree(self, names: frozenset[str]) -> ast.Module:
        """Return the statements that can bind one of the names; of a class, one of the names and its constructors.

        Raises
        ------
        SourceError
            If the file is not valid Python.
        """
        if self.whole or not self._prunable:
            return self.full_tree
        if names not in self._trees:
            try:
                self._trees[names] = parse(self._pruned(names), self.path)
            except SourceError:  # the text was cut in the wrong place; the parser decides
                self._trees[names] = self.full_tree
        return self._trees[names]

    def count(self, pattern: re.Pattern[str]) -> int:
        """Return how often a pattern occurs outside strings and comments."""
        return sum(1 for _ in pattern.finditer(self._masked))

    @cached_property
    def _text(self) -> str:
        return self._bytes.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")

    @cached_property
    def _masked(self) -> str:
        return _STRING_OR_COMMENT.sub(lambda match: "\n" * match[0].count("\n"), self._text)

    @cached_property
    def _prunable(self) -> bool:
        # Brackets that do not balance: the mask misread a string. A file in another encoding is left to the parser,
        # which reads its coding comment.
        return "\ufffd" not in self._text and _balanced(self._masked)

    @cached_property
    def _masked_lines(self) -> list[str]:
        return self._masked.split("\n")

    @cached_property
    def _blocks(self) -> list[_Block]:
        return list(_blocks(self._masked_lines, 0, len(self._masked_lines), ""))

    def _pruned(self, names: frozenset[str]) -> str:
        lines = self._text.split("\n")
        pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b|\bimport\s*\*")
        kept = [""] * len(lines)
        for block in self._blocks:
            if block.name in names if block.name else pattern.search(block.text):
                kept[block.first : block.last] = lines[block.first : block.last]
                if block.kind == "class":
                    self._drop_methods(block, names | _CONSTRUCTORS, kept)
        return "\n".join(kept)

    def _drop_methods(self, block: _Block, names: frozenset[str], kept: list[str]) -> None:
        lines = self._masked_lines
        header = next(row for row in range(block.first, block.last) if lines[row].startswith("class"))
        while not _balanced("\n".join(lines[block.first : header + 1])):
            header += 1
        body = next((row for row in range(header + 1, block.last) if lines[row].strip()), None)
        if body is None:
            return
        indent = lines[body][: len(lines[body]) - len(lines[body].lstrip())]
        for member in _blocks(lines, header + 1, block.last, indent):
            if member.kind == "def" and member.name not in names:
                kept[member.first : member.last] = [f"{indent}pass", *[""] * (member.last - member.first - 1)]


def _balanced(masked: str) -> bool:
    return all(masked.count(opening) == masked.count(closing) for opening, closing in ("()", "[]", "{}"))


def _blocks(lines: list[str], first: int, last: int, indent: str) -> Iterable[_Block]:
    width = len(indent)
    starts = [
        row
        for row in range(first, last)
        if (mark := lines[row][width : width + 1])
        and (mark.isidentifier() or mark == "@")
        and lines[row][:width] == indent
    ]
    block: _Block | None = None
    for row, end in pairwise([*starts, last]):
        head = lines[row][width:]
        text = "\n".join(lines[row:end])
        define = _DEFINES.match(head)
        if block and (block.kind == "@" or _CONTINUES.match(head) or not _balanced(block.text)):
            block.last, block.text = end, f"{block.text}\n{text}"
            if block.kind == "@" and define:
                block.kind, block.name = define[1], define[2]
            continue
        if block:
            yield block
        kind, name = (define[1], define[2]) if define else ("@" if head[0] == "@" else None, None)
        block = _Block(row, end, text, kind, name)
    if block:
        yield block


def installed_file(path: Path) -> SourceFile:
    """Return a file of an installed package; the last ones read are kept, for as long as they do not change.

    Raises
    ------
    SourceError
        If the file cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise SourceError(path, None, error.strerror or "cannot be read") from None
    return _installed_file(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _installed_file(path: Path, changed: int, size: int) -> SourceFile:
    return SourceFile(path, whole=False)
