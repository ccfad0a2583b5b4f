"""ai4sdk: describe a piece of machine learning once, in YAML, and run it anywhere.

::

    import ai4sdk

    plan = ai4sdk.plan("quickstart", "training.max_epochs=3")
    run = ai4sdk.run(plan)
    model = ai4sdk.load_model(run)

Importing this costs next to nothing: each name is looked up when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ai4sdk._version import __version__

if TYPE_CHECKING:
    from ai4sdk.errors import Ai4Error, ConfigError
    from ai4sdk.sdk import Run, compose, load_model, open_run, plan, run
    from ai4sdk.studies.sdk import Study, open_study, study

__all__ = [
    "Ai4Error",
    "ConfigError",
    "Run",
    "Study",
    "__version__",
    "compose",
    "load_model",
    "open_run",
    "open_study",
    "plan",
    "run",
    "study",
]

_HOMES = {
    "Ai4Error": "ai4sdk.errors",
    "ConfigError": "ai4sdk.errors",
    "Run": "ai4sdk.sdk",
    "Study": "ai4sdk.studies.sdk",
    "compose": "ai4sdk.sdk",
    "load_model": "ai4sdk.sdk",
    "open_run": "ai4sdk.sdk",
    "open_study": "ai4sdk.studies.sdk",
    "plan": "ai4sdk.sdk",
    "run": "ai4sdk.sdk",
    "study": "ai4sdk.studies.sdk",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ai4sdk' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
