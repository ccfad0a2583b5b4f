"""Which layer set a value, and which layers it won over."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ai4sdk.config.compose import COMMAND_LINE, Composition
from ai4sdk.config.project import display_path
from ai4sdk.config.yaml_files import Mark, marks
from ai4sdk.errors import Origin

__all__ = ["history", "place"]


def history(composition: Composition, key: str) -> list[Origin]:
    """Return every place that set a key, in the order they were applied; the last one wins.

    Parameters
    ----------
    composition
        What was composed.
    key
        Dotted key. A layer that sets a section above it to a plain value counts, too.

    Returns
    -------
    list of Origin
        Empty where only the default of the models applies.
    """
    return list(_origins(composition, key))


def place(composition: Composition, key: str) -> Origin | None:
    """Return the best place to show for a key: what set it, else what set the section around it, else the config."""
    while key:
        if found := history(composition, key):
            return found[-1]
        key = key.rpartition(".")[0]
    for layer in reversed(composition.layers):
        if layer.package == "":
            return Origin(display_path(layer.path), 1, 1)
    return None


@lru_cache(maxsize=1024)
def _marks(path: Path, changed: int) -> dict[str, Mark]:
    return marks(path)


def _origins(composition: Composition, key: str) -> Iterator[Origin]:
    for layer in composition.layers:
        try:
            found = _marks(layer.path, layer.path.stat().st_mtime_ns)
        except OSError:
            continue
        prefix = f"{layer.package}." if layer.package else ""
        if key != layer.package and not key.startswith(prefix):
            continue
        local = key[len(prefix) :]
        mark = found.get(local) or _above(found, local)
        if mark is not None and not local.startswith("defaults"):
            yield Origin(display_path(layer.path), mark.line, mark.column, mark.text)
    for override in composition.overrides:
        own = override.key_or_group
        if own == key or key.startswith(f"{own}.") or own.startswith(f"{key}."):
            yield Origin(COMMAND_LINE, text=str(override.input_line))


def _above(found: dict[str, Mark], key: str) -> Mark | None:
    """Return the nearest section above a key that is set to a plain value, and so hides what was below it."""
    while "." in key:
        key = key.rpartition(".")[0]
        mark = found.get(key)
        if mark is not None:
            return None if mark.is_mapping else mark
    return None
