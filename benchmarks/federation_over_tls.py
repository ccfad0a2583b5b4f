"""What a round costs between institutions: sites in processes of their own, over TLS, with keys and tokens.

    python benchmarks/federation_over_tls.py [--sites 4] [--rounds 20] [--parameters 1000] [--flower]

Sites send back what they were sent, so that all that is timed is overhead: a training and a validation a round, as a
federation does. With ``--flower`` the same app and strategy run on Flower's own SuperLink and SuperNodes on this
machine, with TLS and keys, and what a round takes there is printed beside it.

Aim: at most 1 s of overhead a round with four sites.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def noop_app() -> Any:
    """Return a site that sends back what it was sent."""
    from flwr.app import Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        records = dict(message.content.array_records)
        return Message(RecordDict({**records, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Any, context: Any) -> Any:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 1.0})}), reply_to=message)

    return app


def site(address: str, ca: str, token: str, key: str, name: str) -> None:
    """Take part as a site, until the federation ends."""
    from ai4sdk.federated.deploy.connection import connect
    from ai4sdk.federated.deploy.serving import serve

    with connect(address, ca, token, key) as client:
        serve(
            client,
            noop_app(),
            name,
            agree=lambda: None,
            check=lambda: None,
            patience=60.0,
            tell=lambda kind, number, seconds: None,
        )


def ours(folder: Path, sites: int, rounds: int, parameters: int) -> list[float]:
    """Return the seconds that each round took."""
    import numpy as np

    from ai4sdk.federated.deploy.certificates import read_certificate, write_certificates
    from ai4sdk.federated.deploy.grid import DeployedGrid
    from ai4sdk.federated.deploy.superlink import SuperLink
    from ai4sdk.federated.deploy.tokens import Registry
    from ai4sdk.federated.ledger import Ledger
    from ai4sdk.federated.rounds import Server
    from ai4sdk.federated.strategies import make_strategy
    from ai4sdk.federated.weights import State
    from ai4sdk.spec.deployment import Listen
    from ai4sdk.spec.federation import Federation
    from ai4sdk.worker.signals import StopRequest

    logging.getLogger("flwr").setLevel(logging.WARNING)
    write_certificates(folder / "tls", ["localhost"])
    registry = Registry(folder / "tokens.json")
    link = SuperLink(registry, {"terms": {}}, 60.0)
    grid = DeployedGrid(link, Listen(certificate="-", key="-"), StopRequest())
    port = link.start("127.0.0.1:0", *read_certificate(folder / "tls/server.pem", folder / "tls/server.key"))
    processes = []
    for number in range(sites):
        name = f"site-{number}"
        (folder / f"{name}.token").write_text(registry.issue(name)[1])
        files = [folder / "tls/ca.pem", folder / f"{name}.token", folder / f"{name}.key"]
        argv = ["--site", f"localhost:{port}", *map(str, files), name]
        processes.append(subprocess.Popen([sys.executable, __file__, *argv]))
    how = Federation(min_sites=sites)
    server = Server(how, 1, make_strategy(how.strategy), grid, Ledger(folder / "ledger"))
    server.begin(State({"w": np.zeros(parameters, np.float32)}, {}))
    grid.gather(sites)
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        server.round()
        taken.append(time.perf_counter() - began)
    link.end("done")
    link.stop()
    for process in processes:
        process.wait(20)
    return taken


APP = {
    "pyproject.toml": """
[project]
name = "noop"
version = "1.0.0"
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "noop.server:app"
clientapp = "noop.client:app"
[tool.flwr.app.config]
""",
    "noop/__init__.py": "",
    "noop/client.py": """
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    records = dict(message.content.array_records)
    return Message(RecordDict({**records, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)
@app.evaluate()
def evaluate(message, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 1.0})}), reply_to=message)
""",
    "noop/server.py": """
import json, time
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
app = ServerApp()
class Timed(FedAvg):
    times = []
    def configure_train(self, *a, **k):
        self.times.append(time.time())
        return super().configure_train(*a, **k)
