"""`ai4sdk modules`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ai4sdk.catalog.modules import CatalogModule, find_modules
from ai4sdk.catalog.shipped import shipped_modules
from ai4sdk.cli.arguments import Parser
from ai4sdk.config.project import display_path, find_project


def main(command: str, argv: Sequence[str]) -> int:
    """List the modules of the project and of the catalogue."""
    parser = Parser(command, "List modules: the project's own and those that come with ai4sdk.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only modules whose description has all these words")
    parser.add_argument("--json", action="store_true", help="print their metadata as JSON")
    args = parser.parse(argv)
    found = [
        module
        for module in find_modules([find_project().root / "modules", shipped_modules()])
        if all(word.lower() in _searched(module) for word in args.words)
    ]
    if args.json:
        entries = [
            {
                "name": module.name,
                "folder": str(module.folder),
                "source": module.source,
                "packages": list(module.packages),
                "options": {group: list(names) for group, names in module.options.items()},
                "metadata": dict(module.metadata),
                "problems": [str(problem) for problem in module.problems],
            }
            for module in found
        ]
        print(json.dumps(entries, indent=2, ensure_ascii=False, default=str))
        return 0
    for module in found:
        print(f"{module.name}  {module.summary}")
        rows = [("tasks", ", ".join(module.metadata.get("tasks", []))), ("folder", display_path(module.folder))]
        rows += [(f"{group or 'config'}=", ", ".join(names)) for group, names in module.options.items()]
        rows += [("problem", str(problem)) for problem in module.problems]
        for name, text in rows:
            print(f"    {name:9} {text}")
    if not found:
        print("no such module" if args.words else "no modules")
    return 0


def _searched(module: CatalogModule) -> str:
    return json.dumps([module.name, dict(module.metadata)], default=str, ensure_ascii=False).lower()
