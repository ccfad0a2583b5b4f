"""A backend of another package is as good as ours: found by name, its options checked, its mistakes told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.backends.registry import get_backend
from ai4sdk.errors import ConfigError, UsageError
from ai4sdk.spec.backend import backends_of_packages

CODE = """
from pydantic import BaseModel, ConfigDict

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 3

class Pond:
    options = Options

class Bare:
    pass
"""


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = tmp_path_factory.mktemp("site")
    info = site / "ponds-1.dist-info"
    info.mkdir()
    (site / "ponds_of_a_package.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ponds\nVersion: 1\n")
    points = "pond = ponds_of_a_package:Pond\nbare = ponds_of_a_package:Bare\ngone = ponds_of_a_package:Gone\n"
    (info / "entry_points.txt").write_text(f"[ai4sdk.backends]\n{points}")
    monkeypatch.syspath_prepend(str(site))
    backends_of_packages.cache_clear()
    yield
    backends_of_packages.cache_clear()


@pytest.mark.usefixtures("package")
def test_it_is_found_and_its_defaults_are_in_the_plan(project: Path) -> None:
    assert type(get_backend("pond")).__name__ == "Pond"
    made = ai4sdk.plan("train", "backend={kind: pond}")
    assert made.job["backend"] == {"kind": "pond", "grace": 60.0, "env": {}, "depth": 3}
    assert made.digest == ai4sdk.plan("train").digest
    assert ai4sdk.plan("train", "backend={kind: pond, depth: 5}").as_job().backend.model_extra == {"depth": 5}


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("{kind: pond, depth: deep}", "backend pond: depth: Input should be a valid integer"),
        ("{kind: pond, width: 3}", "backend pond: width: Extra inputs are not permitted"),
        ("{kind: bare, width: 3}", "backend bare has no option width"),
        ("{kind: gone}", "backend gone cannot be loaded: module 'ponds_of_a_package' has no attribute 'Gone'"),
        ("{kind: ponds}", "must be one of local, slurm, kubernetes, ray, .*pond.* not 'ponds'"),
    ],
)
def test_mistakes_are_told(project: Path, backend: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        ai4sdk.plan("train", f"backend={backend}")
    assert "backend.other" not in str(caught.value)


def test_a_name_that_nobody_knows_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="there is no backend 'slurn'") as caught:
        get_backend("slurn")
    assert caught.value.hint == "backend=slurm"
