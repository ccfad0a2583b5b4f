"""Leading and joining a federation, as far as nobody is at the other end."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest

from ai4sdk.cli import main


def run(capsys, *argv: str) -> tuple[int, str, str]:
    status = main(["federated", *argv])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_tokens_are_issued_listed_and_revoked(capsys, project: Path) -> None:
    status, token, told = run(capsys, "token", "issue", "north", "--expires", "30d")
    assert status == 0
    assert token.startswith("ai4-")
    assert token.strip() not in told
    status, out, _ = run(capsys, "token", "issue", "south", "--out", "south.token")
    assert (status, out) == (0, "")
    assert stat.S_IMODE(Path("south.token").stat().st_mode) == 0o600
    assert run(capsys, "token", "issue", "south", "--out", "south.token")[0] == 2
    entries = json.loads(run(capsys, "token", "list", "--json")[1])
    assert [(entry["site"], entry["state"], entry["hash"]) for entry in entries] == [
        ("north", "valid", None),
        ("south", "valid", None),
    ]
    assert run(capsys, "token", "revoke", entries[0]["id"])[0] == 0
    lines = run(capsys, "token", "list")[1].splitlines()
    assert lines[1].split()[1:3] == ["north", "revoked"]
    assert run(capsys, "token", "revoke", "nobody")[0] == 6


@pytest.mark.parametrize(
    ("argv", "fix"),
    [
        (["tokn"], "token"),
        (["token", "issue"], "issue SITE"),
        (["token", "isue", "x"], "issue, list, revoke"),
        (["token", "issue", "a b"], "letters, digits"),
        (["token", "issue", "north", "--expires", "soon"], "--expires 30d"),
        (["server", "config=train"], "--help"),
        (["join", "localhost:1", "config=train"], "--help"),
        (["show", "localhost", "--site", "north", "--ca", "ca.pem"], "host and port are needed"),
        (["show", "https://localhost:1", "--site", "north", "--ca", "ca.pem"], "host and port are needed"),
        (["join", "localhost:99999", "config=train", "--site", "north", "--ca", "ca.pem"], "ports end at 65535"),
    ],
)
def test_what_is_not_understood_is_told_with_the_next_thing_to_type(capsys, project: Path, argv, fix) -> None:
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert fix in err


def test_a_token_comes_from_a_file_standard_input_or_the_environment(
    capsys, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, "certificates", "tls", "localhost")[0] == 0
    show = ("show", "localhost:1", "--site", "north", "--ca", "tls/ca.pem")
    status, _, err = run(capsys, *show)
    assert (status, "there is no token in $AI4SDK_FEDERATION_TOKEN" in err) == (7, True)
    monkeypatch.setenv("AI4SDK_FEDERATION_TOKEN", "a-token")
    assert "cannot be reached" in run(capsys, *show)[2]
    monkeypatch.setattr("sys.stdin", io.StringIO("a-token\n"))
    assert "cannot be reached" in run(capsys, *show, "--token-file", "-")[2]
    kept = Path("runs/federation/north.token")
    assert kept.read_text() == "a-token\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path("runs/federation/north.key").stat().st_mode) == 0o600
    assert "cannot be read" in run(capsys, *show, "--token-file", "none")[2]
    assert "never made without" in run(capsys, *show[:-1], "none.pem", "--token-file", "-")[2]
    assert "holds no certificate" in run(capsys, *show[:-1], str(kept), "--token-file", str(kept))[2]


def test_a_coordinator_listens_at_no_other_port_than_it_is_told(capsys, project: Path) -> None:
    assert run(capsys, "certificates", "tls", "localhost")[0] == 0
    server = (
        "server",
        "config=train",
        "--certificate",
        "tls/server.pem",
        "--key",
        "tls/server.key",
        "training.mode=federated",
    )
    status, _, err = run(capsys, *server, "--address", "0.0.0.0:74979")  # whose last 16 bits are 9443
    assert (status, "ports end at 65535" in err) == (2, True)
    words = "++federation.listen={address: '0.0.0.0:74979', certificate: tls/server.pem, key: tls/server.key}"
    assert main(["plan", "config=train", "training.mode=federated", words]) == 2
    assert "ports end at 65535" in capsys.readouterr().err
    assert not Path("runs").exists() or not list(Path("runs").glob("2*"))
