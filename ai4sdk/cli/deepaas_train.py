"""`ai4sdk deepaas train`, `trainings`, `cancel`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.cli.answers import content_of
from ai4sdk.cli.deepaas_options import Request, copied, find_given, parser_for, read, with_module
from ai4sdk.errors import EnvironmentFault, NotFound, RunCancelled, RunFailed, RunInterrupted, UsageError

if TYPE_CHECKING:
    from ai4sdk.serving.deepaas.calls import Found
    from ai4sdk.serving.deepaas.module import Module
    from ai4sdk.serving.deepaas.trainings import Trainings

EPILOG = """\
examples:
  ai4sdk deepaas train carp config=fish epochs=30
  ai4sdk deepaas train carp config=fish epochs=30 --detach
"""
_LOOKS_EVERY = 0.2


def train(command: str, argv: Sequence[str]) -> int:
    """Train a module."""
    words = "NAME config=CONFIG ARGUMENT=VALUE"
    told = "Train a module in a process of its own, and watch it to its end. Ctrl-C stops it."
    parser = parser_for(command, told, EPILOG, words=words)
    parser.add_argument("--input", metavar="FILE|-", help="arguments as a mapping in JSON, beside those that are typed")
    parser.add_argument("-d", "--detach", action="store_true", help="return at once; see `ai4sdk deepaas trainings`")
    request = read(command, parser, argv)
    body = content_of(request.args.input) if request.args.input else b""
    from ai4sdk.serving.deepaas.trainings import TooMany

    async def check(module: Module) -> tuple[Found, dict[str, Any], Path]:
        if "train" not in module.description.functions:
            raise UsageError(f"{request.name} has no train", hint=f"ai4sdk deepaas show {request.name}")
        found = find_given(request, module.description.train, body)
        return found, await module.check("train", found), module.python

    found, args, python = with_module(request, check)
    trainings = _trainings(request, python)
    see = f"ai4sdk deepaas trainings {request.name} config={request.config}"
    with tempfile.TemporaryDirectory(prefix="ai4sdk-") as scratch:
        try:
            uuid = str(trainings.start(copied(found, Path(scratch)), args)["uuid"])
        except TooMany as error:
            raise EnvironmentFault(str(error), hint=see) from None
    print(f"training {uuid}: {trainings.folder / uuid}", file=sys.stderr, flush=True)
    if request.args.detach:
        print(f"{uuid}\n  → {see}")
        return 0
    try:
        record = _watch(trainings, uuid)
    except KeyboardInterrupt:
        trainings.cancel(uuid)
        raise RunCancelled(f"training {uuid} was stopped", hint=see) from None
    return _end(record, see)


def trainings(command: str, argv: Sequence[str]) -> int:
    """List trainings."""
    parser = parser_for(command, "List the trainings of a module, the newest last.", words="NAME config=CONFIG")
    parser.add_argument("--json", action="store_true", help="print as JSON, as over HTTP")
    request = read(command, parser, argv)
    found = _trainings(request).list()
    if request.args.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print(f"no trainings of {request.name}\n  → ai4sdk deepaas train {request.name} config={request.config}")
    for record in found:
        more = record.get("message") or record.get("result", {}).get("duration", "")
        print(f"{record['uuid']}  {record['status']:9}  {record['date'][:19]:19}  {more}".rstrip())
    return 0


def cancel(command: str, argv: Sequence[str]) -> int:
    """Stop a training."""
    told = "Stop a training and keep its record; take away one that has ended."
    parser = parser_for(command, told, words="NAME TRAINING config=CONFIG")
    request = read(command, parser, argv, names=["TRAINING"])
    found = _trainings(request)
    fit = [str(record["uuid"]) for record in found.list() if str(record["uuid"]).startswith(request.names[0])]
    if len(fit) != 1:
        what = f"{len(fit)} trainings begin with" if fit else "there is no training"
        see = f"ai4sdk deepaas trainings {request.name} config={request.config}"
        raise NotFound(f"{what} {request.names[0]}", hint=see)
    record = found.cancel(fit[0])
    has_gone = found.get(fit[0]) is None
    status = "is taken away" if has_gone else f"is {record['status']}" if record else "is gone"
    print(f"training {fit[0]} {status}")
    return 0


def _trainings(request: Request, python: Path | None = None) -> Trainings:
    from ai4sdk.serving.deepaas.trainings import Trainings

    folder = Path(request.serving.trainings) / request.name
    # an interpreter is for starting one
    module = request.wanted.module or request.name
    return Trainings(folder, python or Path(sys.executable), module, request.wanted.workers)


def _watch(trainings: Trainings, uuid: str) -> dict[str, Any]:
    """Show what a training prints until it has ended; return its record."""
    with open(trainings.folder / uuid / "log.txt", "rb") as log:
        while True:
            record = trainings.get(uuid)
            sys.stderr.buffer.write(log.read())
            sys.stderr.flush()
            if record is None or record["status"] != "running":
                return record or {"uuid": uuid, "status": "error", "message": "somebody took it away"}
            time.sleep(_LOOKS_EVERY)


def _end(record: dict[str, Any], see: str) -> int:
    status, message = record["status"], str(record.get("message", ""))
    if status == "cancelled":
        raise RunCancelled(f"training {record['uuid']} was cancelled", hint=see)
    if status == "error":
        kind = RunInterrupted if message.startswith("lost") else RunFailed
        raise kind(f"training {record['uuid']}: {message}", hint=see)
    print(json.dumps(record, indent=2))
    return 0
