"""`ai4sdk federated show` and `join`: what a federation asks of a site, and taking part in it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.backends.launch import resume_run, start_run
from ai4sdk.backends.standing import current_state
from ai4sdk.cli.arguments import Parser, add_runs_option, add_waiting_options, runs_folder, split_config
from ai4sdk.cli.federated import absolute, address_of, mapping
from ai4sdk.cli.following import follow
from ai4sdk.cli.interrupts import interrupts_held
from ai4sdk.cli.plan import warnings_of
from ai4sdk.config.load import load_job
from ai4sdk.config.project import Project, find_project
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.federated.deploy.tokens import federation_folder
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.planning.terms import what_leaves
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State
from ai4sdk.runs.store import list_runs

if TYPE_CHECKING:
    from ai4sdk.federated.deploy.client import SiteClient

EPILOG = """\
examples:
  ai4sdk federated show host:9443 --site north --token-file north.token --ca ca.pem
  ai4sdk federated join host:9443 --site north --token-file north.token --ca ca.pem \\
    config=NAME training=federated dataset.uri=our.csv
  ... --approve sha256:…      join without a question, under these terms only

The token is read from --token-file, from standard input with `--token-file -`, or from $AI4SDK_FEDERATION_TOKEN.
"""


_TRIES, _PAUSE = 3, 0.5
"""How often a coordinator is tried to be reached, and seconds between."""


def show(command: str, argv: Sequence[str]) -> int:
    """Print what a federation asks of a site."""
    parser = _parser(command, "Show what a federation asks of a site, without joining it.")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse(argv)
    told, terms = _ask(_connection(args, find_project()))
    if args.json:
        print(json.dumps({**told, "terms": terms}, indent=2))
        return 0
    print("\n".join(_lines(told, terms)))
    return 0


def join(command: str, argv: Sequence[str]) -> int:
    """Show what a federation asks, and take part if that is agreed to."""
    parser = _parser(command, "Take part in a federation with this site's own data; what it asks is shown first.")
    parser.add_argument("overrides", nargs="*", metavar="config=NAME KEY=VALUE", help="config and overrides")
    parser.add_argument("--approve", metavar="DIGEST", help="agree to the terms of this digest, and to no others")
    add_waiting_options(parser)
    args = parser.parse(argv)
    config, overrides = split_config(command, args.overrides)
    project = find_project()
    connection = _connection(args, project)
    told, terms = _ask(connection)
    if told.get("site") != args.site:
        raise EnvironmentFault(f"the token is for {told.get('site')}", hint=f"--site {told.get('site')}")
    from ai4sdk.federated.deploy.agreement import require_equal

    joined = {**connection, "site": args.site, "approved": terms["digest"]}
    own = ["++federation.partition=null", "++federation.listen=null", "++training.init_from=null"]
    own.append(f"++federation.join={mapping({name: value for name, value in joined.items() if value is not None})}")
    loaded = load_job(config, [*own, *overrides], project)
    loaded = replace(loaded, job=loaded.job.at(args.site))
    plan = make_plan(loaded, command=["ai4sdk", command, *argv])
    print("\n".join(_lines(told, terms)), file=sys.stderr)
    require_equal(terms, plan.terms)
    _agree(terms["digest"], args.approve)
    for warning in warnings_of(plan):
        print(f"warning: {warning}", file=sys.stderr)
    with interrupts_held():
        return follow(_start(plan, project), plan, detach=args.detach, wait=args.wait)


def _parser(command: str, description: str) -> Parser:
    parser = Parser(command, description, EPILOG)
    parser.add_argument("address", metavar="HOST:PORT", help="the coordinator")
    parser.add_argument("--site", required=True, metavar="NAME", help="name of this site, which the token is for")
    parser.add_argument("--ca", required=True, metavar="FILE", help="certificate that the coordinator's is signed by")
    parser.add_argument("--token-file", metavar="FILE", help="file with the token; - for standard input")
    parser.add_argument("--key", metavar="FILE", help="this site's private key (default: one is made)")
    add_runs_option(parser)
    return parser


def _connection(args: argparse.Namespace, project: Project) -> dict[str, str | None]:
    """Return where the coordinator is, and where what admits this site lies."""
    folder = federation_folder(runs_folder(args, project.root))
    token = args.token_file
    if token == "-":
        token = _kept(sys.stdin.readline().strip(), folder / f"{args.site}.token")
    return {
        "address": address_of(args.address),
        "ca": absolute(args.ca),
        "token_file": absolute(token) if token is not None else None,
        "key": absolute(args.key or str(folder / f"{args.site}.key")),
    }


def _kept(token: str, path: Path) -> str:
    """Keep a token that was read from standard input where the run, and one that goes on with it, can read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{token}\n")
    except OSError as error:
        raise EnvironmentFault(f"the token cannot be kept in {path}: {error}", hint="--token-file FILE") from None
    return str(path)


