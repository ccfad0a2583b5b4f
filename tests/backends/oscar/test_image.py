"""What a builder of images is given."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ai4sdk.backends.oscar.image import Installed, containerfile, installed, write_context
from ai4sdk.errors import UsageError
from ai4sdk.spec import OscarBackend

GOLDEN = Path(__file__).parent / "golden" / "Containerfile"
HAVE = Installed("0.1.0", ("torch==2.13.0+cpu",), ("numpy==2.4.6", "torch==2.13.0+cpu"))
BASE = "docker.io/library/python:3.12-slim"


def options(**values: object) -> OscarBackend:
    return OscarBackend.model_validate({"kind": "oscar", **values})


def test_the_containerfile_is_as_it_was_approved() -> None:
    text = containerfile(options(), HAVE, base=BASE, wheel="ai4sdk-0.1.0-py3-none-any.whl", trusted=True)
    if os.environ.get("AI4SDK_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_nobody_is_root_there_and_what_changes_most_comes_last() -> None:
    lines = [line.split()[0] for line in containerfile(options(), HAVE, base=BASE).splitlines() if line[:1].isupper()]
    assert lines[lines.index("USER") - 1] == "COPY"
    assert re.search(r"^USER (?!0|root)\d+:\d+$", containerfile(options(), HAVE, base=BASE), re.MULTILINE)


def test_pytorch_without_cuda_is_installed_unless_there_is_a_gpu() -> None:
    assert "whl/cpu" in containerfile(options(), HAVE, base=BASE)
    assert "whl/cpu" not in containerfile(options(enable_gpu=True), HAVE, base=BASE)
    for there in ("2.13.0", "2.13.0+cpu", "2.13.0+cu126"):
        assert "torch==2.13.0+cpu" in installed({"torch": there}).constraints
        assert "torch==2.13.0" in installed({"torch": there}, gpu=True).constraints


def test_what_answers_has_its_version_and_what_trains_is_left_out() -> None:
    have = installed()
    names = {one.partition("==")[0] for one in have.constraints}
    assert {"torch", "numpy", "scipy", "pydantic", "pydantic-core", "typing-extensions"} <= names
    assert not {"mlflow", "optuna", "pandas", "pyarrow", "flask", "pytest", "ruff", "ai4sdk"} & names
    assert have.constraints == tuple(sorted(have.constraints, key=lambda one: one.partition("==")[0]))
    assert set(have.wanted) < set(have.constraints)


def test_what_extras_of_what_is_needed_bring_has_its_version_too() -> None:
    names = {one.partition("==")[0] for one in installed().constraints}
    assert {"aiohttp", "multidict", "yarl"} <= names  # PyTorch Lightning needs fsspec[http]
    assert not {"s3fs", "botocore", "paramiko"} & names, "other extras of fsspec's"


def test_what_the_code_of_the_model_needs_is_there_in_the_version_it_was_made_with() -> None:
    have = installed({"ai4sdk": "0.0.9", "pandas": "2.9.9", "of-theirs": "1.0", "Scikit_Learn": "1.0"})
    assert {"pandas==2.9.9", "of-theirs==1.0", "scikit-learn==1.0"} <= set(have.wanted)
    assert any(one.startswith("python-dateutil==") for one in have.constraints)  # which pandas needs
    assert have.version == "0.0.9"


WITHOUT = """
import importlib.machinery, importlib.metadata, pkgutil, sys

missing = {"mlflow", "optuna", "cmaes", "pandas", "pyarrow", "sklearn", "scikit-learn", "matplotlib"}
find, look = importlib.machinery.PathFinder.find_spec, importlib.metadata.Distribution.from_name

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in missing else find(name, path, target)

def from_name(name):
    if name in missing:
        raise importlib.metadata.PackageNotFoundError(name)
    return look(name)

importlib.machinery.PathFinder.find_spec, importlib.metadata.Distribution.from_name = find_spec, from_name

import ai4sdk.cli, ai4sdk.serving, ai4sdk.worker.predict, ai4sdk.worker.model, ai4sdk.drift.watch

for module in pkgutil.walk_packages(ai4sdk.serving.__path__, "ai4sdk.serving."):
    if not module.name.endswith("__main__") and ".grpc" not in module.name:
        __import__(module.name)
assert "torchmetrics" in sys.modules
"""


@pytest.mark.slow
def test_serving_needs_nothing_of_what_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_context_has_all_that_is_copied(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "code").mkdir(parents=True)
    (package / "model.json").write_text(json.dumps({"packages": {"ai4sdk": "0.1.0", "pytest": "9.0"}}))
    for path in (package / "model.json", package / "code"):
        path.chmod(0o700)  # as with a strict umask
    wheel = tmp_path / "ai4sdk-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    folder = tmp_path / "image"
    write_context(folder, package, options(), base=BASE, wheel=wheel, trusted=False)
    text = (folder / "Containerfile").read_text()
    copied = re.search(r"^COPY (.+) \./$", text, re.MULTILINE)
    assert copied is not None
    assert all((folder / name).is_file() for name in copied[1].split())
    assert "pytest==9.0" in (folder / "requirements.txt").read_text().splitlines()
    assert re.search(r"^pluggy==", (folder / "constraints.txt").read_text(), re.MULTILINE)
    assert (folder / "package" / "model.json").read_text() == (package / "model.json").read_text()
    modes = [(folder / "package" / name).stat().st_mode & 0o777 for name in ("", "model.json", "code")]
    assert modes == [0o755, 0o644, 0o755]
    with pytest.raises(UsageError, match="has something in it"):
        write_context(folder, package, options(), base=BASE, wheel=None, trusted=False)


def test_with_a_gpu_the_versions_are_those_with_cuda(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "model.json").write_text("{}")
    write_context(
        tmp_path / "image", tmp_path / "package", options(enable_gpu=True), base=BASE, wheel=None, trusted=False
    )
    assert "+cpu" not in (tmp_path / "image" / "constraints.txt").read_text()
    assert "--no-deps ai4sdk==" in (tmp_path / "image" / "Containerfile").read_text()
