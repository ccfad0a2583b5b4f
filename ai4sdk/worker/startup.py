"""Import what trainings and models need in less time.

A short task is mostly imports: torch, Lightning and torchmetrics make a million objects, among which Python looks for
garbage again and again; torchmetrics imports ``scipy.signal``, a fifth of the time, to give it back one old name; and
Lightning imports torch's compiler, two fifths of the time and a fifth of the memory, for one class and one decorator.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai4sdk.worker.model import Model

__all__ = ["load_to_predict", "quick_imports"]

_SIGNAL = "scipy.signal"
_COMPILER = "torch._dynamo"


@contextmanager
def quick_imports(*, compiler: bool = True) -> Iterator[None]:
    """Import large libraries within, once in a process of our own.

    No garbage is looked for meanwhile, and what was imported is never looked through again (`gc.freeze`). If
    torchmetrics is imported, it finds a placeholder of ``scipy.signal``, which becomes the real one as soon as anything
    else asks for it, and is gone afterwards. Other threads should import nothing meanwhile.

    Parameters
    ----------
    compiler
        Whether torch's compiler is wanted: any optimizer brings it, so that only who merely predicts does without.
        Lightning finds a placeholder of it then, of the same kind.
    """
    collecting = gc.isenabled()
    gc.disable()
    placeholders = [] if _is_signal_wanted() else [_Placeholder(_SIGNAL, hamming=None)]
    if not compiler and _COMPILER not in sys.modules:
        placeholders.append(_Placeholder(_COMPILER, OptimizedModule=_OptimizedModule, disable=_disable))
    insides = [_Insides(placeholder) for placeholder in placeholders]
    for placeholder in placeholders:
        sys.modules[placeholder.__name__] = placeholder
    sys.meta_path[:0] = insides
    try:
        yield
    finally:
        for placeholder, inside in zip(placeholders, insides, strict=True):
            placeholder.leave()
            sys.meta_path.remove(inside)
        gc.freeze()
        if collecting:
            gc.enable()


def load_to_predict(source: str | Path, trust_code: bool | None, *, device: str = "cpu") -> Model:
    """Load a model in a process of our own that only predicts; see `ai4sdk.worker.model.load_model`."""
    with quick_imports(compiler=False):
        from ai4sdk.worker.model import load_model
    with quick_imports():  # the module's own: it may want the compiler
        return load_model(source, device=device, trust_code=trust_code)


class _Placeholder(ModuleType):
    """Stands for a module where one looks for names that are given here; the real one has all others."""

    def __init__(self, name: str, **names: object) -> None:
        super().__init__(name)
        self.__dict__.update(names, __path__=[])

    def give_way(self) -> ModuleType:
        """Leave the place to the real one, and return that."""
        self.leave()
        return importlib.import_module(self.__name__)

    def leave(self) -> None:
        """Leave the place."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who goes through all modules looks for such names
            raise AttributeError(name)
        return getattr(self.give_way(), name)


class _Insides(MetaPathFinder, Loader):
    """Finds what is inside of the real one, which is imported first, and often has imported it then."""

    def __init__(self, placeholder: _Placeholder) -> None:
        self._placeholder = placeholder
        self._spec: ModuleSpec | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to come by a module, where the placeholder stands for what it is in."""
        outer = self._placeholder.__name__
        if not name.startswith(f"{outer}.") or sys.modules.get(outer) is not self._placeholder:
            return None
        self._placeholder.give_way()
        if (module := sys.modules.get(name)) is None:
            return importlib.util.find_spec(name)
        self._spec, ours = module.__spec__, ModuleSpec(name, self)
        vars(module)["__spec__"] = ours  # by its own it would be loaded again; some modules let no attribute be set
        return ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module as it is already there."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it was."""
        vars(module)["__spec__"] = self._spec


class _Compiled(type):
    def __instancecheck__(cls, instance: object) -> bool:
        real = sys.modules.get(_COMPILER)
        return not (real is None or isinstance(real, _Placeholder)) and isinstance(instance, real.OptimizedModule)


class _OptimizedModule(metaclass=_Compiled):
    """Has the instances of the real class, of which there are none before torch's compiler is imported."""


def _disable(function: Any = None, recursive: bool = True, *, reason: str | None = None, **more: Any) -> Any:
    """Keep a function from being compiled, as torch does with its own: the compiler is told once it is called."""
    if isinstance(function, FunctionType) and reason is None and not more:
        from torch._compile import _disable_dynamo

        return _disable_dynamo(function, recursive)
    found = sys.modules.get(_COMPILER)
    real: Any = found.give_way() if isinstance(found, _Placeholder) else importlib.import_module(_COMPILER)
    return real.disable(function, recursive, reason=reason, **more)


def _is_signal_wanted() -> bool:
    """Tell whether it is there already, or a package is that needs the name which torchmetrics restores."""
    return _SIGNAL in sys.modules or importlib.util.find_spec("srmrpy") is not None
