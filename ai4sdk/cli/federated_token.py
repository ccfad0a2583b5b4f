"""`ai4sdk federated token`: admit sites, see whom one admits, and stop to."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ai4sdk.cli.arguments import Parser, add_runs_option, runs_folder
from ai4sdk.config.project import find_project
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.federated.deploy.tokens import Entry, Registry, federation_folder
from ai4sdk.spec.units import parse_span

EPILOG = """\
examples:
  ai4sdk federated token issue north --expires 30d --out north.token
  ai4sdk federated token list
  ai4sdk federated token revoke 1f0c2a9b      refused from its next request on
"""


def token(command: str, argv: Sequence[str]) -> int:
    """Issue, list or revoke tokens."""
    parser = Parser(command, "Admit sites: issue, list and revoke their tokens. Only hashes are kept.", EPILOG)
    parser.add_argument("action", metavar="ACTION", help="issue, list or revoke")
    parser.add_argument("what", nargs="?", metavar="SITE|ID", help="issue: name of the site; revoke: id of the token")
    parser.add_argument("--expires", metavar="SPAN", help="issue: how long it admits, such as 30d (default: 90d)")
    parser.add_argument("--key", metavar="FILE", help="issue: the site's public key; else its first use binds one")
    parser.add_argument("--out", metavar="FILE", help="issue: file for the token, which only you may read")
    parser.add_argument("--json", action="store_true", help="list: print as JSON")
    add_runs_option(parser)
    args = parser.parse(argv)
    registry = Registry(federation_folder(runs_folder(args, find_project().root)) / "tokens.json")
    if args.action == "list":
        return _list(registry, as_json=args.json)
    if args.action not in ("issue", "revoke"):
        raise UsageError(f"ai4sdk {command} has no action {args.action!r}", hint="there are issue, list, revoke")
    if args.what is None:
        raise UsageError(f"{args.action} what?", hint=f"ai4sdk {command} {args.action} " + _MEANT[args.action])
    if args.action == "revoke":
        entry = registry.revoke(args.what)
        print(f"{entry.id}, the token of {entry.site}, is revoked")
        return 0
    return _issue(registry, args.what, args.expires or "90d", args.key, args.out)


_MEANT = {"issue": "SITE", "revoke": "ID"}


def _issue(registry: Registry, site: str, expires: str, key: str | None, out: str | None) -> int:
    try:
        lifetime = parse_span(expires)
    except ValueError as error:
        raise UsageError(f"--expires: {error}", hint="--expires 30d") from None
    pem = _public_key(Path(key)) if key is not None else None
    if out is not None and Path(out).exists():
        raise UsageError(f"there is a file {out} already", hint="name another, or remove it")
    entry, text = registry.issue(site, lifetime, pem)
    if out is None:
        print(text)
    else:
        try:
            with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(f"{text}\n")
        except OSError as error:
            registry.revoke(entry.id)
            raise EnvironmentFault(f"the token cannot be written to {out}: {error}", hint="--out FILE") from None
    until = time.strftime("%F", time.localtime(entry.expires))
    print(f"token {entry.id} admits {site} until {until}; it is not kept, and not shown again", file=sys.stderr)
    return 0


def _public_key(path: Path) -> str:
    from ai4sdk.federated.deploy.certificates import read_public_key

    try:
        pem = path.read_bytes()
        read_public_key(pem)
        return pem.decode()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no public key of a site: {error}", hint="an EC P-384 key in PEM") from None


def _list(registry: Registry, *, as_json: bool) -> int:
    now, entries = time.time(), registry.entries()
    if as_json:
        shown = [
            {**asdict(one), "state": one.state(now), "fingerprint": one.fingerprint, "hash": None} for one in entries
        ]
        print(json.dumps(shown, indent=2))
        return 0
    rows = [("id", "site", "state", "expires", "key"), *(_row(entry, now) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(entry: Entry, now: float) -> tuple[str, ...]:
    expires = "never" if entry.expires is None else time.strftime("%F %H:%M", time.localtime(entry.expires))
    return entry.id, entry.site, entry.state(now), expires, entry.fingerprint
