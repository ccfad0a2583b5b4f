"""kill -9 of a coordinator and of its sites at random moments, and the same weights as if nothing had happened.

    python benchmarks/kills_over_tls.py [--rounds 30] [--kills 200] [--sites 4]

Each is a process of its own, over TLS, with keys and tokens; whoever is killed is started again. Sites move the weights
a bit, as the round and their name say. It ends with status 1 if a round is lost, a weight differs, or a site does not
end by itself.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

STRATEGY = "fedadam"
COORDINATOR = "coordinator"


def moving_app(name: str) -> Any:
    """Return a site that moves weights as its name and the round say."""
    import numpy as np
    from flwr.app import Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    from ai4sdk.federated.weights import from_records, to_record

    app = ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        records = message.content.array_records
        draw = np.random.default_rng([message.content.config_records["config"]["server-round"], *name.encode()])
        moved = {k: (a + draw.normal(size=a.shape)).astype(a.dtype) for k, a in from_records(records["arrays"]).items()}
        answer = {"arrays": to_record(moved), "buffers": records["buffers"]}
        return Message(RecordDict({**answer, "metrics": MetricRecord({"num-examples": 10})}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Any, context: Any) -> Any:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 1.0})}), reply_to=message)

    return app


def initial() -> Any:
    """Return the weights that everything begins with."""
    import numpy as np

    from ai4sdk.federated.weights import State

    return State({"w": np.linspace(-1, 1, 1000, dtype=np.float32)}, {})


def lead(folder: str, port: str, rounds: str, sites: str) -> None:
    """Do what is left of the rounds."""
    from ai4sdk.federated.deploy.certificates import read_certificate
    from ai4sdk.federated.deploy.grid import DeployedGrid
    from ai4sdk.federated.deploy.superlink import SuperLink
    from ai4sdk.federated.deploy.tokens import Registry
    from ai4sdk.federated.ledger import Ledger
    from ai4sdk.federated.rounds import Server
    from ai4sdk.federated.strategies import make_strategy
    from ai4sdk.spec.deployment import Listen
    from ai4sdk.spec.federation import Federation
    from ai4sdk.worker.signals import StopRequest

    here = Path(folder)
    link = SuperLink(Registry(here / "tokens.json"), {"terms": {}}, 10.0)
    grid = DeployedGrid(link, Listen(certificate="-", key="-", wait=120.0, deadline=120.0), StopRequest())
    link.start(f"127.0.0.1:{port}", *read_certificate(here / "tls/server.pem", here / "tls/server.key"))
    how = Federation(min_sites=int(sites), strategy=STRATEGY, retries=50)
    server = Server(how, 1, make_strategy(how.strategy), grid, Ledger(here / "ledger"))
    server.begin(initial())
    while len(server.done) <= int(rounds):
        server.round()
        time.sleep(0.3)
    link.end("all rounds are made", 20)
    link.stop()


def take_part(folder: str, port: str, name: str) -> None:
    """Take part as a site."""
    from ai4sdk.federated.deploy.connection import connect
    from ai4sdk.federated.deploy.serving import serve

    here = Path(folder)
    files = (here / "tls/ca.pem", here / f"{name}.token", here / f"{name}.key")
    with connect(f"localhost:{port}", *map(str, files)) as client:
        serve(
            client,
            moving_app(name),
            name,
            agree=lambda: None,
            check=lambda: None,
            patience=300.0,
            tell=lambda kind, number, seconds: time.sleep(0.2),
        )


def undisturbed(folder: Path, names: list[str], rounds: int) -> Any:
    """Return the weights of the same federation within one process."""
    from flwr.clientapp import ClientApp

    from ai4sdk.federated.app import SITE
    from ai4sdk.federated.inline import InlineGrid
    from ai4sdk.federated.ledger import Ledger
    from ai4sdk.federated.rounds import Server
    from ai4sdk.federated.strategies import make_strategy
    from ai4sdk.spec.federation import Federation

    class Each(ClientApp):
        def __call__(self, message: Any, context: Any) -> Any:
            return moving_app(str(context.node_config[SITE]))(message, context)

    how = Federation(min_sites=len(names), strategy=STRATEGY)
    server = Server(how, 1, make_strategy(how.strategy), InlineGrid(Each(), names), Ledger(folder / "alone"))
    server.begin(initial())
    for _ in range(rounds):
        server.round()
    return server.state


def main() -> int:
    if sys.argv[1:2] == ["--lead"]:
        lead(*sys.argv[2:])
        return 0
    if sys.argv[1:2] == ["--site"]:
        take_part(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--sites", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), args.rounds, args.kills, args.sites)


def run(folder: Path, rounds: int, kills: int, sites: int) -> int:
    from ai4sdk.federated.deploy.certificates import write_certificates
    from ai4sdk.federated.deploy.tokens import Registry
    from ai4sdk.federated.ledger import Ledger

    logging.getLogger("flwr").setLevel(logging.WARNING)
    write_certificates(folder / "tls", ["localhost"])
    registry = Registry(folder / "tokens.json")
    names = [f"site-{number}" for number in range(1, sites + 1)]
    for name in names:
        (folder / f"{name}.token").write_text(registry.issue(name)[1])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])

    def start(name: str) -> subprocess.Popen[bytes]:
        leads = ["--lead", str(folder), port, str(rounds), str(sites)]
        argv = leads if name == COORDINATOR else ["--site", str(folder), port, name]
        quiet = subprocess.DEVNULL
        return subprocess.Popen([sys.executable, __file__, *argv], stdout=quiet, stderr=quiet)

    everybody = [COORDINATOR, *names]
    processes = {name: start(name) for name in everybody}
    killed: Counter[str] = Counter()
    draw, began = random.Random(1), time.monotonic()
    while processes[COORDINATOR].poll() is None:
        time.sleep(draw.uniform(0.2, 2.5))
        name = draw.choice(everybody)
        if killed.total() < kills and processes[COORDINATOR].poll() is None and processes[name].poll() is None:
            processes[name].send_signal(signal.SIGKILL)
            processes[name].wait()
            processes[name] = start(name)
            killed[name] += 1
    ended = {name: process.wait(60) for name, process in processes.items()}
    ledger, alone = Ledger(folder / "ledger"), undisturbed(folder, names, rounds)
    done = len(ledger.rounds()) - 1
    state, _ = ledger.state(done)
    same = all(state.parameters[name].tobytes() == array.tobytes() for name, array in alone.parameters.items())
    print(f"{killed.total()} kills ({killed[COORDINATOR]} of the coordinator) in {time.monotonic() - began:.0f} s")
    print(f"{done} of {rounds} rounds, the same weights: {same}, ended with {ended}")
    return 0 if done == rounds and same and not any(ended.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
