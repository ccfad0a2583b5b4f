"""Import what trainings and models need in less time.

A short task is mostly imports: torch, Lightning and torchmetrics make a million objects, among which Python looks for
garbage again and again, and torchmetrics imports ``scipy.signal``, a fifth of the time, to give it back one old name.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["quick_imports"]

_SIGNAL = "scipy.signal"


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large libraries within, once in a process of our own.

    No garbage is looked for meanwhile, and what was imported is never looked through again (`gc.freeze`). If
    torchmetrics is imported, it finds a placeholder of ``scipy.signal``, which becomes the real one as soon as anything
    else asks for it, and is gone afterwards. Other threads should import nothing meanwhile.
    """
    collecting = gc.isenabled()
    gc.disable()
    placeholder = None if _is_signal_wanted() else _Placeholder(_SIGNAL)
    if placeholder is not None:
        sys.modules[_SIGNAL] = placeholder
    try:
        yield
    finally:
        if placeholder is not None and sys.modules.get(_SIGNAL) is placeholder:
            del sys.modules[_SIGNAL]
        gc.freeze()
        if collecting:
            gc.enable()


class _Placeholder(ModuleType):
    """Stands for ``scipy.signal`` where torchmetrics looks whether it has the name ``hamming``."""

    hamming = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # who goes through all modules looks for such names
            raise AttributeError(name)
        if sys.modules.get(_SIGNAL) is self:
            del sys.modules[_SIGNAL]
        return getattr(importlib.import_module(_SIGNAL), name)


def _is_signal_wanted() -> bool:
    """Tell whether it is there already, or a package is that needs the name which torchmetrics restores."""
    return _SIGNAL in sys.modules or importlib.util.find_spec("srmrpy") is not None
