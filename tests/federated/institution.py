"""Institutions on this machine: each a project of its own, and the command line in it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import ai4sdk
from ai4sdk.cli import main
from ai4sdk.testing.helpers import wait_for
from ai4sdk.testing.project import write_project


class Institution:
    """A project, and the command line in it.

    Parameters
    ----------
    folder
        Is made.
    code
        Of its module ``hospitals``; its config ``train`` has no dataset.
    """

    def __init__(self, folder: Path, code: str = "") -> None:
        self.folder = folder
        folder.mkdir()
        write_project(folder)
        config = (folder / "configs/train.yaml").read_text().partition("dataset:")[0]
        (folder / "configs/train.yaml").write_text(config)
        (folder / "hospitals.py").write_text(code)

    def do(self, *argv: str, status: int = 0) -> str:
        """Type a command here; return what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
            ended = main(argv)
        self.said = err.getvalue()
        assert ended == status, f"{argv}: {out.getvalue()}\n{self.said}"
        return out.getvalue()

    def run(self) -> ai4sdk.Run:
        return ai4sdk.open_run("latest", project=self.folder)

    def worker(self) -> int:
        return [int(event["pid"]) for event in self.run().events() if event["event"] == "task started"][-1]

    def kill(self) -> None:
        os.kill(self.worker(), signal.SIGKILL)
        wait_for(lambda: self.run().status.state == "interrupted", 60)


class Coordinator(Institution):
    """An institution that waits for sites, at a port of this machine.

    Parameters
    ----------
    folder
        Is made.
    sites
        Those that get a token.
    code
        See `Institution`.
    """

    def __init__(self, folder: Path, sites: Mapping[str, Institution], code: str = "") -> None:
        super().__init__(folder, code)
        self.address = f"127.0.0.1:{free_port()}"
        self.do("federated", "certificates", "tls", "localhost", "127.0.0.1")
        for name, site in sites.items():
            self.do("federated", "token", "issue", name, "--out", str(site.folder / "token"))

    def lead(self, *words: str) -> ai4sdk.Run:
        """Begin a federation, and wait until it listens."""
        tls = ("--certificate", "tls/server.pem", "--key", "tls/server.key")
        self.do("federated", "server", "config=train", *words, "--address", self.address, *tls, "--detach")
        leader = self.run()
        wait_for(lambda: any(event["event"] == "listening" for event in leader.events()))
        return leader

    def as_site(self, name: str) -> tuple[str, ...]:
        """Return the words of a command that say who joins whom."""
        ca = str(self.folder / "tls/ca.pem")
        return (self.address, "--site", name, "--token-file", "token", "--ca", ca)

    def terms(self, name: str, site: Institution) -> dict[str, Any]:
        """Return what a site is told."""
        told = json.loads(site.do("federated", "show", *self.as_site(name), "--json"))
        assert isinstance(told, dict)
        return told


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