def _ask(connection: Mapping[str, str | None]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the coordinator tells, and its terms."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what is wrong is told once, by us
    try:
        from ai4sdk.federated.deploy.agreement import terms_told
        from ai4sdk.federated.deploy.client import Ended, Forgotten, Refused, Unreachable
        from ai4sdk.federated.deploy.connection import connect
    except ImportError as error:
        raise EnvironmentFault(f"ai4sdk cannot join here: {error}", hint="pip install 'ai4sdk[federated]'") from error
    address, ca, key = (str(connection[name]) for name in ("address", "ca", "key"))
    client: SiteClient = connect(address, ca, connection["token_file"], key)
    with client:
        try:
            told = _terms(client, Unreachable)
        except (Refused, Forgotten, Ended) as error:
            raise EnvironmentFault(
                f"the coordinator refuses this site: {error}",
                hint="ask whoever coordinates for a token; look at --token-file and --key",
            ) from None
        except Unreachable as error:
            raise EnvironmentFault(
                f"the coordinator at {address} cannot be reached: {error}", hint=_why_unreachable(str(error), ca)
            ) from None
    return {**told, "key": client.fingerprint}, terms_told(told)


def _why_unreachable(error: str, ca: str) -> str:
    if "handshake" in error or "certificate" in error.lower() or "erification" in error:  # as gRPC words it
        return (
            f"who answers there has no certificate for this name that is signed by {ca} and valid today: ask whoever "
            "coordinates for theirs; a proxy that opens TLS has another, too"
        )
    return "look at the address, and whether the port is open for outgoing connections"


def _terms(client: SiteClient, unreachable: type[Exception]) -> Mapping[str, Any]:
    """Ask for the terms; a connection that breaks while it is made is tried again, so that nobody has to type it."""
    for _ in range(_TRIES - 1):
        try:
            return client.terms()
        except unreachable:
            time.sleep(_PAUSE)
    return client.terms()


def _lines(told: Mapping[str, Any], terms: Mapping[str, Any]) -> list[str]:
    """Say what a federation asks, as a person reads it."""
    federation, training = terms["federation"], terms["training"]
    module = terms["module"]
    arguments = ", ".join(f"{name}={value}" for name, value in module.items() if not name.startswith("_"))
    part, unit = federation["local_steps"], "step"
    if part is None:
        part, unit = federation["local_epochs"], "epoch"
    rows = [
        ("federation", f"{told.get('name')} ({told.get('run')}) {told.get('description') or ''}".rstrip()),
        ("this site", f"{told.get('site')}, with the key {told['key']}"),
        ("terms", terms["digest"]),
        ("module", f"{module['_target_']}({arguments})"),
        ("code", f"{terms['code']} (of this site's own copy)"),
        (
            "rounds",
            f"{federation['rounds']}, each of {_count(part, unit)}; at least {_count(federation['min_sites'], 'site')}",
        ),
        ("strategy", federation["strategy"]["_target_"]),
        ("training", f"precision {training['precision']}, seed {terms['seed']}"),
    ]
    lines = [f"{name:11} {text}" for name, text in rows]
    return lines + [f"{'leaves' if number == 0 else '':11} {line}" for number, line in enumerate(what_leaves(terms))]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _agree(digest: str, approved: str | None) -> None:
    if approved is not None:
        if approved != digest:
            raise EnvironmentFault(
                f"the terms are {digest}; --approve allows {approved} only",
                hint="look at what is asked now, and approve it, or ask whoever coordinates what has changed",
            )
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to agree to these terms", hint=f"--approve {digest}")
    print("Take part under these terms? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("not joined", hint=f"--approve {digest} agrees without a question")


def _start(plan: Plan, project: Project) -> RunPaths:
    """Start to take part, or go on with what was interrupted: what the site keeps is in that run's folder.

    Raises
    ------
    UsageError
        If it takes part already: two runs of a site would each keep a half of what is its own.
    """
    join, ended = plan.job["federation"]["join"], None
    for found in reversed(list_runs(Path(project.root, plan.job["runs"]))):
        if found.state.state is State.SUCCEEDED:
            continue
        before = read_plan_file(found.paths.root)
        theirs = before.job["federation"].get("join")
        if theirs is None or (theirs["address"], theirs["site"]) != (join["address"], join["site"]):
            continue
        if not current_state(found.paths).state.state.ended:
            raise UsageError(
                f"{found.id} takes part as {join['site']} already",
                hint=f"ai4sdk logs -f {found.id}; `ai4sdk cancel {found.id}` has it leave",
            )
        if ended is None and theirs == join and before.digest == plan.digest:
            ended = found
    if ended is None:
        return start_run(plan, project.root)
    print(f"going on with {ended.id}", file=sys.stderr)
    resume_run(ended.paths, project.root)
    return ended.paths
