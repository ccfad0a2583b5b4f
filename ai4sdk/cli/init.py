"""`ai4sdk init`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ai4sdk.catalog.scaffold import init_project
from ai4sdk.cli.arguments import Parser
from ai4sdk.cli.schema import write_schemas
from ai4sdk.config.project import display_path
from ai4sdk.errors import UsageError


def main(command: str, argv: Sequence[str]) -> int:
    """Start a user project."""
    parser = Parser(command, "Start a project of your own: configs, a module, data, ready to run.")
    parser.add_argument("folder", nargs="?", default=".", help="where (default: the current folder)")
    parser.add_argument("--name", help="name of the project's module (default: the folder's name)")
    args = parser.parse(argv)
    folder = Path(args.folder).resolve()
    name = args.name or re.sub(r"\W+", "_", folder.name.lower()).strip("_") or "project"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(
            f"{name!r} cannot be the name of a Python package",
            hint=f"ai4sdk init {args.folder} --name my_module (lower case letters, digits and _)",
        )
    files = init_project(folder, name=name)
    write_schemas(folder / "configs" / "schemas")
    for path in files:
        print(display_path(path))
    here = "" if folder == Path.cwd() else f"cd {args.folder} && "
    print(f"\n  → {here}ai4sdk run config=train")
    return 0
