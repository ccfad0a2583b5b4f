"""`ai4sdk schema`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ai4sdk.cli.arguments import Parser
from ai4sdk.config.keys import nearest
from ai4sdk.config.schema import GROUPS, group_schema, job_schema, reference_page
from ai4sdk.errors import EnvironmentFault, NotFound
from ai4sdk.runs.files import write_text


def main(command: str, argv: Sequence[str]) -> int:
    """Print or write JSON Schemas."""
    parser = Parser(command, "Print the JSON Schema of a job or of a group, for editors that check YAML.")
    parser.add_argument("group", nargs="?", default="job", help=f"job (default), or one of {', '.join(GROUPS)}")
    parser.add_argument("--out", metavar="FOLDER", help="write the schemas of the job and of all groups into a folder")
    parser.add_argument("--reference", action="store_true", help="print the configuration reference as Markdown")
    args = parser.parse(argv)
    if args.reference:
        print(reference_page(), end="")
    elif args.out:
        for path in write_schemas(Path(args.out)):
            print(path)
    else:
        if args.group not in ("job", *GROUPS):
            near = nearest(args.group, ("job", *GROUPS))
            raise NotFound(f"there is no schema of {args.group!r}", hint=f"ai4sdk schema {near or 'job'}")
        print(schema_text(args.group), end="")
    return 0


def schema_text(group: str) -> str:
    """Return a schema as the text of its file."""
    return json.dumps(job_schema() if group == "job" else group_schema(group), indent=1, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """Write ``job.json`` and one schema a group; raises `EnvironmentFault` if the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for group in ("job", *GROUPS):
            write_text(folder / f"{group}.json", schema_text(group), durable=False)
    except OSError as error:
        raise EnvironmentFault(f"{folder} cannot be written: {error.strerror}") from error
    return [folder / f"{group}.json" for group in ("job", *GROUPS)]
