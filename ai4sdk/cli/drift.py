"""`ai4sdk drift`."""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
from collections.abc import Sequence

from ai4sdk.cli.arguments import Parser, add_runs_option
from ai4sdk.cli.models import model_folder
from ai4sdk.errors import UsageError

DESCRIPTION = """\
Say whether data are still what a model was trained on. Reads what `ai4sdk predict` reads.
Ends with 0 if no difference is found, with 8 if there is drift."""

EPILOG = """\
examples:
  ai4sdk drift check latest --data rows.csv
  ai4sdk drift check quickstart --data pictures/ --report drift.html
  ai4sdk drift check package/ --data week.npy --alpha 0.01 --json
"""
ACTIONS = ("check",)


def main(command: str, argv: Sequence[str]) -> int:
    """Do one of the actions."""
    if not argv or argv[0] in ("-h", "--help"):
        parser = Parser(command, "Watch for data that a model was not trained on.", "`ai4sdk drift check --help`")
        parser.add_argument("action", metavar="ACTION", help="check: hold new data against those of the training")
        parser.print_help()
        return 0
    if argv[0] not in ACTIONS:
        near = difflib.get_close_matches(argv[0], ACTIONS, n=1)
        raise UsageError(f"ai4sdk drift has no action {argv[0]!r}", hint=f"ai4sdk drift {near[0] if near else 'check'}")
    return _check(f"{command} check", argv[1:])


def _check(command: str, argv: Sequence[str]) -> int:
    parser = Parser(command, DESCRIPTION, EPILOG)
    parser.add_argument(
        "run", nargs="?", default="latest", metavar="RUN", help="run (id, prefix, name, latest) or package folder"
    )
    parser.add_argument(
        "--data", action="append", required=True, metavar="FILE|FOLDER|-", help="new data; may be repeated"
    )
    parser.add_argument(
        "--alpha", type=_share, default=0.05, help="largest chance of any false alarm, over all features (default 0.05)"
    )
    parser.add_argument("--report", metavar="FILE", help="write a page with plots (HTML)")
    parser.add_argument("--json", action="store_true", help="print every test as JSON")
    parser.add_argument(
        "--trust-code", action="store_true", help="run the code inside a package that is not installed here"
    )
    add_runs_option(parser)
    args = parser.parse(argv)
    folder = model_folder(args)
    # In a process of its own, which may import torch; this one stays light and its errors stay readable.
    command_line = [sys.executable, "-m", "ai4sdk.drift.check", str(folder), "--alpha", str(args.alpha)]
    for name in args.data:
        command_line.append(f"--data={name}")
    command_line += [f"--report={args.report}"] if args.report else []
    command_line += ["--json"] if args.json else []
    command_line += ["--trust-code"] if args.trust_code else []
    return subprocess.run(command_line, check=False).returncode


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 1e-6 <= share <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0.000001 to 0.5")
    return share
