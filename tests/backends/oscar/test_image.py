"""What a builder of images is given."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ai4sdk.backends.oscar.image import Installed, containerfile, installed, write_context
from ai4sdk.errors import UsageError
from ai4sdk.spec import OscarBackend

GOLDEN = Path(__file__).parent / "golden" / "Containerfile"
CPU = Installed("0.1.0", ("numpy==2.4.6", "torch==2.13.0+cpu"))
BASE = "docker.io/library/python:3.12-slim"


def options(**values: object) -> OscarBackend:
    return OscarBackend.model_validate({"kind": "oscar", **values})


def test_the_containerfile_is_as_it_was_approved() -> None:
    text = containerfile(options(), CPU, base=BASE, wheel="ai4sdk-0.1.0-py3-none-any.whl", trusted=True)
    if os.environ.get("AI4SDK_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_nobody_is_root_there_and_what_changes_most_comes_last() -> None:
    lines = [line.split()[0] for line in containerfile(options(), CPU, base=BASE).splitlines() if line[:1].isupper()]
    assert lines[lines.index("USER") - 1] == "COPY"
    assert re.search(r"^USER (?!0|root)\d+:\d+$", containerfile(options(), CPU, base=BASE), re.MULTILINE)


def test_pytorch_without_cuda_is_installed_unless_there_is_a_gpu() -> None:
    assert "whl/cpu" in containerfile(options(), CPU, base=BASE)
    assert "whl/cpu" not in containerfile(options(enable_gpu=True), CPU, base=BASE)
    assert "whl/cpu" not in containerfile(options(), Installed("0.1.0", ("torch==2.13.0",)), base=BASE)


def test_every_package_that_is_needed_has_its_version() -> None:
    have = installed()
    names = {one.partition("==")[0] for one in have.constraints}
    assert {"torch", "numpy", "mlflow", "pydantic", "pydantic-core", "typing-extensions"} <= names
    assert not {"pytest", "ruff", "mypy", "ai4sdk"} & names
    assert have.constraints == tuple(sorted(have.constraints))


def test_a_context_has_all_that_is_copied(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "model.json").write_text("{}")
    (package / "requirements.txt").write_text("# of a run\nai4sdk==0.1.0\npytest==9.0\n")
    wheel = tmp_path / "ai4sdk-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    folder = tmp_path / "image"
    write_context(folder, package, options(), base=BASE, wheel=wheel, trusted=False)
    text = (folder / "Containerfile").read_text()
    copied = re.search(r"^COPY (.+) \./$", text, re.MULTILINE)
    assert copied is not None
    assert all((folder / name).is_file() for name in copied[1].split())
    assert (folder / "requirements.txt").read_text() == "ai4sdk==0.1.0\npytest==9.0\n"
    assert re.search(r"^pluggy==", (folder / "constraints.txt").read_text(), re.MULTILINE)
    assert (folder / "package" / "model.json").read_text() == "{}"
    with pytest.raises(UsageError, match="has something in it"):
        write_context(folder, package, options(), base=BASE, wheel=None, trusted=False)


def test_with_a_gpu_the_versions_are_those_with_cuda(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    write_context(
        tmp_path / "image", tmp_path / "package", options(enable_gpu=True), base=BASE, wheel=None, trusted=False
    )
    assert "+cpu" not in (tmp_path / "image" / "constraints.txt").read_text()
