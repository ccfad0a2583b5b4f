"""`ai4sdk federated`: lead a federation of real sites, or join one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence

from ai4sdk.cli.arguments import Parser, add_waiting_options
from ai4sdk.cli.run_one import run_one
from ai4sdk.errors import UsageError

EPILOG = """\
actions:
  certificates FOLDER NAME...     make certificates for a rehearsal
  token issue SITE | list | revoke ID
                                  admit sites, and stop to
  server config=NAME ...          wait for sites, and do the rounds
  show HOST:PORT ...              what a federation asks of a site, without joining it
  join HOST:PORT config=NAME ...  take part, with this site's own data

`ai4sdk federated ACTION --help` says more. `ai4sdk run config=NAME training=federated` rehearses on one machine.
"""
ACTIONS = {
    "certificates": ("ai4sdk.cli.federated", "certificates"),
    "server": ("ai4sdk.cli.federated", "server"),
    "token": ("ai4sdk.cli.federated_token", "token"),
    "show": ("ai4sdk.cli.federated_join", "show"),
    "join": ("ai4sdk.cli.federated_join", "join"),
}
"""Action → module and function that does it."""


def main(command: str, argv: Sequence[str]) -> int:
    """Do one of the actions."""
    if not argv or argv[0] in ("-h", "--help"):
        parser = Parser(command, "Run a federation between institutions: lead one, or join it as a site.", EPILOG)
        parser.add_argument("action", metavar="ACTION", help=", ".join(ACTIONS))
        parser.print_help()
        return 0
    if argv[0] not in ACTIONS:
        near = difflib.get_close_matches(argv[0], ACTIONS, n=1)
        raise UsageError(
            f"ai4sdk federated has no action {argv[0]!r}", hint=near[0] if near else f"there are {', '.join(ACTIONS)}"
        )
    module, function = ACTIONS[argv[0]]
    status: int = getattr(importlib.import_module(module), function)(f"{command} {argv[0]}", list(argv[1:]))
    return status


def certificates(command: str, argv: Sequence[str]) -> int:
    """Make certificates for a rehearsal."""
    parser = Parser(command, "Make an authority and a server's certificate, valid for 90 days: for rehearsals.")
    parser.add_argument("folder", metavar="FOLDER", help="gets ca.pem (for sites), server.pem and server.key")
    parser.add_argument("names", nargs="+", metavar="NAME", help="host names and IP addresses of the coordinator")
    args = parser.parse(argv)
    from pathlib import Path

    from ai4sdk.federated.deploy.certificates import write_certificates

    write_certificates(Path(args.folder), args.names)
    print(f"{args.folder}/server.pem and server.key are the coordinator's; sites get {args.folder}/ca.pem")
    return 0


def server(command: str, argv: Sequence[str]) -> int:
    """Wait for sites, and do the rounds: a run like any other."""
    parser = Parser(
        command,
        "Wait for sites with TLS, and do the rounds of a federation.",
        "examples:\n"
        "  ai4sdk federated server config=NAME training=federated --certificate server.pem --key server.key\n"
        "  ai4sdk federated server config=NAME training=federated --certificate server.pem --key server.key \\\n"
        "    federation.min_sites=3 ++federation.listen.deadline=2h",
    )
    parser.add_argument("overrides", nargs="*", metavar="config=NAME KEY=VALUE", help="config and overrides")
    parser.add_argument("--address", default="0.0.0.0:9443", metavar="HOST:PORT", help="default: 0.0.0.0:9443")
    parser.add_argument("--certificate", required=True, metavar="FILE", help="certificate of this server (PEM)")
    parser.add_argument("--key", required=True, metavar="FILE", help="its private key (PEM)")
    add_waiting_options(parser)
    args = parser.parse(argv)
    listen = {"address": args.address, "certificate": absolute(args.certificate), "key": absolute(args.key)}
    real = ["++federation.partition=null", "++federation.join=null", f"++federation.listen={mapping(listen)}"]
    args.overrides = [*real, *args.overrides]
    args.plan, args.after = None, []
    return run_one(args, ["ai4sdk", command, *argv])


def absolute(path: str) -> str:
    """Return a path that means the same wherever the run is."""
    from pathlib import Path

    return str(Path(path).expanduser().absolute())


def mapping(values: dict[str, str]) -> str:
    """Write a mapping in Hydra's grammar, all of it text."""
    return "{" + ", ".join(f"{name}: {_quoted(value)}" for name, value in values.items()) + "}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'" if "\\" in text or "'" in text else f"'{text}'"
