"""What the actions of `ai4sdk deepaas` have in common: which module, with which arguments."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ai4sdk.cli.arguments import Parser
from ai4sdk.config.load import load_job
from ai4sdk.config.project import find_project
from ai4sdk.errors import NotFound, RunFailed, UsageError
from ai4sdk.spec.serving import Module as Wanted
from ai4sdk.spec.serving import Serving

if TYPE_CHECKING:
    from ai4sdk.serving.deepaas.arguments import Argument
    from ai4sdk.serving.deepaas.calls import Found
    from ai4sdk.serving.deepaas.module import Module

__all__ = ["Request", "copied", "find_given", "parser_for", "read", "with_module"]

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A command line that was read.

    Parameters
    ----------
    args
        Its options.
    config
        Name of the config.
    serving
        What the config says of serving.
    name
        Name of the module that is meant.
    wanted
        What the config says of it.
    names
        Further words that are no arguments of the module's.
    given
        Arguments of the module's, as they were typed.
    """

    args: argparse.Namespace
    config: str
    serving: Serving
    name: str
    wanted: Wanted
    names: list[str]
    given: list[tuple[str, str]]


def parser_for(command: str, description: str, epilog: str = "", *, words: str) -> Parser:
    """Return a parser for names, a config and arguments."""
    parser = Parser(command, description, epilog)
    parser.add_argument("words", nargs="*", metavar=words, help="the module, its config, and what follows from those")
    return parser


def read(command: str, parser: Parser, argv: Sequence[str], *, names: Sequence[str] = ()) -> Request:
    """Read a command line.

    Parameters
    ----------
    command, parser, argv
        What was typed.
    names
        What the words mean that follow the module's name.
    """
    from ai4sdk.serving.deepaas.modules import with_paths

    args = parser.parse(argv)
    words = [word for word in args.words if "=" not in word]
    pairs = [(key, value) for key, equals, value in (word.partition("=") for word in args.words) if equals]
    configs = [value for key, value in pairs if key == "config"]
    if not configs or not configs[0]:
        raise UsageError("which config?", hint=f"ai4sdk {command} {' '.join(['NAME', *names])} config=CONFIG")
    if len(configs) > 1:
        raise UsageError(
            f"config= is given {len(configs)} times", hint="arguments of that name come in JSON: --input FILE"
        )
    project = find_project()
    serving = with_paths(load_job(configs[0], [], project).job.serving, project.root)
    if len(words) <= len(names) and len(serving.modules) == 1:
        words = [next(iter(serving.modules)), *words]
    if len(words) != 1 + len(names):
        every = ["NAME", *names]
        lacking = f"which {every[len(words)]}?" if len(words) < len(every) else f"what is {words[len(every)]!r} for?"
        known = ", ".join(serving.modules) or "none"
        raise UsageError(lacking, hint=f"ai4sdk {command} {' '.join(every)} config={configs[0]}; modules: {known}")
    name, *rest = words
    if name not in serving.modules:
        near = difflib.get_close_matches(name, serving.modules, 1)
        known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(serving.modules) or 'none'}"
        raise NotFound(f"config={configs[0]} has no module {name!r} in serving.modules", hint=known)
    given = [(key, value) for key, value in pairs if key != "config"]
    return Request(args, configs[0], serving, name, serving.modules[name], rest, given)


def with_module(request: Request, do: Callable[[Module], Awaitable[T]], *, warm: bool = False) -> T:
    """Start a module, do something with it, and end it.

    Raises
    ------
    UsageError
        If it does not take the arguments.
    RunFailed
        If it fails.
    """
    from ai4sdk.serving.deepaas.module import Invalid, ModuleFailed
    from ai4sdk.serving.deepaas.modules import environment_of, module_of

    wanted = request.wanted.model_copy(update={"workers": 1, "warm": warm and request.wanted.warm})
    environment = environment_of(wanted)
    module = module_of(request.name, wanted, environment, load_timeout=request.serving.start, said=_say)

    async def run() -> T:
        await module.start()
        try:
            return await do(module)
        finally:
            await module.close()

    try:
        return asyncio.run(run())
    except Invalid as error:
        lines = [f"  {argument}: {_joined(why)}" for argument, why in error.messages.items()]
        hint = f"ai4sdk deepaas show {request.name} config={request.config}"
        raise UsageError("\n".join([f"{request.name} does not take these arguments:", *lines]), hint=hint) from None
    except ModuleFailed as error:
        raise RunFailed(error.message, hint="what it printed stands above") from None


def find_given(request: Request, arguments: Sequence[Argument], body: bytes = b"") -> Found:
    """Say what was given of a function's arguments; files are named by their paths.

    Parameters
    ----------
    request
        The command line.
    arguments
        What the function takes.
    body
        More of them, as a mapping in JSON.

    Raises
    ------
    UsageError
        If the function takes no argument of a name, or one value only.
    NotFound
        If there is no such file.
    """
    from ai4sdk.serving.deepaas.calls import Found

    known = {argument.name: argument for argument in arguments}
    for key in [*dict(request.given), *_held(body)]:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'none'}"
            raise UsageError(f"{request.name} takes no argument {key!r}", hint=hint)
    values: dict[str, Any] = {}
    for key, text in request.given:
        argument = known[key]
        value = _file(key, text) if argument.is_file else text
        if argument.many:
            values.setdefault(key, []).append(value)
        elif key in values:
            raise UsageError(f"{key} is given twice, and is no list", hint=f"{key}=VALUE once")
        else:
            values[key] = value
    mappings = frozenset(name for name, argument in known.items() if argument.item.get("type") == "object")
    in_json = {name: argument.many for name, argument in known.items() if body and name not in values}
    return Found(values, mappings, in_json, body)


def copied(found: Found, scratch: Path) -> Found:
    """Return it with copies of its files, as modules may change or remove what they get."""
    from ai4sdk.serving.deepaas.forms import Upload

    def copy(value: Any) -> Any:
        if isinstance(value, list):
            return [copy(part) for part in value]
        if not isinstance(value, Upload):
            return value
        path = scratch / f"upload-{len(list(scratch.iterdir())) + 1}"
        shutil.copyfile(value.path, path)
        return replace(value, path=path)

    return replace(found, values={name: copy(value) for name, value in found.values.items()})


def _held(body: bytes) -> dict[str, Any]:
    """Return what ``--input`` has."""
    try:
        held = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--input is no JSON: {error}", hint='a mapping, such as {"length": 60}') from None
    if not isinstance(held, dict):
        raise UsageError("--input is JSON, and no mapping", hint='{"length": 60}')
    return held


def _file(key: str, text: str) -> Any:
    import mimetypes

    from ai4sdk.serving.deepaas.forms import Upload

    path = Path(text).expanduser()
    if not path.is_file():
        raise NotFound(f"{key} is a file, and {text} is none", hint=f"{key}=PATH")
    return Upload(path.absolute(), path.name, mimetypes.guess_type(path.name)[0] or "application/octet-stream")


def _joined(why: Any) -> str:
    return " ".join(map(str, why)) if isinstance(why, list) else str(why)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
