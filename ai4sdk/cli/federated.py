"""`ai4sdk federated`: lead a federation of real sites, or join one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ai4sdk.backends.launch import start_run
from ai4sdk.cli.actions import act
from ai4sdk.cli.arguments import Parser, add_waiting_options, split_config
from ai4sdk.cli.following import follow
from ai4sdk.cli.interrupts import interrupts_held
from ai4sdk.cli.plan import warnings_of
from ai4sdk.config.load import load_job
from ai4sdk.config.project import find_project
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.planning.build import make_plan
from ai4sdk.spec import TargetDataset
from ai4sdk.spec.deployment import checked_address

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
NO_DATA = "ai4sdk.federated.deploy.nothing.NoData"


def main(command: str, argv: Sequence[str]) -> int:
    """Do one of the actions."""
    description = "Run a federation between institutions: lead one, or join it as a site."
    return act(command, argv, ACTIONS, description=description, epilog=EPILOG)


def certificates(command: str, argv: Sequence[str]) -> int:
    """Make certificates for a rehearsal."""
    parser = Parser(command, "Make an authority and a server's certificate, valid for 90 days: for rehearsals.")
    parser.add_argument("folder", metavar="FOLDER", help="gets ca.pem (for sites), server.pem and server.key")
    parser.add_argument("names", nargs="+", metavar="NAME", help="host names and IP addresses of the coordinator")
    args = parser.parse(argv)
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
    parser.add_argument("--no-data", action="store_true", help="the coordinator has no dataset; only sites evaluate")
    add_waiting_options(parser)
    args = parser.parse(argv)
    try:
        from ai4sdk.federated.deploy.certificates import read_certificate
    except ImportError as error:
        raise EnvironmentFault(
            f"ai4sdk cannot do this here: {error}", hint="pip install 'ai4sdk[federated]'"
        ) from error
    read_certificate(Path(args.certificate), Path(args.key))
    listen = {"address": address_of(args.address), "certificate": absolute(args.certificate), "key": absolute(args.key)}
    real = ["++federation.partition=null", "++federation.join=null", f"++federation.listen={mapping(listen)}"]
    config, overrides = split_config(command, args.overrides)
    project = find_project()
    none = [f"++dataset._target_={NO_DATA}"] if args.no_data else []
    loaded = load_job(config, [*real, *overrides, *none], project)
    if loaded.job.sweep.axes:
        raise UsageError(f"{config} has axes; sites cannot be asked for a study", hint="give each axis one value")
    if args.no_data:  # what else the config says of a dataset, is for sites
        job = loaded.job.model_copy(update={"dataset": TargetDataset(target=NO_DATA)})
        loaded = replace(loaded, job=job)
    plan = make_plan(loaded, command=["ai4sdk", command, *argv])
    for warning in warnings_of(plan):
        print(f"warning: {warning}", file=sys.stderr)
    with interrupts_held():
        return follow(start_run(plan, project.root), plan, detach=args.detach, wait=args.wait)


def address_of(text: str) -> str:
    """Return an address as it was typed; raises `UsageError` if it is none."""
    try:
        return checked_address(text)
    except ValueError as error:
        raise UsageError(str(error), hint="HOST:PORT") from None


def absolute(path: str) -> str:
    """Return a path that means the same wherever the run is."""
    return str(Path(path).expanduser().absolute())


def mapping(values: dict[str, str]) -> str:
    """Write a mapping in Hydra's grammar, all of it text."""
    return "{" + ", ".join(f"{name}: {_quoted(value)}" for name, value in values.items()) + "}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
