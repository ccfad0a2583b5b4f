"""A coordinator's SuperLink in this process, sites that do next to nothing, and strangers, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from flwr.app import Context, Message

from ai4sdk.federated.deploy.certificates import load_or_make_key, read_certificate, write_certificates
from ai4sdk.federated.deploy.client import SiteClient
from ai4sdk.federated.deploy.grid import DeployedGrid
from ai4sdk.federated.deploy.serving import serve
from ai4sdk.federated.deploy.superlink import SuperLink
from ai4sdk.federated.deploy.tokens import Registry
from ai4sdk.federated.ledger import Ledger
from ai4sdk.federated.rounds import Server
from ai4sdk.federated.strategies import make_strategy
from ai4sdk.spec.deployment import Listen
from ai4sdk.spec.federation import Federation
from ai4sdk.worker.signals import StopRequest, StopTraining
from tests.federated.noop import INITIAL, app_of


class Deployed:
    """A coordinator with tokens for some sites; certificates, tokens and keys lie in a folder.

    Parameters
    ----------
    folder
        Gets everything.
    sites
        How many.
    gone_after
        Seconds of silence after which a site is gone; less than YAML may say.
    host
        Address to listen at.
    enough, later
        See `ai4sdk.federated.deploy.grid.DeployedGrid`.
    listen
        Settings of the section.
    """

    def __init__(
        self,
        folder: Path,
        sites: int = 4,
        gone_after: float = 20.0,
        host: str = "127.0.0.1",
        enough: int | None = None,
        later: int = 0,
        **listen: Any,
    ) -> None:
        self.folder, self.gone_after, self.host, self.enough, self.later = folder, gone_after, host, enough, later
        if not (folder / "tls").exists():
            write_certificates(folder / "tls", ["localhost", host])
        self.registry = Registry(folder / "tokens.json")
        self.names = [f"site-{number}" for number in range(1, sites + 1)]
        self.tokens: dict[str, str] = {}
        for name in self.names:
            self.tokens[name] = self.registry.issue(name, 3600)[1]
        settings: dict[str, Any] = {"certificate": "-", "key": "-", "wait": 20.0, "deadline": 20.0}
        self.settings = Listen(**{**settings, **listen})
        self.errors: dict[str, BaseException] = {}
        self.stops: dict[str, StopRequest] = {}
        self.threads: list[threading.Thread] = []
        self.ended = False
        self.start()

    def start(self, port: int = 0) -> None:
        """Listen."""
        self.link = SuperLink(self.registry, {"terms": {}}, self.gone_after)
        self.grid = DeployedGrid(self.link, self.settings, StopRequest(), self.enough, self.later)
        files = (self.folder / "tls/server.pem", self.folder / "tls/server.key")
        self.port = self.link.start(f"{self.host}:{port}", *read_certificate(*files))

    def server(self, **federation: Any) -> Server:
        """Make what does the rounds."""
        how = Federation(**{"min_sites": len(self.names), **federation})
        server = Server(how, 1, make_strategy(how.strategy), self.grid, Ledger(self.folder / "ledger"))
        server.begin(INITIAL)
        return server

    def client(self, site: str, *, token: str | None = None, key: str | None = None) -> SiteClient:
        """Connect as a site, with its token and key or another's."""
        private = load_or_make_key(self.folder / f"{key or site}.key")
        authority = (self.folder / "tls/ca.pem").read_bytes()
        return SiteClient(f"{self.host}:{self.port}", authority, token or self.tokens[site], private)

    def join(self, site: str, app: Callable[[Message, Context], Message] | None = None, patience: float = 30.0) -> None:
        """Have a site take part, in a thread."""
        stop = self.stops[site] = StopRequest()

        def run() -> None:
            try:
                with self.client(site) as client:
                    serve(
                        client,
                        app or app_of(),
                        site,
                        agree=lambda: None,
                        check=stop.check,
                        patience=patience,
                        tell=lambda kind, number, seconds: None,
                    )
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                if not (self.ended and isinstance(error, StopTraining)):  # too busy to hear of the end in time
                    self.errors[site] = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)

    def end(self) -> None:
        """End the federation."""
        self.link.end("done", 1.0)
        self.ended = True
        for stop in self.stops.values():
            stop.ask()
        for thread in self.threads:
            thread.join(10)
        self.link.stop()


@contextmanager
def deployed(folder: Path, sites: int = 4, **settings: Any) -> Iterator[Deployed]:
    """Make a coordinator, and end it."""
    found = Deployed(folder, sites, **settings)
    try:
        yield found
    finally:
        found.end()


def code_of(call: Any, *arguments: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    """Return with what status a raw request is refused, and why."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""
