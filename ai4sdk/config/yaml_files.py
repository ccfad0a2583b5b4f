"""Reading YAML: fast with libyaml for composing, and again with line marks for error messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

__all__ = ["Mark", "YamlMistake", "dump_yaml", "marks", "parse_yaml"]

MAX_NODES = 200_000
"""Values in one file beyond which it is refused: aliases can make a small file unfold without end."""


class YamlMistake(Exception):
    """A file that is no YAML mapping.

    Parameters
    ----------
    message
        What is wrong.
    line, column
        One-based place in the file.
    """

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


@dataclass(frozen=True)
class Mark:
    """A key of a YAML file and where it stands; line and column count from one."""

    line: int
    column: int
    text: str
    is_mapping: bool


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Return OmegaConf's dialect of YAML (`1e-3` is a number, dates are text) on libyaml's parser."""
    dialect = get_yaml_loader()
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        yaml_implicit_resolvers = dialect.yaml_implicit_resolvers
        construct_mapping = _construct_mapping

    return Loader


def _construct_mapping(self: Any, node: yaml.MappingNode, deep: bool = False) -> Any:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:str":
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice in one mapping", key_node.start_mark
                )
            seen.add(key_node.value)
    return yaml.constructor.SafeConstructor.construct_mapping(self, node, deep=deep)


def parse_yaml(text: str) -> dict[Any, Any]:
    """Read a YAML mapping.

    Parameters
    ----------
    text
        Content of the file; nothing but comments is an empty mapping.

    Returns
    -------
    dict
        The mapping, scalars typed as OmegaConf types them.

    Raises
    ------
    YamlMistake
        If the text is no YAML, or no mapping, or unfolds to too much.
    """
    try:
        loader = _loader()(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlMistake(_plainly(message), *((mark.line + 1, mark.column + 1) if mark else (1, 1))) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlMistake(_plainly(str(error).splitlines()[0] if str(error) else "nested too deeply")) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise YamlMistake(f"a config is a mapping of keys to values, not a {type(value).__name__}")
    if "&" in text and _unfolds_beyond(value, MAX_NODES):
        raise YamlMistake(f"its aliases unfold to more than {MAX_NODES:,} values")
    return value


def dump_yaml(values: Any) -> str:
    """Return plain values as YAML for people, in their own order; written with libyaml where there is one."""
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(values, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120))


def _plainly(message: str) -> str:
    message = re.sub(r"^while \w+ing (a|an) [\w ]+?(?=could|did|expected|mapping|found|unknown|the )", "", message)
    if "cannot start any token" in message:
        return f"{message} (indent with spaces, and quote text that begins with it)"
    if "mapping values are not allowed" in message:
        return "a second ': ' on one line; quote the text, or mind the indentation"
    return message.strip() or "not readable as YAML"


def _unfolds_beyond(value: Any, limit: int) -> bool:
    stack, count, depth = [(value, 0)], 0, 0
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > limit or depth > 200:
            return True
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        stack.extend((child, depth + 1) for child in children)
    return False


def marks(path: Path) -> dict[str, Mark]:
    """Read where each key of a file stands.

    Parameters
    ----------
    path
        A YAML file.

    Returns
    -------
    dict
        Dotted key → mark; items of lists are keyed by number. Empty if the file cannot be read as YAML.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return dict(islice(_walk(node, "", 0), MAX_NODES)) if node is not None else {}


def _walk(node: yaml.Node, prefix: str, depth: int) -> Iterator[tuple[str, Mark]]:
    if depth > 60:
        return
    if isinstance(node, yaml.MappingNode):
        for key_node, child in node.value:
            key = f"{prefix}{key_node.value}"
            yield key, _mark(key_node, child)
            yield from _walk(child, f"{key}.", depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield f"{prefix}{index}", _mark(child, child)
            yield from _walk(child, f"{prefix}{index}.", depth + 1)


def _mark(place: yaml.Node, value: yaml.Node) -> Mark:
    text = (
        value.value if isinstance(value, yaml.ScalarNode) else "{…}" if isinstance(value, yaml.MappingNode) else "[…]"
    )
    return Mark(place.start_mark.line + 1, place.start_mark.column + 1, str(text), isinstance(value, yaml.MappingNode))
