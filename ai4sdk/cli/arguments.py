"""Parsing the arguments of one command, with overrides between options."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ai4sdk.errors import UsageError

__all__ = ["Parser", "add_runs_option", "add_waiting_options", "runs_folder", "split_config"]


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` with the nearest option instead of ending the process."""

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"ai4sdk {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise UsageError(message, hint=f"{self.prog} --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse, allowing options between the positional arguments."""
        options = [option for action in self._actions for option in action.option_strings]
        for text in argv:
            if text == "--":
                break
            if text.startswith("--") and text.split("=")[0] not in options:
                near = difflib.get_close_matches(text.split("=")[0], options, n=1)
                raise UsageError(
                    f"{self.prog} has no option {text}",
                    hint=f"{near[0]}" if near else f"options are {', '.join(o for o in options if o.startswith('--'))}",
                )
        return self.parse_intermixed_args(argv)


def split_config(command: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """Take ``config=NAME`` out of a list of overrides.

    Raises
    ------
    UsageError
        If it is missing or given twice.
    """
    configs = [word.partition("=")[2] for word in words if word.startswith("config=")]
    overrides = [word for word in words if not word.startswith("config=")]
    if len(configs) == 1 and configs[0]:
        return configs[0], overrides
    if len(configs) > 1:
        raise UsageError(f"config= is given {len(configs)} times", hint="give it once")
    named = [word for word in overrides if "=" not in word and not word.startswith(("+", "~"))]
    guess = named[0] if named else "quickstart"
    raise UsageError("which config?", hint=f"ai4sdk {command} config={guess}")


def add_waiting_options(parser: Parser) -> None:
    """Add --detach and --wait."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-d", "--detach", action="store_true", help="return at once; see `ai4sdk ps`, `ai4sdk logs -f`")
    which.add_argument("-w", "--wait", action="store_true", help="watch it to its end, though it be on a cluster")


def add_runs_option(parser: Parser) -> None:
    """Add ``--runs``, the folder to look for runs in."""
    parser.add_argument("--runs", metavar="FOLDER", help="runs folder (default: runs in the project, or $AI4SDK_RUNS)")


def runs_folder(args: argparse.Namespace, project: Path) -> Path:
    """Return the folder to look for runs in."""
    return Path(project, args.runs or os.environ.get("AI4SDK_RUNS") or "runs")
