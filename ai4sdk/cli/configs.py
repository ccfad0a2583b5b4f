"""`ai4sdk configs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ai4sdk.cli.arguments import Parser
from ai4sdk.config.keys import nearest
from ai4sdk.config.project import Project, find_project
from ai4sdk.errors import NotFound

_SKIPPED = {"schemas"}


def main(command: str, argv: Sequence[str]) -> int:
    """List configs, groups and options, one line each."""
    parser = Parser(command, "List configs, groups and their options, one line each.")
    parser.add_argument("group", nargs="?", help="only this group")
    args = parser.parse(argv)
    groups = find_options(find_project())
    if args.group is not None and args.group not in groups:
        near = nearest(args.group, groups)
        names = ", ".join(group for group in groups if group)
        raise NotFound(
            f"there is no group {args.group!r}", hint=f"ai4sdk configs {near}" if near else f"groups: {names}"
        )
    chosen = groups if args.group is None else {args.group: groups[args.group]}
    width = max((len(name) for options in chosen.values() for name in options), default=0)
    for group, options in chosen.items():
        print(f"{group}=" if group else "config=")
        for name, (text, whose) in options.items():
            print(f"  {name:{width}}  {text}" + ("" if whose.startswith("ai4sdk") else f"  [{whose}]"))
    return 0


def find_options(project: Project) -> dict[str, dict[str, tuple[str, str]]]:
    """Return group → option → (its first comment line, whose it is); whole configs are in the group ``""``."""
    found: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for whose, folder in project.config_folders():
        for file in sorted(folder.rglob("*.yaml")):
            relative = file.relative_to(folder)
            group = str(relative.parent) if relative.parent != Path() else ""
            if relative.parts[0] not in _SKIPPED:
                found.setdefault(group, {}).setdefault(file.stem, (first_comment(file), whose))
    return {group: dict(sorted(options.items())) for group, options in sorted(found.items())}


def first_comment(file: Path) -> str:
    """Return the first comment line of a file that is no instruction to a tool."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        text = line.strip()
        if text.startswith("#") and not text.startswith(("# @", "# yaml-language-server")):
            return text.lstrip("# ").strip()
        if text and not text.startswith("#"):
            break
    return ""
