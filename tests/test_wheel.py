"""A wheel installed elsewhere runs the quickstart: configs and modules are in it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)],
        check=True,
    )
    return next(folder.glob("ai4sdk-*.whl"))


def test_it_holds_configs_modules_templates_and_schemas(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "ai4sdk/_shipped/configs/quickstart.yaml",
        "ai4sdk/_shipped/configs/schemas/job.json",
        "ai4sdk/_shipped/modules/digits/digits_classifier/__init__.py",
        "ai4sdk/catalog/schemas/ai4-metadata-2.3.0.json",
        "ai4sdk/py.typed",
    ):
        assert wanted in names
    assert any(name.startswith("ai4sdk/catalog/templates/") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_it_runs_the_quickstart_elsewhere(wheel, tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    env = {**os.environ, "PYTHONPATH": str(site)}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-P", "-m", "ai4sdk"]
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import ai4sdk; print(ai4sdk.__file__)"],
        env=env, cwd=elsewhere, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
    done = subprocess.run(
        [*command, "run", "config=quickstart", "training.max_epochs=2"],
        env=env, cwd=elsewhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
