"""Commands of several actions: which module does which."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence

from ai4sdk.cli.arguments import Parser
from ai4sdk.errors import UsageError

__all__ = ["act"]


def act(
    command: str, argv: Sequence[str], actions: Mapping[str, tuple[str, str]], *, description: str, epilog: str
) -> int:
    """Do the action that the first word names, or tell what there is.

    Parameters
    ----------
    command
        Name of the command.
    argv
        What follows it.
    actions
        Action → module and function that does it.
    description, epilog
        Of the help.

    Raises
    ------
    UsageError
        If there is no such action.
    """
    if not argv or argv[0] in ("-h", "--help"):
        parser = Parser(command, description, epilog)
        parser.add_argument("action", metavar="ACTION", help=", ".join(actions))
        parser.print_help()
        return 0
    if argv[0] not in actions:
        near = difflib.get_close_matches(argv[0], actions, n=1)
        raise UsageError(
            f"ai4sdk {command} has no action {argv[0]!r}", hint=near[0] if near else f"there are {', '.join(actions)}"
        )
    module, function = actions[argv[0]]
    status: int = getattr(importlib.import_module(module), function)(f"{command} {argv[0]}", list(argv[1:]))
    return status
