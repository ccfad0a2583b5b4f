"""A network that is cut between two hosts: a round goes on without the site, and the site comes back by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai4sdk.testing.helpers import wait_for
from tests.federated.deployed import deployed

COORDINATOR, SITE = "10.213.77.1", "10.213.77.2"
JOIN = """
import sys
from pathlib import Path
from ai4sdk.federated.deploy import serving
from ai4sdk.federated.deploy.connection import connect
from tests.federated.noop import app_of

serving._HEARTBEAT = 0.3
with connect(*sys.argv[1:]) as client:
    tell = lambda kind, number, seconds: None
    serving.serve(client, app_of(), "site-1", agree=lambda: None, check=lambda: None, patience=60, tell=tell)
"""


class Hosts:
    """Two network stacks with a cable between them."""

    def __init__(self) -> None:
        self.name = f"ai4-{os.getpid()}"
        self.ours, theirs = f"a{os.getpid()}", f"b{os.getpid()}"
        self._ip("netns", "add", self.name)
        self._ip("link", "add", self.ours, "type", "veth", "peer", "name", theirs)
        self._ip("link", "set", theirs, "netns", self.name)
        self._ip("addr", "add", f"{COORDINATOR}/24", "dev", self.ours)
        self._ip("link", "set", self.ours, "up")
        self._ip("-n", self.name, "addr", "add", f"{SITE}/24", "dev", theirs)
        self._ip("-n", self.name, "link", "set", theirs, "up")
        self._theirs = theirs

    def cut(self) -> None:
        self._ip("-n", self.name, "link", "set", self._theirs, "down")

    def mend(self) -> None:
        self._ip("-n", self.name, "link", "set", self._theirs, "up")

    def remove(self) -> None:
        self._ip("netns", "del", self.name)

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("making network namespaces takes root and iproute2")
    try:
        found = Hosts()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    yield found
    found.remove()


@pytest.mark.slow
def test_a_cut_costs_the_site_its_round_and_it_comes_back_by_itself(hosts: Hosts, tmp_path: Path) -> None:
    with deployed(tmp_path, 2, gone_after=2.0, host=COORDINATOR) as coordinator:
        (tmp_path / "token").write_text(coordinator.tokens["site-1"])
        site = subprocess.Popen(
            [
                *("ip", "netns", "exec", hosts.name, sys.executable, "-c", JOIN),
                *(f"{COORDINATOR}:{coordinator.port}", str(tmp_path / "tls/ca.pem"), str(tmp_path / "token")),
                str(tmp_path / "site-1.key"),
            ],
            cwd=Path(__file__).parents[2],
        )
        try:
            wait_for(lambda: "site-1" in coordinator.link.nodes(), 60)
            server = coordinator.server(min_sites=1, evaluate="none")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("ai4sdk.federated.deploy.serving._HEARTBEAT", 0.3)
                coordinator.join("site-2")
                wait_for(lambda: len(coordinator.grid.gather(1)) == 2, 30)
                assert set(server.round().answered) == {"site-1", "site-2"}

                hosts.cut()
                began = time.monotonic()
                record = server.round()
                assert list(record.answered) == ["site-2"]
                assert "gone" in record.refused["site-1"]
                assert time.monotonic() - began < 15
                assert server.round().up == ["site-2"]

                hosts.mend()
                wait_for(lambda: len(coordinator.grid.gather(1)) == 2, 60)
                assert set(server.round().answered) == {"site-1", "site-2"}
            coordinator.link.end("done", 20)
            assert site.wait(20) == 0
        finally:
            site.kill()
            site.wait()
