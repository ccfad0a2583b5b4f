"""Tokens admit one site each, and nobody once they are revoked or over."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from ai4sdk.errors import EnvironmentFault, NotFound, UsageError
from ai4sdk.federated.deploy.certificates import load_or_make_key, public_pem, read_certificate, write_certificates
from ai4sdk.federated.deploy.tokens import NotAdmitted, Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "federation" / "tokens.json")


def test_a_token_admits_its_site_until_it_is_revoked(registry: Registry) -> None:
    entry, token = registry.issue("north", 60)
    assert registry.find(token).site == "north"
    assert registry.revoke(entry.id).revoked is not None
    with pytest.raises(NotAdmitted, match="revoked"):
        registry.find(token)
    with pytest.raises(NotFound):
        registry.revoke("ffffffff")


def test_another_process_that_revokes_is_noticed_at_once(registry: Registry, tmp_path: Path) -> None:
    entry, token = registry.issue("north")
    assert registry.find(token)
    Registry(tmp_path / "federation" / "tokens.json").revoke(entry.id)
    with pytest.raises(NotAdmitted, match="revoked"):
        registry.find(token)


@pytest.mark.parametrize("wrong", ["", "x", "ai4-00000000-" + "a" * 43, "ai4-" + "é" * 52])
def test_what_is_no_token_admits_nobody(registry: Registry, wrong: str) -> None:
    registry.issue("north")
    with pytest.raises(NotAdmitted, match="no valid token"):
        registry.find(wrong)


def test_a_token_with_another_secret_part_admits_nobody(registry: Registry) -> None:
    _, token = registry.issue("north")
    with pytest.raises(NotAdmitted, match="no valid token"):
        registry.find(token[:-1] + ("a" if token[-1] != "a" else "b"))


def test_a_token_expires(registry: Registry) -> None:
    _, token = registry.issue("north", -1)
    with pytest.raises(NotAdmitted, match="expired"):
        registry.find(token)


def test_only_hashes_are_kept_and_only_the_owner_reads_them(registry: Registry, tmp_path: Path) -> None:
    _, token = registry.issue("north")
    file = tmp_path / "federation" / "tokens.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in file.read_text()
    assert token.split("-", 2)[2] not in file.read_text()


def test_a_key_is_one_sites_and_a_token_one_keys(registry: Registry) -> None:
    north, _ = registry.issue("north")
    again, _ = registry.issue("north")
    south, _ = registry.issue("south")
    assert registry.bind(north.id, "a key").key == "a key"
    assert registry.bind(north.id, "a key").key == "a key"
    assert registry.bind(again.id, "a key").key == "a key"
    with pytest.raises(NotAdmitted, match="another key"):
        registry.bind(north.id, "another key")
    with pytest.raises(NotAdmitted, match="another site's"):
        registry.bind(south.id, "a key")
    with pytest.raises(UsageError, match="another site's"):
        registry.issue("south", key="a key")
    assert registry.sites() == ["north", "south"]


def test_many_issue_at_once_and_none_is_lost(registry: Registry, tmp_path: Path) -> None:
    def issue(number: int) -> None:
        Registry(tmp_path / "federation" / "tokens.json").issue(f"site-{number}")

    threads = [threading.Thread(target=issue, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(registry.sites())) == 12


def test_a_damaged_file_admits_nobody(registry: Registry, tmp_path: Path) -> None:
    _, token = registry.issue("north")
    (tmp_path / "federation" / "tokens.json").write_text(json.dumps({"tokens": [{"site": "north"}]}))
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        registry.find(token)


@pytest.mark.parametrize("name", ["", "../up", "a b", "-x", "x" * 65])
def test_a_site_has_a_name_that_can_be_a_folder(registry: Registry, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        registry.issue(name)


def test_a_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    made = public_pem(load_or_make_key(path))
    assert public_pem(load_or_make_key(path)) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("no key")
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        load_or_make_key(path)


def test_certificates_of_a_rehearsal_are_made_on_request_only(tmp_path: Path) -> None:
    write_certificates(tmp_path / "tls", ["localhost", "127.0.0.1"])
    assert stat.S_IMODE((tmp_path / "tls/server.key").stat().st_mode) == 0o600
    read_certificate(tmp_path / "tls/server.pem", tmp_path / "tls/server.key")
    with pytest.raises(UsageError, match="already"):
        write_certificates(tmp_path / "tls", ["localhost"])
    load_or_make_key(tmp_path / "other.key")
    with pytest.raises(EnvironmentFault, match="is not the key of"):
        read_certificate(tmp_path / "tls/server.pem", tmp_path / "other.key")
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        read_certificate(tmp_path / "tls/none.pem", tmp_path / "other.key")


def test_a_certificate_that_expired_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai4sdk.federated.deploy.certificates._DAYS", 0)
    write_certificates(tmp_path, ["localhost"])
    with pytest.raises(EnvironmentFault, match="is valid from"):
        read_certificate(tmp_path / "server.pem", tmp_path / "server.key")
