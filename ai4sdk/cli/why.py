"""`ai4sdk why`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ai4sdk.cli.arguments import Parser, split_config
from ai4sdk.config.compose import compose_layers
from ai4sdk.config.history import history
from ai4sdk.config.keys import all_keys, describe, field_at, nearest_key, value_at
from ai4sdk.config.validate import validate
from ai4sdk.errors import NotFound

_NOTHING = object()


def main(command: str, argv: Sequence[str]) -> int:
    """Show a value's whole history through the layers."""
    parser = Parser(command, "Show where a value comes from: every layer that set it, the winner last.", EPILOG)
    parser.add_argument(
        "words", nargs="+", metavar="KEY config=NAME KEY=VALUE", help="a dotted key, the config, overrides"
    )
    args = parser.parse(argv)
    keys = [word for word in args.words if "=" not in word and not word.startswith(("~", "+"))]
    rest = [word for word in args.words if word not in keys]
    config, overrides = split_config(f"{command} KEY", rest)
    if len(keys) != 1:
        raise NotFound(
            "which key?" if not keys else "one key at a time", hint="ai4sdk why training.max_epochs config=quickstart"
        )
    key = keys[0]
    composition = compose_layers(config, overrides)
    job, _ = validate(composition)
    values = job.model_dump(mode="json", by_alias=True) if job else composition.values
    value = value_at(values, key, _NOTHING)
    origins = history(composition, key)
    if value is _NOTHING and not origins and field_at(key) is None:
        near = nearest_key(key, [*all_keys(), *_keys(values)])
        raise NotFound(
            f"there is no key {key!r} in {config}", hint=f"ai4sdk why {near} config={config}" if near else None
        )
    print(f"{key} = {json.dumps(None if value is _NOTHING else value, ensure_ascii=False)}")
    if meaning := describe(key):
        print(f"    {meaning}")
    info = field_at(key)
    if info is not None and not info.is_required():
        default = info.get_default(call_default_factory=True)
        shown = json.dumps(default, default=lambda section: "the section's defaults")
        print(f"  {'default':40}  {shown}" + ("" if origins else "   ← wins"))
    for index, origin in enumerate(origins):
        place = origin.source if origin.line is None else f"{origin.source}:{origin.line}:{origin.column}"
        print(f"  {place:40}  {origin.text}" + ("   ← wins" if index == len(origins) - 1 else ""))
    return 0


EPILOG = """\
examples:
  ai4sdk why training.max_epochs config=quickstart
  ai4sdk why optimizer.lr config=quickstart optimizer=sgd
"""


def _keys(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return []
    return [k for name, child in value.items() for k in [f"{prefix}{name}", *_keys(child, f"{prefix}{name}.")]]
