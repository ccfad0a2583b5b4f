"""What can go wrong, and the exit code each kind ends the command line with.

::

    Ai4Error                    1  anything below, or a defect of ai4sdk itself
    ├── UsageError              2  the command line is not understood
    ├── ConfigError             2  mistakes in the YAML or the overrides; holds every Problem found
    ├── DataError               3  data is unreachable, unreadable, or not what the plan recorded
    ├── RunFailed               4  the user's own code raised, or training cannot go on
    ├── RunInterrupted          5  the work was killed or lost; `resume` continues it
    ├── NotFound                6  no such run, plan, package, config or file; or the name fits several
    ├── EnvironmentFault        7  this machine lacks something: a package, an engine, disk space
    └── RunCancelled          130  stopped on request (Ctrl-C, `ai4sdk cancel`)

An error of this tree is shown to the user as its message alone, never as a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = [
    "Ai4Error",
    "ConfigError",
    "DataError",
    "EnvironmentFault",
    "NotFound",
    "Origin",
    "Problem",
    "RunCancelled",
    "RunFailed",
    "RunInterrupted",
    "UsageError",
]


class Ai4Error(Exception):
    """Base of every error ai4sdk raises on purpose.

    Parameters
    ----------
    message
        What happened, in one sentence that names the thing it happened to.
    hint
        What to do next: a command to type or a line to change.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class UsageError(Ai4Error):
    """The command line is not understood."""

    exit_code = 2


class DataError(Ai4Error):
    """Data is unreachable, unreadable, or differs from what the plan recorded."""

    exit_code = 3


class RunFailed(Ai4Error):
    """A task ended because the code it ran failed."""

    exit_code = 4


class RunInterrupted(Ai4Error):
    """A task was killed or lost; nothing says its own code is at fault."""

    exit_code = 5


class NotFound(Ai4Error):
    """No run, plan, package or file of that name, or several that fit."""

    exit_code = 6


class EnvironmentFault(Ai4Error):
    """The machine lacks what the work needs: a package, an engine, disk space."""

    exit_code = 7


class RunCancelled(Ai4Error):
    """The work was stopped on request."""

    exit_code = 130


@dataclass(frozen=True)
class Origin:
    """Where a value was set: a place in a file, an override, or a default of the schema.

    Parameters
    ----------
    source
        A file path as the user would type it, ``command line`` or ``default``.
    line, column
        One-based position in the file; ``None`` where the source is no file.
    text
        The override as typed, or the value as written in the file.
    """

    source: str
    line: int | None = None
    column: int | None = None
    text: str | None = None

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.source}:{self.line}:{self.column or 1}"
        return f"{self.source}: {self.text}" if self.text else self.source


@dataclass(frozen=True)
class Problem:
    """One mistake in a config, with everything needed to mend it.

    Parameters
    ----------
    message
        What is wrong, in one sentence.
    key
        Dotted key of the value, empty where the problem is not about one value.
    origin
        What set the winning value.
    overridden
        The layers whose values lost to the winning one, last loser first.
    fix
        The line, override or command to type.
    """

    message: str
    key: str = ""
    origin: Origin | None = None
    overridden: Sequence[Origin] = field(default=())
    fix: str | None = None

    def __str__(self) -> str:
        head = f"{self.origin}" if self.origin else (self.key or "config")
        lines = [f"{head}", f"    {self.message}"]
        lines += [f"    overrides {loser}" for loser in self.overridden]
        if self.fix:
            lines.append(f"    → {self.fix}")
        return "\n".join(lines)


class ConfigError(Ai4Error):
    """Every mistake found in a config, all at once.

    Parameters
    ----------
    problems
        The mistakes, in the order they should be read. Never empty.
    """

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the config")

    def __str__(self) -> str:
        return "\n".join([f"{self.message}:", *(str(problem) for problem in self.problems)])
