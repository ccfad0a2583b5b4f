"""What the actions of `ai4sdk oscar` have in common: a cluster from overrides, and a model package from a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai4sdk.backends.oscar.client import Cluster, connect
from ai4sdk.backends.oscar.definition import Definition, Served, define
from ai4sdk.cli.arguments import Parser, add_runs_option, runs_folder, split_config
from ai4sdk.config.load import load_job
from ai4sdk.config.project import Project, find_project
from ai4sdk.errors import DataError, NotFound, UsageError
from ai4sdk.runs.files import read_json
from ai4sdk.runs.store import find_run
from ai4sdk.spec import OscarBackend

__all__ = ["Package", "Request", "cluster_of", "definition_of", "package_of", "parser_for", "read"]

_NO_TRAINING = "++function._target_=builtins.print"
"""What makes a job of a backend alone."""


@dataclass(frozen=True)
class Package:
    """A model package and its folder."""

    folder: Path
    served: Served


@dataclass(frozen=True)
class Request:
    """A command line that was read.

    Parameters
    ----------
    args
        Its options.
    names
        Words that are no overrides.
    options
        The description.
    project
        The project it is about.
    """

    args: argparse.Namespace
    names: list[str]
    options: OscarBackend
    project: Project


def parser_for(command: str, description: str, epilog: str = "", *, words: str) -> Parser:
    """Return a parser for names and overrides."""
    parser = Parser(command, description, epilog)
    parser.add_argument("words", nargs="*", metavar=words, help="names, and overrides such as backend.cluster=local")
    add_runs_option(parser)
    return parser


def read(command: str, parser: Parser, argv: Sequence[str], *, names: Sequence[str], more: int = 0) -> Request:
    """Read a command line: names first, then overrides; without config=NAME a backend is composed alone.

    Parameters
    ----------
    command, parser, argv
        What was typed.
    names
        What the words that are no overrides mean.
    more
        How many of them may be left out, from the last.
    """
    args = parser.parse(argv)
    given = [word for word in args.words if "=" not in word]
    overrides = [word for word in args.words if "=" in word]
    if len(given) > len(names):
        raise UsageError(f"what is {given[len(names)]!r} for?", hint=f"ai4sdk {command} --help")
    if len(given) < len(names) - more:
        raise UsageError(f"which {names[len(given)]}?", hint=f"ai4sdk {command} {' '.join(names)}")
    project = find_project()
    if any(word.startswith("config=") for word in overrides):
        config, overrides = split_config(command, overrides)
    else:
        chosen = any(word.startswith("backend=") for word in overrides)
        config, overrides = "base", [*([] if chosen else ["backend=oscar"]), *overrides, _NO_TRAINING]
    backend = load_job(config, overrides, project).job.backend
    if not isinstance(backend, OscarBackend):
        raise UsageError(f"backend {backend.kind} has no services", hint="backend=oscar")
    return Request(args, given, backend, project)


def cluster_of(request: Request) -> Cluster:
    """Return the cluster that is meant."""
    return connect(request.options, request.project.root)


def package_of(request: Request) -> Package:
    """Return the model package of the run, or the folder, that is named first; by default of the latest run.

    Raises
    ------
    NotFound
        If there is none.
    DataError
        If it is damaged.
    """
    which = request.names[0] if request.names else "latest"
    folder, own = Path(which), False
    if not (folder / "model.json").is_file():
        run = find_run(which, runs_folder(request.args, request.project.root))
        folder, own = run.package, True
        if not (folder / "model.json").is_file():
            raise NotFound(f"{run.id} has no model package", hint=f"ai4sdk status {run.id}")
    try:
        description: dict[str, Any] = read_json(folder / "model.json")
        served = Served(
            str(description["name"]),
            str(description["weights_sha256"]),
            description.get("code_sha256") or "",
            trusted=own or request.options.trust_code,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'model.json'} is damaged: {error}", hint="copy the package again") from error
    return Package(folder.absolute(), served)


def definition_of(request: Request) -> Definition:
    """Return the definition of the service that is asked for."""
    package = package_of(request)
    # The stand-in has no image; there the package is where it is.
    local = {"AI4SDK_PACKAGE": str(package.folder)} if request.options.cluster == "local" else {}
    return define(request.options, package.served, local)
