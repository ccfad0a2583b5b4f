"""Runs around packages of tiny modules."""

import shutil

import pytest
from packages import make_code, make_package, writing

__all__ = ["make_code", "make_package", "writing"]


@pytest.fixture
def as_run(tmp_path):
    """Make a run directory around a package."""

    def make(package, code, name="20260101-000000-tiny-abcd"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "plan.json").write_text('{"code": {"paths": [""]}}')
        shutil.copytree(package, run / "package")
        shutil.copytree(code, run / "code")
        return run

    return make
