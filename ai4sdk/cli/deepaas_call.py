"""`ai4sdk deepaas show`, `predict`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ai4sdk.cli.answers import content_of, give
from ai4sdk.cli.deepaas_options import copied, find_given, parser_for, read, with_module
from ai4sdk.errors import UsageError

if TYPE_CHECKING:
    from ai4sdk.serving.deepaas.arguments import Argument, Description
    from ai4sdk.serving.deepaas.module import Module

EPILOG = """\
examples:
  ai4sdk deepaas predict carp config=fish length=60
  ai4sdk deepaas predict carp config=fish length=60 note=notes.txt            a file is named by its path
  ai4sdk deepaas predict carp config=fish boxes=1 boxes=2 options='{"a": 1}'  a list, and a mapping
  ai4sdk deepaas predict carp config=fish --input arguments.json
  ai4sdk deepaas predict carp config=fish accept=image/png --output carp.png
"""


def show(command: str, argv: Sequence[str]) -> int:
    """Tell what a module is and takes."""
    parser = parser_for(command, "Tell what a module is and which arguments it takes.", words="NAME config=CONFIG")
    request = read(command, parser, argv)
    if request.given:
        raise UsageError(f"what is {request.given[0][0]}= for?", hint=f"ai4sdk {command} {request.name}")

    async def describe(module: Module) -> Description:
        return module.description

    print("\n".join(_lines(request.name, with_module(request, describe))))
    return 0


def predict(command: str, argv: Sequence[str]) -> int:
    """Let a module predict."""
    words = "NAME config=CONFIG ARGUMENT=VALUE"
    parser = parser_for(command, "Let a module predict; the answer is as over HTTP.", EPILOG, words=words)
    parser.add_argument("--input", metavar="FILE|-", help="arguments as a mapping in JSON, beside those that are typed")
    parser.add_argument("--output", metavar="FILE", help="where to write the answer; by default the terminal")
    request = read(command, parser, argv)
    body = content_of(request.args.input) if request.args.input else b""

    async def ask(module: Module) -> bytes:
        if "predict" not in module.description.functions:
            raise UsageError(f"{request.name} has no predict", hint=f"ai4sdk deepaas show {request.name}")
        found = find_given(request, module.description.predict, body)
        with tempfile.TemporaryDirectory(prefix="ai4sdk-") as scratch:
            _, answer = await module.predict(copied(found, Path(scratch)))
        return answer

    give(with_module(request, ask, warm=True), request.args.output)
    return 0


def _lines(name: str, description: Description) -> Iterator[str]:
    """Describe a module for people."""
    versions = ", ".join(f"{package} {version}" for package, version in description.versions.items())
    yield f"{name}: Python {description.python}" + (f", {versions}" if versions else "")
    for key, value in description.metadata.items():
        yield f"  {key}: {value}"
    for function, arguments in (("predict", description.predict), ("train", description.train)):
        if function not in description.functions:
            yield f"no {function}"
            continue
        yield function + ("" if arguments else ", without arguments")
        width = max((len(argument.name) for argument in arguments), default=0)
        yield from (f"  {argument.name:{width}}  {_told(argument)}" for argument in arguments)


def _told(argument: Argument) -> str:
    schema = argument.schema
    kind = str(argument.item.get("type", "anything"))
    parts = [f"list of {kind}" if argument.many else kind]
    parts += ["required"] if argument.required else []
    parts += [f"default {schema['default']!r}"] if schema.get("default") is not None else []
    parts += ["one of " + ", ".join(map(str, schema["enum"]))] if "enum" in schema else []
    parts += [f"{key} {schema[key]}" for key in ("minimum", "maximum") if key in schema]
    told = " ".join(str(schema.get("description", "")).split())
    return ", ".join(parts) + (f": {told}" if told else "")
