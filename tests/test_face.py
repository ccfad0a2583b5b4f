"""The SDK's face: exact, and light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ai4sdk

HEAVY = ("torch", "pytorch_lightning", "lightning", "mlflow", "flwr", "ray", "pandas")


def test_all_is_complete_and_sorted():
    assert sorted(ai4sdk.__all__) == ai4sdk.__all__
    for name in ai4sdk.__all__:
        assert getattr(ai4sdk, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = ai4sdk.nothing_of_ours


def test_importing_the_face_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import ai4sdk; print(len([m for m in set(sys.modules) - before if m.startswith(('ai4sdk.', 'hydra', 'pydantic', 'omegaconf', 'yaml'))]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1", "only ai4sdk._version"


@pytest.mark.parametrize(
    "module",
    [
        "ai4sdk.spec", "ai4sdk.config.load", "ai4sdk.planning.build", "ai4sdk.runs.store", "ai4sdk.backends.launch",
        "ai4sdk.backends.local.supervisor", "ai4sdk.backends.local.pool", "ai4sdk.cli.run", "ai4sdk.cli.plan", "ai4sdk.cli.runs", "ai4sdk.cli.predict",
        "ai4sdk.cli.why", "ai4sdk.cli.diff", "ai4sdk.cli.configs", "ai4sdk.cli.schema", "ai4sdk.cli.init", "ai4sdk.cli.watch",
        "ai4sdk.cli.serve", "ai4sdk.serving.server", "ai4sdk.serving.sources",
        "ai4sdk.sdk", "ai4sdk.catalog", "ai4sdk.data.fingerprint", "ai4sdk.data.summary", "ai4sdk.data.storage", "ai4sdk.data.secrets",
    ],
)  # fmt: skip
def test_light_rooms_import_no_heavy_library(module):
    code = f"import sys, {module}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
