"""With a real MLflow server: a user of its page sees the whole run, and its death costs the run nothing."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.tracking import pending, sync, tracking_uri_of

from .conftest import STARTED, Server, client_of, expected_history, free_port, history, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.engine]


def rest(server: Server, method: str, **query: Any) -> Any:
    """Ask the server as its own page does."""
    import requests

    answer = requests.get(f"{server.uri}/ajax-api/2.0/mlflow/{method}", params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_page_shows_the_whole_run(make_run: Any, server: Server) -> None:
    run = make_run(uri=server.uri, experiment="fish/count", register_as="digits", alias="champion")
    for step in range(0, 100, 10):
        run.log(step, loss=1 - step / 100)
    run.log(100, **{"val/acc": 0.9})
    run.leave_results()
    run.end()
    run.ship()
    assert run.ledger["finished"], run.said
    run_id = run.ledger["run_id"]

    found = rest(server, "runs/get", run_id=run_id)["run"]
    info, data = found["info"], found["data"]
    assert (info["run_name"], info["status"]) == (run.paths.id, "FINISHED")
    assert (info["start_time"], info["end_time"]) == (int(STARTED * 1000), int((STARTED + 60) * 1000))
    tags = {tag["key"]: tag["value"] for tag in data["tags"]}
    assert tags["team"] == "vision"
    assert tags["mlflow.user"] == "ana"
    assert tags["mlflow.source.name"] == "ai4sdk run config=digits"
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert tags["mlflow.note.content"] == "Handwritten digits."
    assert tags["ai4sdk.run_id"] == run.paths.id
    params = {param["key"]: param["value"] for param in data["params"]}
    assert params["module._target_"] == "classifier.Net"
    assert params["module.layers"] == "[32, 16]"
    assert params["dataset.loader.batch_size"] == "64"
    assert params["storage.password"] == "${secret:NEXTCLOUD}"
    assert params["storage.username"] == "***"

    points = rest(server, "metrics/get-history", run_id=run_id, metric_key="loss")["metrics"]
    assert [(int(point["step"]), point["timestamp"]) for point in points] == [
        (step, int(STARTED * 1000) + step) for step in range(0, 100, 10)
    ]
    figures = {metric["key"]: metric["value"] for metric in data["metrics"]}
    assert figures["test/accuracy"] == 0.975
    assert figures["test/macro_average/f1"] == 0.97
    assert figures["test/classes/a_b/recall"] == 0.5
    assert "test/roc_auc" not in figures

    (dataset,) = found["inputs"]["dataset_inputs"]
    assert dataset["dataset"]["name"] == "digits.npz"
    assert dataset["dataset"]["digest"] == "f" * 36
    assert '"num_rows": 1797' in dataset["dataset"]["profile"]
    assert "mlflow_tensorspec" in dataset["dataset"]["schema"]
    assert {"key": "mlflow.data.context", "value": "training"} in dataset["tags"]

    def listed(path: str = "") -> set[str]:
        files = rest(server, "artifacts/list", run_id=run_id, **({"path": path} if path else {})).get("files", [])
        return {file["path"] for file in files}

    assert {"plan.json", "config.yaml", "report.html", "events.jsonl", "environment"} <= listed()
    assert listed("evaluation") == {"evaluation/metrics.json", "evaluation/confusion.png"}
    assert listed("logs") == {"logs/train.log"}
    assert listed("environment") == {"environment/environment.json", "environment/requirements.txt"}


def test_the_model_is_in_the_registry_and_loads(make_run: Any, server: Server) -> None:
    import mlflow
    import pandas as pd

    run = make_run(uri=server.uri, register_as="fish counter", alias="champion")
    run.log(7, loss=0.5)
    run.leave_results()
    before = {file.name: file.read_bytes() for file in run.paths.package.iterdir() if file.is_file()}
    run.end()
    run.ship()
    assert run.ledger["finished"], run.said
    assert {file.name: file.read_bytes() for file in run.paths.package.iterdir() if file.is_file()} == before

    client = client_of(server.uri)
    version = client.get_model_version_by_alias("fish counter", "champion")
    model = client.get_logged_model(run.ledger["model"]["id"])
    assert (version.run_id, version.source) == (run.ledger["run_id"], f"models:/{model.model_id}")
    assert (model.source_run_id, str(model.status), model.model_type) == (
        run.ledger["run_id"],
        "READY",
        "classification",
    )
    assert model.params["seed"] == "42"
    metrics = {metric.key: metric.value for metric in model.metrics}
    assert metrics["test/accuracy"] == 0.975
    for uri in (f"models:/{model.model_id}", "models:/fish counter@champion", "models:/fish counter/1"):
        loaded = mlflow.pyfunc.load_model(uri)
        assert loaded.metadata.signature is not None
        assert (loaded.metadata.model_id, loaded.metadata.run_id) == (model.model_id, run.ledger["run_id"])
        assert loaded.predict(pd.DataFrame({"x": [21.0]}))["x"].tolist() == [42.0]


def test_the_store_in_a_file_opens_in_mlflows_own_page(make_run: Any, tmp_path: Path) -> None:
    import requests

    run = make_run(folder="my runs")
    run.log(1, loss=0.5)
    run.leave_results()
    run.end()
    run.ship()
    run_id = run.ledger["run_id"]
    page = Server(tmp_path, tracking_uri_of(run.paths.root))
    page.start()
    try:
        assert rest(page, "runs/get", run_id=run_id)["run"]["info"]["status"] == "FINISHED"
        files = rest(page, "artifacts/list", run_id=run_id, path="evaluation")["files"]
        assert [file["path"] for file in files] == ["evaluation/confusion.png", "evaluation/metrics.json"]
        report = requests.get(f"{page.uri}/get-artifact", {"run_uuid": run_id, "path": "report.html"}, timeout=30)
        assert report.text == "<html>report</html>"
        model = f"{page.uri}/ajax-api/2.0/mlflow/logged-models/{run.ledger['model']['id']}/artifacts/directories"
        listed = requests.get(model, timeout=30).json()["files"]
        assert "MLmodel" in {file["path"] for file in listed}
    finally:
        page.kill()


def test_a_server_killed_in_the_middle_gets_everything_when_it_is_back(make_run: Any, server: Server) -> None:
    run = make_run(uri=server.uri)
    for step in range(50):
        run.log(step, loss=step)
    shipper = run.start_shipper()
    wait_until(lambda: run.ledger.get("offset"), "the first records")
    server.kill()
    try:
        for step in range(50, 150):
            run.log(step, loss=step)
        wait_until(lambda: run.ledger.get("last_error"), "the complaint")
        assert "does not answer" in run.ledger["last_error"]
        assert run.ledger["pending"] >= 100
    finally:
        server.start()
    for step in range(150, 200):
        run.log(step, loss=step)
    run.end()
    assert shipper.wait(timeout=120) == 0
    assert run.ledger["finished"], run.said
    assert run.ledger["last_error"] is None
    assert history(client_of(server.uri), run.ledger["run_id"]) == expected_history(run.paths.metrics)
    assert run.said.count("does not answer") == 1


def test_what_a_dead_server_missed_is_caught_up_later(make_run: Any, server: Server) -> None:
    run = make_run(uri=server.uri)
    run.log(1, loss=0.5)
    run.leave_results()
    server.kill()
    try:
        run.end()
        run.ship("--patience", "1")
        assert not run.ledger["finished"]
        assert pending(run.paths.root) == run.ledger["pending"] >= 5
        assert f"`ai4sdk sync {run.paths.id}` sends them" in run.said
        report = sync(run.paths.root, patience=1)
        assert report.sent == 0
        assert report.pending == pending(run.paths.root)
        assert report.problem is not None
        assert "does not answer: connection refused" in report.problem
    finally:
        server.start()
    report = sync(run.paths.root)
    assert (report.pending, report.problem) == (0, None)
    assert report.sent >= 5
    assert history(client_of(server.uri), str(report.mlflow_run_id)) == expected_history(run.paths.metrics)
    assert sync(run.paths.root).sent == 0


def test_an_address_where_nobody_listens_costs_a_bounded_time(make_run: Any) -> None:
    run = make_run(uri=f"http://127.0.0.1:{free_port()}")
    run.log(1, loss=0.5)
    shipper = run.start_shipper("--patience", "2")
    wait_until(lambda: run.ledger.get("last_error"), "the complaint")
    assert shipper.poll() is None, "it keeps trying while the run is alive"
    run.end()
    assert shipper.wait(timeout=60) == 0
    assert "does not answer: connection refused" in run.ledger["last_error"]
    assert run.ledger["pending"] > 0


def test_a_server_that_takes_calls_and_says_nothing_costs_a_bounded_time(make_run: Any) -> None:
    import socket

    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(64)
        run = make_run(uri=f"http://127.0.0.1:{mute.getsockname()[1]}")
        run.log(1, loss=0.5)
        run.end()
        run.ship("--patience", "1", env={"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"})
    assert "does not answer: it timed out" in run.ledger["last_error"]


class _Gate(http.server.BaseHTTPRequestHandler):
    """A gate in front of a server, as sites have: it asks for a password."""

    seen: list[str | None] = []

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"<html>401 Authorization Required</html>")

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def gate() -> Iterator[str]:
    _Gate.seen.clear()
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Gate)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_address[1]}"
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_wrong_credentials_are_said_once_and_never_shown(make_run: Any, gate: str) -> None:
    run = make_run(uri=gate, username="${secret:WHO}", password="${secret:PASS}")
    run.log(1, loss=0.5)
    started = time.monotonic()
    shipper = run.start_shipper(env={"WHO": "ana", "PASS": "open-sesame-77"})
    wait_until(lambda: run.ledger.get("last_error"), "the complaint")
    run.end()
    assert shipper.wait(timeout=60) == 0
    assert time.monotonic() - started < 60
    assert "does not accept the credentials given" in run.ledger["last_error"]
    assert "tracking.password" in run.ledger["last_error"]
    assert run.said.count("WARNING http") == 1
    assert _Gate.seen[0] == "Basic YW5hOm9wZW4tc2VzYW1lLTc3"
    for file in run.paths.root.rglob("*"):
        if file.is_file():
            assert b"open-sesame-77" not in file.read_bytes(), file
    assert b"open-sesame-77" not in (run.paths.root.parent.parent / "stderr.txt").read_bytes()


def test_a_token_goes_as_a_bearer_token(make_run: Any, gate: str) -> None:
    run = make_run(uri=gate, token="${secret:TOKEN}")
    run.end()
    run.ship(env={"TOKEN": "t0ken-t0ken"})
    assert _Gate.seen[0] == "Bearer t0ken-t0ken"


def test_a_secret_that_is_not_set_is_named(make_run: Any, gate: str) -> None:
    run = make_run(uri=gate, token="${secret:NO_SUCH_TOKEN}")
    run.end()
    run.ship()
    assert "NO_SUCH_TOKEN" in run.ledger["last_error"]
    assert _Gate.seen == []
