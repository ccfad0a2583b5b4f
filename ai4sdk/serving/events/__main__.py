"""``python -m ai4sdk.serving.events FILE --ask MODULE:FUNCTION``: process objects as they arrive."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from ai4sdk.errors import Ai4Error, ConfigError, NotFound, Problem, UsageError
from ai4sdk.serving.events.log import log_to_stderr
from ai4sdk.serving.events.service import serve_events
from ai4sdk.serving.events.work import Ask
from ai4sdk.spec import Storage
from ai4sdk.spec.serving_events import ServingEvents


def _sections(path: Path) -> tuple[ServingEvents, Storage]:
    try:
        given: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}", hint="name a YAML or JSON file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is neither YAML nor JSON: {error}", hint="mend it") from error
    if not isinstance(given, dict) or not set(given) <= {"events", "storage"} or "events" not in given:
        raise UsageError(f"{path} does not say what to watch", hint="it has the keys events and, if need be, storage")
    problems, sections = [], []
    for key, kind in (("events", ServingEvents), ("storage", Storage)):
        try:
            sections.append(kind.model_validate(given.get(key) or {}))
        except ValidationError as error:
            problems += [
                Problem(f"{path}: {each['msg']}", ".".join(map(str, (key, *each["loc"])))) for each in error.errors()
            ]
    if problems:
        raise ConfigError(problems)
    return cast(tuple[ServingEvents, Storage], tuple(sections))


def _function(name: str) -> Ask:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        return cast(Ask, getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise NotFound(f"there is no function {name}: {error}", hint="write MODULE:FUNCTION") from error


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ai4sdk.serving.events", description=__doc__)
    parser.add_argument("file", type=Path, help="YAML or JSON with the keys events and storage")
    parser.add_argument("--ask", required=True, help="async function that answers a Request, as MODULE:FUNCTION")
    parser.add_argument("--once", action="store_true", help="process what is there, and end")
    arguments = parser.parse_args(argv)
    log_to_stderr()
    try:
        events, storage = _sections(arguments.file)
        serve_events(events, storage, Path.cwd(), _function(arguments.ask), once=arguments.once)
    except Ai4Error as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
