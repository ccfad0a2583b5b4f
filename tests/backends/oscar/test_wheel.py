"""An image has the ai4sdk that is installed here, wherever that came from."""

from __future__ import annotations

import importlib.metadata
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.backends.oscar.wheel import make_wheel, source
from ai4sdk.errors import EnvironmentFault

Installed = Callable[[dict[str, Any] | None], None]


@pytest.fixture
def installed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Have ai4sdk installed as the given direct_url.json of PEP 610 tells, or from an index."""

    def install(origin: dict[str, Any] | None) -> None:
        info = tmp_path / "site" / "ai4sdk-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ai4sdk\nVersion: 0.1.0\n")
        if origin is not None:
            (info / "direct_url.json").write_text(json.dumps(origin))
        found = importlib.metadata.Distribution.at(info)
        monkeypatch.setattr(importlib.metadata, "distribution", lambda _: found)

    return install


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (None, None),
        ({"url": "file:///home/me/ai4sdk", "dir_info": {"editable": True}}, "file:///home/me/ai4sdk"),
        (
            {"url": "https://example.org/ai4sdk", "vcs_info": {"vcs": "git", "commit_id": "1f" * 20}},
            "git+https://example.org/ai4sdk@" + "1f" * 20,
        ),
        (
            {"url": "https://example.org/all.zip", "archive_info": {}, "subdirectory": "sdk"},
            "https://example.org/all.zip#subdirectory=sdk",
        ),
        (
            {"url": "https://example.org/a.zip", "archive_info": {"hashes": {"sha256": "ab12"}}, "subdirectory": "sdk"},
            "https://example.org/a.zip#sha256=ab12&subdirectory=sdk",
        ),
    ],
)
def test_where_it_came_from_is_as_pip_takes_it(
    installed_from: Installed, origin: dict[str, Any] | None, told: str | None
) -> None:
    installed_from(origin)
    assert source() == told


def test_the_wheel_that_was_installed_is_the_one_of_the_image(installed_from: Installed, tmp_path: Path) -> None:
    there, made = tmp_path / "a folder" / "ai4sdk-0.1.0-py3-none-any.whl", tmp_path / "made"
    there.parent.mkdir()
    with zipfile.ZipFile(there, "w") as wheel:
        wheel.writestr("ai4sdk-0.1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ai4sdk\nVersion: 0.1.0\n")
        wheel.writestr("ai4sdk-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("ai4sdk-0.1.0.dist-info/RECORD", "")
    installed_from({"url": there.as_uri(), "archive_info": {}})
    found = make_wheel(made)
    assert found == made / there.name
    assert found.read_bytes() == there.read_bytes()


def test_none_is_made_of_what_the_package_index_has(installed_from: Installed, tmp_path: Path) -> None:
    installed_from(None)
    assert make_wheel(tmp_path / "made") is None


def test_a_source_that_is_gone_is_told(installed_from: Installed, tmp_path: Path) -> None:
    gone = (tmp_path / "gone").as_uri()
    installed_from({"url": gone, "dir_info": {}})
    with pytest.raises(EnvironmentFault, match="no wheel can be made") as told:
        make_wheel(tmp_path / "made")
    assert gone in str(told.value)
    assert "--wheel FILE" in str(told.value)