@app.main()
def main(grid, context):
    strategy = Timed(min_available_nodes=SITES, min_train_nodes=SITES, min_evaluate_nodes=SITES)
    strategy.start(grid=grid, initial_arrays=ArrayRecord([np.zeros(PARAMETERS, np.float32)]), num_rounds=ROUNDS)
    Timed.times.append(time.time())
    open("RESULT", "w").write(json.dumps(Timed.times))
""",
}


def flower(folder: Path, sites: int, rounds: int, parameters: int) -> list[float]:
    """Return the seconds that each round took with Flower's own programs."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    from ai4sdk.federated.deploy.certificates import write_certificates

    write_certificates(folder / "tls", ["localhost", "127.0.0.1"])
    app, result = folder / "app", folder / "times.json"
    for name, text in APP.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        for word, value in (("SITES", sites), ("PARAMETERS", parameters), ("ROUNDS", rounds), ("RESULT", result)):
            text = text.replace(word, str(value))
        (app / name).write_text(text)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        f'root-certificates = "{folder}/tls/ca.pem"\n'
    )
    environment = {
        **os.environ,
        **{"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"},
    }
    tls = [f"--ssl-ca-certfile={folder}/tls/ca.pem", f"--ssl-certfile={folder}/tls/server.pem"]
    tls.append(f"--ssl-keyfile={folder}/tls/server.key")
    with contextlib.ExitStack() as stack:

        def start(name: str, *argv: str) -> None:
            log = stack.enter_context(open(folder / f"{name}.log", "w"))
            process = subprocess.Popen(
                [shutil.which(argv[0]) or argv[0], *argv[1:]],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            stack.callback(_end, process)

        link = ["--host", "127.0.0.1", "--port", str(port), "--enable-supernode-auth"]
        start("superlink", "flower-superlink", *tls, *link, "--disable-runtime-dependency-installation")
        _until_open(port)
        for number in range(sites):
            key = ec.generate_private_key(ec.SECP384R1())
            private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            (folder / f"node-{number}.key").write_bytes(private)
            (folder / f"node-{number}.pub").write_bytes(
                key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            )
            subprocess.run(
                [shutil.which("flwr") or "flwr", "supernode", "register", str(folder / f"node-{number}.pub"), "here"],
                env=environment,
                check=True,
            )
            argv = ["flower-supernode", f"--superlink=127.0.0.1:{port}", f"--root-certificates={folder}/tls/ca.pem"]
            argv += [f"--auth-supernode-private-key={folder}/node-{number}.key", f"--port={port + 1 + number}"]
            start(f"supernode-{number}", *argv)
        subprocess.run([shutil.which("flwr") or "flwr", "run", str(app), "here"], env=environment, check=True)
        until = time.monotonic() + 60 + 60 * rounds
        while not result.exists() and time.monotonic() < until:
            time.sleep(0.5)
        times = json.loads(result.read_text())
    return [after - before for before, after in itertools.pairwise(times)]


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
        process.wait(10)


def _until_open(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise TimeoutError("the SuperLink does not listen")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def main() -> None:
    if sys.argv[1:2] == ["--site"]:
        site(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--parameters", type=int, default=1000)
    parser.add_argument("--flower", action="store_true", help="Flower's own programs, too, for three rounds")
    args = parser.parse_args()
    with _folder() as folder:
        _show("ours", ours(folder, args.sites, args.rounds, args.parameters))
    if args.flower:
        with _folder() as folder:
            _show("Flower's SuperLink and SuperNodes", flower(folder, args.sites, 3, args.parameters))


def _show(what: str, taken: list[float]) -> None:
    middle, worst = statistics.median(taken), max(taken)
    print(f"{what}: {len(taken)} rounds, {middle:.3f} s a round in the median, {worst:.3f} s at most")


if __name__ == "__main__":
    main()
