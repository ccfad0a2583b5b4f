"""`ai4sdk serve`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ai4sdk.cli.arguments import Parser, add_runs_option, runs_folder
from ai4sdk.cli.federated import mapping
from ai4sdk.config.load import load_job
from ai4sdk.config.project import find_project
from ai4sdk.errors import NotFound, UsageError
from ai4sdk.runs.store import find_run
from ai4sdk.spec.serving import Serving

EPILOG = """\
examples:
  ai4sdk serve latest
  ai4sdk serve quickstart serving.port=9000 serving.workers=2
  ai4sdk serve config=my_endpoint
  curl -H 'Content-Type: application/json' -d '{"inputs": [[0, 0, 5, …]]}' http://127.0.0.1:8080/predict
"""


def main(command: str, argv: Sequence[str]) -> int:
    """Serve trained models over HTTP."""
    parser = Parser(command, "Serve trained models over HTTP, until Ctrl-C.", EPILOG)
    parser.add_argument(
        "what",
        nargs="*",
        metavar="RUN|config=NAME|KEY=VALUE",
        help="runs or package folders, or a config; and overrides",
    )
    add_runs_option(parser)
    args = parser.parse(argv)
    sources = [each for each in args.what if "=" not in each]
    overrides = [each for each in args.what if "=" in each]
    project = find_project()
    runs = runs_folder(args, project.root)

    from ai4sdk.serving.link import spawn
    from ai4sdk.serving.server import Found, open_socket, serve, threads_of

    config = next((each.partition("=")[2] for each in overrides if each.startswith("config=")), None)
    rest = [each for each in overrides if not each.startswith("config=")]
    if config is not None and sources:
        raise UsageError(f"both {sources[0]} and config={config} say what to serve", hint="give one of the two")
    if config is None:
        found = {_name_of(folder): folder for folder in (_folder_of(each, runs) for each in sources or ["latest"])}
        models = "{" + ", ".join(f"{name}: {mapping({'source': str(folder)})}" for name, folder in found.items()) + "}"
        config, rest = "endpoint", [f"++serving.models={models}", *rest]
    serving: Serving = load_job(config, rest, project).job.serving
    versions = [
        Found(name, version, _folder_of(each.source, runs), each.weight, each.trust_code)
        for name, model in serving.models.items()
        for version, each in model.every.items()
    ]
    listening = open_socket(serving.host, serving.port)
    spawned = [spawn(threads_of(serving, len(versions))) for _ in range(serving.workers)]
    host, port = listening.getsockname()[:2]
    print(f"listening at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    serve(serving, versions, listening, spawned=spawned, tell=_tell)
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _folder_of(source: str, runs: Path) -> Path:
    folder = Path(source)
    if (folder / "model.json").is_file():
        return folder.absolute()
    run = find_run(source, runs)
    if not run.package.is_dir():
        raise NotFound(f"{run.id} has no model package", hint=f"ai4sdk status {run.id}")
    return run.root.absolute()


def _name_of(folder: Path) -> str:
    from ai4sdk.runs.files import read_json

    package = folder if (folder / "model.json").is_file() else folder / "package"
    return str(read_json(package / "model.json")["name"])
