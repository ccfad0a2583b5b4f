"""`ai4sdk oscar plan`, `apply`, `ls`, `rm`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai4sdk.backends.oscar.apply import apply as apply_definition
from ai4sdk.backends.oscar.apply import remove
from ai4sdk.backends.oscar.definition import FDL_NAME, MANAGED, Definition
from ai4sdk.backends.oscar.script import SCRIPT_NAME
from ai4sdk.cli.oscar_options import cluster_of, definition_of, parser_for, read
from ai4sdk.errors import EnvironmentFault

_WITH_BUCKETS = "OSCAR removes the buckets of the service, too, and all that is in them: let it"

_NOT_SHOWN = ("token", "storage_providers", "clusters")

EPILOG = """\
examples:
  ai4sdk oscar plan latest backend.image=registry.example.org/fish:1
  ai4sdk oscar apply latest 'backend.input=[{path: fish/in}]' 'backend.output=[{path: fish/out}]'
  ai4sdk oscar apply 20260102 backend=our-cluster
"""


def plan(command: str, argv: Sequence[str]) -> int:
    """Show what a cluster would be given."""
    parser = parser_for(command, "Show the FDL file and the script of a service.", EPILOG, words="[RUN] [KEY=VALUE]")
    parser.add_argument("--out", metavar="FOLDER", help=f"write {FDL_NAME} and {SCRIPT_NAME} there")
    parser.add_argument("--json", action="store_true", help="print what the API is given, as JSON")
    request = read(command, parser, argv, names=["RUN"], more=1)
    made = definition_of(request)
    if request.args.out:
        _write(made, Path(request.args.out))
    elif request.args.json:
        print(json.dumps(made.service, indent=2, ensure_ascii=False))
    else:
        print(f"# {FDL_NAME}\n{made.to_fdl()}\n# {SCRIPT_NAME}\n{made.script}", end="")
    return 0


def apply(command: str, argv: Sequence[str]) -> int:
    """Create a service, or change it in place."""
    parser = parser_for(
        command,
        "Create a service, or change it in place if it differs; nothing is sent if it does not.",
        EPILOG,
        words="[RUN] [KEY=VALUE]",
    )
    parser.add_argument(
        "--force", action="store_true", help="send it though nothing differs (secrets may have), or it is not by ai4sdk"
    )
    parser.add_argument("--recreate", action="store_true", help="remove the service first; its jobs are forgotten")
    parser.add_argument("--with-buckets", action="store_true", help=_WITH_BUCKETS)
    request = read(command, parser, argv, names=["RUN"], more=1)
    made = definition_of(request)
    cluster = cluster_of(request)
    args = request.args
    done = apply_definition(cluster, made, recreate=args.recreate, with_buckets=args.with_buckets, force=args.force)
    what = f": {', '.join(done.changed)}" if done.changed else ""
    where = "the stand-in on this machine" if cluster.stand_in else cluster.endpoint
    print(f"{made.name} is {done.did}{what}, at {where}")
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for place in made.service.get("input", []):
        print(f"  is started for files in {place['path']} ({place['storage_provider']})")
    if "expose" in made.service:
        print(f"  answers at {cluster.endpoint}/system/services/{made.name}/exposed/")
    elif request.options.enable_gpu:
        print("note: calls and jobs compute with the processor; a GPU is for what is exposed", file=sys.stderr)
    print(f"  → ai4sdk oscar invoke {made.name} --input FILE")
    return 0


def ls(command: str, argv: Sequence[str]) -> int:
    """List services."""
    parser = parser_for(command, "List the services of a cluster that you may see.", words="[KEY=VALUE]")
    parser.add_argument("--json", action="store_true", help="print as JSON, without tokens and secrets")
    request = read(command, parser, argv, names=[])
    services = cluster_of(request).services()
    if request.args.json:
        print(json.dumps([_public(service) for service in services], indent=2, ensure_ascii=False))
        return 0
    if not services:
        print("no services\n  → ai4sdk oscar apply RUN")
        return 0
    rows = [("service", "image", "input", "output", ""), *map(_row, services)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def rm(command: str, argv: Sequence[str]) -> int:
    """Remove a service, or its jobs."""
    parser = parser_for(command, "Remove a service, or only its jobs.", words="NAME [KEY=VALUE]")
    parser.add_argument("--with-buckets", action="store_true", help=_WITH_BUCKETS)
    parser.add_argument("--jobs", action="store_true", help="only its jobs that have succeeded")
    parser.add_argument("--all-jobs", action="store_true", help="only its jobs, running ones and failed ones, too")
    request = read(command, parser, argv, names=["NAME"])
    (name,) = request.names
    cluster = cluster_of(request)
    if request.args.jobs or request.args.all_jobs:
        cluster.known(name)
        cluster.remove_jobs(name, everything=request.args.all_jobs)
        print(f"jobs of {name} are removed")
    else:
        remove(cluster, name, with_buckets=request.args.with_buckets)
        print(f"{name} is removed")
    return 0


def _write(made: Definition, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((FDL_NAME, made.to_fdl()), (SCRIPT_NAME, made.script)):
            (folder / name).write_text(text, encoding="utf-8")
            print(folder / name)
    except OSError as error:
        raise EnvironmentFault(f"{folder} cannot be written: {error.strerror or error}", hint="--out FOLDER") from error
    if "${secret:" in made.to_fdl():
        print("note: secrets are references there; `ai4sdk oscar apply` looks them up", file=sys.stderr)


def _public(service: dict[str, Any]) -> dict[str, Any]:
    """Return a service without what lets in: older clusters show more of it than they should."""
    shown = {name: value for name, value in service.items() if name not in _NOT_SHOWN}
    if environment := shown.get("environment"):
        hidden = [name for name in environment if name.lower() == "secrets"]
        shown["environment"] = {**environment, **{name: dict.fromkeys(environment[name] or (), "") for name in hidden}}
    return shown


def _row(service: dict[str, Any]) -> tuple[str, ...]:
    places = [", ".join(place["path"] for place in service.get(side) or []) or "-" for side in ("input", "output")]
    ours = "" if (service.get("labels") or {}).get(MANAGED) else "not by ai4sdk"
    return (service["name"], service.get("image", ""), *places, ours)
