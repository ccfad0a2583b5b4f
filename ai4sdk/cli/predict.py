"""`ai4sdk predict`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from ai4sdk.cli.arguments import Parser, add_runs_option
from ai4sdk.cli.models import model_folder

EPILOG = """\
examples:
  ai4sdk predict latest --input rows.csv
  ai4sdk predict quickstart --input picture.png --output answer.json
  cat rows.json | ai4sdk predict latest --input - --format csv
"""


def main(command: str, argv: Sequence[str]) -> int:
    """Let a trained model predict."""
    parser = Parser(command, "Let a trained model predict. Reads JSON, CSV, NPY, NPZ, pictures or recordings.", EPILOG)
    parser.add_argument(
        "run", nargs="?", default="latest", metavar="RUN", help="run (id, prefix, name, latest) or package folder"
    )
    parser.add_argument(
        "--input", action="append", required=True, metavar="FILE|-", help="what to predict from; may be repeated"
    )
    parser.add_argument("--output", metavar="FILE", help="where to write; by default the terminal")
    parser.add_argument(
        "--format", choices=["json", "csv"], help="form of the answer (default: by --output, else json)"
    )
    parser.add_argument(
        "--trust-code", action="store_true", help="run the code inside a package that is not installed here"
    )
    add_runs_option(parser)
    args = parser.parse(argv)
    # In a process of its own, which may import torch; this one stays light and its errors stay readable.
    command_line = [sys.executable, "-m", "ai4sdk.worker.predict", str(model_folder(args))]
    for name in args.input:
        command_line += ["--input", name]
    command_line += ["--output", args.output] if args.output else []
    command_line += ["--format", args.format] if args.format else []
    command_line += ["--trust-code"] if args.trust_code else []
    return subprocess.run(command_line, check=False).returncode
