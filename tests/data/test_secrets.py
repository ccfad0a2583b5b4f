from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ai4sdk.data.secrets import resolve_secret, resolve_secrets, secret_file
from ai4sdk.errors import DataError, EnvironmentFault


def write(name: str, content: bytes, mode: int = 0o600) -> Path:
    file = secret_file(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


def test_other_text_is_left_alone() -> None:
    assert resolve_secret("plain $HOME ${x}") == "plain $HOME ${x}"


def test_environment_comes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("TOKEN", b"from the file")
    assert resolve_secret("${secret:TOKEN}") == "from the file"
    monkeypatch.setenv("TOKEN", " from the environment\n")
    assert resolve_secret("${secret:TOKEN}") == "from the environment"


def test_the_file_is_under_xdg_config_home(own_home: Path) -> None:
    assert secret_file("A") == own_home / "config" / "ai4sdk" / "secrets" / "A"


def test_the_file_is_under_home_without_xdg(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert secret_file("A") == own_home / ".config" / "ai4sdk" / "secrets" / "A"


def test_a_missing_secret_says_how_to_set_it() -> None:
    with pytest.raises(EnvironmentFault) as caught:
        resolve_secret("${secret:NOT_THERE}")
    assert "NOT_THERE" in caught.value.message
    assert "export NOT_THERE=" in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_an_empty_secret_is_refused(content: bytes) -> None:
    write("EMPTY", content)
    with pytest.raises(EnvironmentFault, match="is empty"):
        resolve_secret("${secret:EMPTY}")


def test_a_broken_secret_is_not_quoted() -> None:
    write("BROKEN", b"hunter2\xff\xfe")
    with pytest.raises(EnvironmentFault) as caught:
        resolve_secret("${secret:BROKEN}")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_part_of_a_value_cannot_be_a_reference() -> None:
    with pytest.raises(DataError, match="whole of a value"):
        resolve_secret("Bearer ${secret:TOKEN}")


def test_no_name_reaches_out_of_the_folder() -> None:
    with pytest.raises(DataError):
        resolve_secret("${secret:../../passwd}")


def test_a_file_open_to_others_is_warned_of_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    write("OPEN", b"hunter2", 0o644)
    with caplog.at_level(logging.DEBUG):
        assert resolve_secret("${secret:OPEN}") == "hunter2"
    assert "chmod 600" in caplog.text
    assert "hunter2" not in caplog.text


def test_nested_values_are_resolved_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "1")
    given = {"x": "${secret:A}", "y": [{"z": "${secret:A}"}, 2, None]}
    assert resolve_secrets(given) == {"x": "1", "y": [{"z": "1"}, 2, None]}
    assert given["x"] == "${secret:A}"
