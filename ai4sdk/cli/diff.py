"""`ai4sdk diff`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ai4sdk.cli.arguments import Parser, add_runs_option, runs_folder
from ai4sdk.config.project import find_project
from ai4sdk.planning.compare import compare
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.store import find_run


def main(command: str, argv: Sequence[str]) -> int:
    """Compare two plans or runs; status 0 if nothing that matters differs, 1 if something does."""
    parser = Parser(command, "Say how two plans or runs differ, first in what changes results.", STATUS)
    parser.add_argument("left", metavar="A", help="plan file, or run (id, prefix, name, latest)")
    parser.add_argument("right", metavar="B", help="the same")
    parser.add_argument("--json", action="store_true", help="print the differences as JSON")
    add_runs_option(parser)
    args = parser.parse(argv)
    runs = runs_folder(args, find_project().root)
    left, right = _open(args.left, runs), _open(args.right, runs)
    differences = compare(left, right)
    matter = [difference for difference in differences if difference.matters]
    if args.json:
        print(json.dumps([asdict(difference) for difference in differences], indent=2, ensure_ascii=False, default=str))
        return 1 if matter else 0
    print(f"A  {left.short_digest}  {args.left}")
    print(f"B  {right.short_digest}  {args.right}")
    _show("changes results", matter)
    _show("changes nothing in the results", [difference for difference in differences if not difference.matters])
    if not matter:
        print("\nthe same results: one digest" if left.digest == right.digest else "\nthe same results")
    return 1 if matter else 0


STATUS = "exit status: 0 if the two give the same results, 1 if something that matters differs"


def _show(title: str, differences: Sequence[Any]) -> None:
    if not differences:
        return
    print(f"\n{title}")
    width = max(len(difference.key) for difference in differences)
    for difference in differences:
        print(f"  {difference.part:8}  {difference.key:{width}}  {_text(difference.left)} → {_text(difference.right)}")


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "…"


def _open(reference: str, runs: Path) -> Plan:
    path = Path(reference)
    return read_plan_file(path if path.exists() else find_run(reference, runs).root)
