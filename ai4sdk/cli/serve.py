"""`ai4sdk serve`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ai4sdk.cli.arguments import Parser, add_runs_option, runs_folder
from ai4sdk.config.load import load_job
from ai4sdk.config.project import find_project
from ai4sdk.errors import UsageError
from ai4sdk.spec.serving import ServedModel, Serving

if TYPE_CHECKING:
    from socket import socket

    from ai4sdk.serving.sources import Sources

EPILOG = """\
examples:
  ai4sdk serve latest
  ai4sdk serve quickstart serving.port=9000 serving.workers=2
  ai4sdk serve config=my_endpoint
  ai4sdk serve config=my_watcher --once
  curl -H 'Content-Type: application/json' -d '{"inputs": [[0, 0, 5, …]]}' http://127.0.0.1:8080/predict
"""


def main(command: str, argv: Sequence[str]) -> int:
    """Serve trained models over HTTP, and to files as they arrive."""
    parser = Parser(command, "Serve trained models over HTTP, and to files as they arrive, until Ctrl-C.", EPILOG)
    parser.add_argument(
        "what",
        nargs="*",
        metavar="RUN|config=NAME|KEY=VALUE",
        help="runs or package folders, or a config; and overrides",
    )
    parser.add_argument(
        "--trust-code", action="store_true", help="run the code inside packages that is not installed here"
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="with serving.events: process the objects that are there, and end; no HTTP",
    )
    add_runs_option(parser)
    args = parser.parse(argv)
    sources = [each for each in args.what if "=" not in each]
    overrides = [each for each in args.what if "=" in each]
    project = find_project()
    runs = runs_folder(args, project.root)

    config = next((each.partition("=")[2] for each in overrides if each.startswith("config=")), None)
    rest = [each for each in overrides if not each.startswith("config=")]
    if config is not None and args.trust_code:
        raise UsageError("--trust-code is for packages, not for configs", hint="serving.models.NAME.trust_code=true")
    if config is not None and sources:
        raise UsageError(f"both {sources[0]} and config={config} say what to serve", hint="give one of the two")
    if config is None and (own := next((each for each in rest if "serving.models" in each.partition("=")[0]), None)):
        raise UsageError(
            f"{own} says what to serve, but it belongs to no config", hint=f"ai4sdk serve config=NAME {own}"
        )

    from ai4sdk.serving.deepaas.modules import with_paths
    from ai4sdk.serving.link import spawn
    from ai4sdk.serving.server import open_socket, serve
    from ai4sdk.serving.sources import Sources

    first = spawn()  # it imports torch, which takes seconds, while this process reads the config
    try:
        if config is None:
            models = _named(sources or ["latest"], Sources(runs, {}, project.root), args.trust_code)
            job = load_job("endpoint", rest, project).job
        else:
            job = load_job(config, rest, project).job
            models = job.serving.models
            if not models and not job.serving.modules:
                models = {job.name: ServedModel(source=job.name)}
        serving = with_paths(job.serving.model_copy(update={"models": models}), project.root)
        tracking = job.tracking.model_dump(mode="json")
        beside = None
        if serving.events is not None:
            from ai4sdk.serving.events.log import log_to_stderr
            from ai4sdk.serving.events.models import asking_models

            log_to_stderr()
            beside = asking_models(serving, job.storage, project.root, once=args.once)
        elif args.once:
            raise UsageError("--once is for objects that are processed as they arrive", hint="set serving.events")
        listening = None if args.once or serving.port is None else open_socket(serving.host, serving.port)
    except BaseException:
        first.line.close()
        raise
    if listening is not None:
        _tell_where(listening, serving)
    finder = Sources(runs, tracking, project.root)
    serve(serving, finder, listening, beside=beside, spawned=[first], tell=_tell)
    return 0


def _tell_where(listening: socket, serving: Serving) -> None:
    host, port = listening.getsockname()[:2]
    scheme = "https" if serving.tls else "http"
    print(f"listening at {scheme}://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    if not ip_address(host).is_loopback and not (serving.tokens or serving.oidc):
        _tell("warning: whoever reaches this port may ask; serving.tokens and serving.oidc limit that")


def _named(sources: Sequence[str], finder: Sources, trust_code: bool) -> dict[str, ServedModel]:
    """Return models by name: that of the job that made them, or that in MLflow's registry."""
    models: dict[str, ServedModel] = {}
    for source in sources:
        address = re.match(r"(?:models|runs):/+([^/@]+)", source)
        name = re.sub(r"[^\w.-]+", "_", address[1]) if address else finder.find(source).name
        if name in models:
            raise UsageError(
                f"{models[name].source} and {source} are both called {name}",
                hint=f"name them in a config: serving: {{models: {{a: {models[name].source}, b: {source}}}}}",
            )
        models[name] = ServedModel(source=source, trust_code=trust_code)
    return models


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
