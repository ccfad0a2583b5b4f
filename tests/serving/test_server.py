"""`ai4sdk serve`, asked over HTTP by clients of ours and of others."""

import asyncio
import concurrent.futures
import json
import os
import shutil
import signal
import socket
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from serving.faulty import write_faulty_package

from ai4sdk.errors import DataError
from ai4sdk.serving import server as room
from ai4sdk.spec.serving import Serving
from ai4sdk.testing.helpers import wait_for
from ai4sdk.worker.model import load_model

pytestmark = [pytest.mark.slow, pytest.mark.engine]

ROW = [0.5, 1.0, 2.0, 3.0]


def body(first=0.5):
    return {"inputs": [[first, *ROW[1:]]]}


def raw(server, *parts, wait=0.0, half_close=False):
    """Send bytes as they are; return what comes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(wait)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


def test_every_protocol_says_the_same(server, faulty):
    expected = json.loads((faulty / "golden" / "responses.json").read_text())[0]["predictions"][0]
    golden = json.loads((faulty / "golden" / "requests.json").read_text())[0]
    natural = json.loads(server.ask("/predict", golden).body)["predictions"][0]
    mlflow = json.loads(server.ask("/models/faulty/versions/1/invocations", golden).body)["predictions"][0]
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 4], "data": golden["inputs"][0]}
    v2 = json.loads(server.ask("/v2/models/faulty/infer", {"inputs": [tensor]}).body)["outputs"]
    assert natural == mlflow
    assert natural["prediction"] == expected["prediction"] == v2[0]["data"][0]
    for name, chance in zip("abc", v2[1]["data"], strict=True):
        assert natural["probabilities"][name] == pytest.approx(chance)
        assert natural["probabilities"][name] == pytest.approx(expected["probabilities"][name], abs=1e-5)


def test_triton_s_client_infers(server):
    """An Open Inference Protocol client that is not ours, with JSON and with binary tensors."""
    import tritonclient.http as triton

    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("faulty")
        assert client.get_server_metadata()["name"] == "ai4sdk"
        metadata = client.get_model_metadata("faulty")
        assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
        assert [each["name"] for each in client.get_model_repository_index()] == ["faulty"]
        found = []
        for binary in (True, False):
            given = triton.InferInput("input", [2, 4], "FP32")
            given.set_data_from_numpy(np.array([ROW, ROW[::-1]], np.float32), binary_data=binary)
            wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
            answer = client.infer("faulty", [given], outputs=wanted, request_id="7")
            found.append([answer.as_numpy("label").tolist(), answer.as_numpy("probabilities").tolist()])
        assert [str(label.decode() if isinstance(label, bytes) else label) for label in found[0][0]] == found[1][0]
        assert np.allclose(found[0][1], found[1][1])
        with pytest.raises(triton.InferenceServerException, match="no model 'fault'; there are faulty"):
            client.infer("fault", [given])


def test_large_tensors_of_many_at_once_are_answered_each_with_its_own(server, faulty):
    rows = [np.random.default_rng(seed).normal(size=(5000 + seed, 4)).astype(np.float32) for seed in range(24)]
    model = load_model(faulty, trust_code=True)

    def ask(array):
        tensor = {"name": "input", "datatype": "FP32", "shape": list(array.shape)}
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": array.nbytes}}]}).encode()
        kind, length = "application/octet-stream", str(len(head))
        answer = server.ask(
            "/v2/models/faulty/infer", head + array.tobytes(), kind, inference_header_content_length=length
        )
        assert answer.status == 200, answer.body
        (found,) = (one for one in json.loads(answer.body)["outputs"] if one["name"] == "probabilities")
        return np.reshape(found["data"], found["shape"])

    with concurrent.futures.ThreadPoolExecutor(8) as several:
        for array, found in zip(rows, several.map(ask, rows), strict=True):
            np.testing.assert_allclose(found, model(array).probabilities, rtol=1e-5, atol=1e-6)


def test_mlflow_s_client_asks(server):
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", server.port)
    client.wait_server_ready(timeout=5)
    answer = client.invoke(pd.DataFrame([ROW, ROW], columns=list("wxyz")).to_numpy())
    assert len(answer.get_predictions()) == 2


@pytest.mark.parametrize(
    ("path", "given", "status", "words"),
    [
        ("/nothing", None, 404, "nothing at /nothing"),
        ("/predict", None, 405, "GET is not for /predict; POST is"),
        ("/v2/models/fault/infer", {}, 404, "no model 'fault'; there are faulty"),
        ("/v2/models/faulty/versions/3/infer", {}, 404, "no version '3'; there are 1"),
        ("/v2/models/faulty/versions/3/ready", None, 404, "no version '3'"),
        ("/predict", b"{", 400, "no JSON"),
        ("/predict", body(666.0), 500, "RuntimeError: the pond is empty"),
        ("/predict", body(111.0), 500, "0 predictions for 1 samples"),
        ("/predict", {"inputs": [[1, 2]]}, 400, "shape"),
        ("/predict", {"inputs": [["a", "b", "c", "d"]]}, 400, "sample 1"),
        ("/invocations", {"nothing": 1}, 400, "record"),
        ("/predict", b"x" * 1_000_001, 413, "at most 1000000"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(server, path, given, status, words):
    answer = server.ask(path, given)
    assert answer.status == status
    assert words in answer.body.decode()


def test_an_error_has_its_protocols_form(server):
    assert set(json.loads(server.ask("/v2/models/x/infer", {}).body)) == {"error"}
    assert json.loads(server.ask("/invocations", b"{").body)["error_code"] == "BAD_REQUEST"
    assert server.ask("/predict").headers["allow"] == "POST"


def test_what_is_not_finite_is_null_and_counted(server):
    before = server.metric("ai4sdk_samples_not_finite_total")
    assert json.loads(server.ask("/predict", body(999.0)).body)["predictions"][0]["prediction"] is None
    assert server.metric("ai4sdk_samples_not_finite_total") == before + 1


def test_a_request_keeps_its_id_and_is_logged(server):
    answer = server.ask("/predict", body(), x_request_id="trace-7", x_forwarded_for="203.0.113.9")
    assert answer.headers["x-request-id"] == "trace-7"
    assert server.ask("/predict", body(), x_request_id="a bad id").headers["x-request-id"] != "a bad id"
    time.sleep(0.6)
    line = next(json.loads(line) for line in server.log.splitlines() if '"trace-7"' in line)
    assert (line["method"], line["path"], line["status"]) == ("POST", "/predict", 200)
    assert line["client"] == "203.0.113.9", "what a proxy on this machine says of its client is believed"
    assert line["ms"] > 0
    assert (line["model"], line["version"]) == ("faulty", "1")
    assert answer.headers["x-model-version"] == "1"
    about = json.loads(server.ask("/models/faulty").body)
    assert line.get("run") == about["run"]
    assert "x-model-version" not in server.ask("/health/live").headers


def test_a_chunked_body_is_read_and_limited(server):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    text = json.dumps(body()).encode()
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (text[:9], text[9:])]
    assert b" 200 OK" in raw(server, head, *chunks, b"0\r\n\r\n", wait=0.05)
    assert b" 413 " in raw(server, head, *[b"20000\r\n" + b" " * 0x20000 + b"\r\n"] * 8)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"nonsense\r\n\r\n"], b" 400 "),
        ([b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"], b" 408 "),  # never the rest
        ([b"POST /predict HT"], b""),  # never the rest of the head
        ([b""], b""),  # never anything
        ([b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n"], b" 400 "),
        ([b"POST /predict HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\x1f\x8b"], b" 415 "),
        ([b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nConnection: close\r\n\r\n"], b""),
    ],
)  # fmt: skip
def test_malformed_and_slow_requests_are_ended(server, parts, expected):
    began = time.monotonic()
    found = raw(server, *parts)
    assert expected in found
    assert time.monotonic() - began < 10
    assert server.ask("/health/ready").status == 200


def test_a_client_that_closes_its_half_is_answered(server):
    text = json.dumps(body()).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text)
    assert b" 200 OK" in raw(server, head + text, half_close=True)


def test_openapi_describes_what_is_served(server):
    described = json.loads(server.ask("/openapi.json").body)
    assert described["openapi"].startswith("3.1")
    assert {"/v2/models/faulty/infer", "/models/faulty/predict", "/models/faulty/invocations"} <= set(
        described["paths"]
    )


def test_what_is_not_needed_to_predict_is_not_imported(start, faulty):
    server = start(faulty, "--trust-code", env={"PYTHONPROFILEIMPORTTIME": "1"}).ready()
    assert server.ask("/predict", body()).status == 200
    assert server.stop() == 0
    names = {line.rpartition("|")[2].strip() for line in server.log.splitlines() if line.startswith("import time:")}
    assert {"pytorch_lightning", "ai4sdk.serving.engines"} <= names
    assert not {"torch._dynamo", "scipy.signal", "pandas", "mlflow"} & names


def test_a_process_killed_under_load_loses_nothing_silently(start, faulty):
    server = start(faulty, "--trust-code", "serving.limits.timeout=60").ready()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.ask, "/predict", body()) for _ in range(200)]
        time.sleep(0.05)
        os.kill(server.models()[0], signal.SIGKILL)
        asked += [pool.submit(server.ask, "/predict", body()) for _ in range(50)]
        statuses = Counter(each.result().status for each in asked)
    assert statuses == {200: 250}
    assert server.metric("ai4sdk_process_deaths_total") == 1


def test_it_stops_when_what_is_here_is_answered(start, faulty):
    server = start(faulty, "--trust-code").ready()
    children = server.models()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(server.ask, "/predict", body(222.0)) for _ in range(4)]
        time.sleep(0.2)
        os.kill(server.process.pid, signal.SIGTERM)
        assert {each.result().status for each in slow} == {200}
    assert server.process.wait(20) == 0
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_no_process_outlives_a_server_that_is_killed(start, faulty):
    server = start(faulty, "--trust-code").ready()
    (child,) = server.models()
    server.process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=10)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_a_new_model_takes_over_without_a_lost_request(start, tmp_path, faulty):
    place = tmp_path / "current"
    shutil.copytree(faulty, place)
    server = start(place, "--trust-code").ready()
    before = json.loads(server.ask("/predict", body()).body)
    new = write_faulty_package(tmp_path, seed=1)
    done, found = False, []

    def keep_asking():
        while not done:
            answer = server.ask("/predict", body())
            found.append((answer.status, answer.body))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(keep_asking) for _ in range(2)]
        place.rename(tmp_path / "old")
        shutil.copytree(new, place)
        server.process.send_signal(signal.SIGHUP)
        server.ready(times=2)
        time.sleep(0.3)
        done = True
        for each in asking:
            each.result()
    after = json.loads(server.ask("/predict", body()).body)
    assert {status for status, _ in found} == {200}
    assert after != before

    def flat(answer):
        ((record,),) = answer.values()
        return record.pop("probabilities") | record

    # Two requests that are computed together may differ from one alone in the last bits.
    models = [pytest.approx(flat(each), abs=1e-6) for each in (before, after)]
    answers = [flat(json.loads(text)) for _, text in found]
    assert {tuple(answer == model for model in models) for answer in answers} == {(True, False), (False, True)}
    until = time.monotonic() + 20
    while len(server.models()) > 1 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(server.models()) == 1


def test_a_new_model_that_does_not_load_changes_nothing(start, tmp_path, faulty):
    place = tmp_path / "current"
    shutil.copytree(faulty, place)
    server = start(place, "--trust-code").ready()
    shutil.copytree(write_faulty_package(tmp_path, seed=1), place, dirs_exist_ok=True)
    (place / "weights.safetensors").write_bytes(b"broken")
    server.process.send_signal(signal.SIGHUP)
    server._wait_for("stays what it was.*\n.*")
    assert server.ask("/predict", body()).status == 200


@pytest.fixture
def project(tmp_path):
    """A config that serves two versions of one model and another model."""
    for seed in (0, 1):
        write_faulty_package(tmp_path, seed=seed)
    (tmp_path / ".ai4sdk").touch()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "fish.yaml").write_text(
        "defaults: [base, _self_]\nname: fish\nserving:\n  models:\n    fish:\n      versions:\n"
        "        old: {source: faulty-0, weight: 3, trust_code: true}\n        new: {source: faulty-1, trust_code: true}\n"
        "    bird: {source: faulty-0, trust_code: true}\n"
    )
    return tmp_path


def test_a_look_for_a_new_model_that_fails_in_any_way_changes_nothing(monkeypatch, caplog):
    told = []
    served = room._Server(Serving(models={"a": "b"}), None, None, None, (), told.append)
    wanted = room.Wanted("a", "1", "b", 1.0, False)
    served._served["a", "1"] = None
    for error, words in (
        (DataError("it is damaged"), "it is damaged"),
        (OSError(5, "Input/output error"), "Input/output"),
    ):
        served._sources = SimpleNamespace(find=lambda source, error=error: (_ for _ in ()).throw(error))
        asyncio.run(served._exchange(wanted, asked=True))
        assert words in "".join(told) + caplog.text


def test_versions_stand_side_by_side(start, project):
    server = start("config=fish")
    wait_for(lambda: server.ask("/health/ready").status == 200, 120)  # not before all of them are
    listed = json.loads(server.ask("/").body)["models"]
    assert {name: sorted(versions) for name, versions in listed.items()} == {"fish": ["new", "old"], "bird": ["1"]}
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ROW}
    versions = [
        json.loads(server.ask("/v2/models/fish/infer", {"inputs": [tensor]}).body)["model_version"] for _ in range(40)
    ]
    assert Counter(versions) == {"old": 30, "new": 10}
    assert (
        json.loads(server.ask("/v2/models/fish/versions/new/infer", {"inputs": [tensor]}).body)["model_version"]
        == "new"
    )
    answered = Counter(server.ask("/models/fish/predict", body()).headers["x-model-version"] for _ in range(40))
    assert answered == {"old": 30, "new": 10}
    refused = server.ask("/models/fish/versions/new/predict", {"inputs": [[1.0]]})
    assert (refused.status, refused.headers["x-model-version"]) == (400, "new")
    counts = server.ask("/metrics").body.decode()
    for version, status, count in (("old", 200, 30), ("new", 200, 10), ("new", 400, 1)):
        labels = f'{{model="fish",protocol="natural",status="{status}",version="{version}"}}'
        assert f"ai4sdk_requests_total{labels} {count}.0" in counts
    ambiguous = server.ask("/invocations", body())
    assert ambiguous.status == 404
    assert "fish, bird" in ambiguous.body.decode()


def test_tokens_tls_and_browsers(start, faulty, tmp_path):
    import ssl
    import urllib.request

    from ai4sdk.federated.deploy.certificates import write_certificates

    write_certificates(tmp_path / "tls", ["127.0.0.1"])
    server = start(
        faulty, "--trust-code", "serving.tokens=['${secret:SERVING_TOKEN}']", "serving.origins=['https://portal.example.org']",
        f"++serving.tls={{certificate: {tmp_path}/tls/server.pem, key: {tmp_path}/tls/server.key}}", env={"SERVING_TOKEN": "s3cret-token"},
    ).ready()  # fmt: skip
    context = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.pem"))

    def ask(path, data=None, method=None, **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            request = urllib.request.Request(server.url + path, data, names, method=method)
            with urllib.request.urlopen(request, context=context) as answer:
                return answer.status, dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers)

    data = json.dumps(body()).encode()
    assert ask("/predict", data)[0] == 401
    assert ask("/predict", data)[1]["www-authenticate"] == "Bearer"
    assert ask("/predict", data, Authorization="Bearer wrong")[0] == 401
    assert ask("/predict", data, Authorization="Basic s3cret-token")[0] == 401
    assert ask("/predict", data, Authorization="Bearer s3cret-token")[0] == 200
    assert ask("/metrics")[0] == 401
    assert ask("/health/ready")[0] == 200
    status, headers = ask(
        "/predict", None, "OPTIONS", Origin="https://portal.example.org", Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization",
    )  # fmt: skip
    assert (status, headers["access-control-allow-origin"]) == (200, "https://portal.example.org")
    assert "access-control-allow-origin" not in ask("/health/live", None, None, Origin="https://evil.example.org")[1]
    assert "s3cret-token" not in server.log


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["nowhere"], 6, "nowhere"),
        (["config=quickstart", "nowhere"], 2, "both nowhere and config=quickstart"),
        (["serving.models.x=y"], 2, "ai4sdk serve config=NAME serving.models.x=y"),
        (["config=fish", "serving.portt=3"], 2, "serving.port"),
        # and not also that nothing is to be trained
        (["config=fish", "serving.port=70000"], 2, "1 problem in the config:\ncommand line: serving.port=70000\n    serving.port must be at most 65535"),
        (["config=fish", "serving.models.fish.versions.old.weight=0", "serving.models.fish.versions.new.weight=0"], 2, "weight 0"),
        (["config=fish", "++serving.tls={certificate: no.pem, key: no.key}", "serving.port=0"], 7, "serving.tls cannot be used"),
        (["config=fish", "serving.tokens=['${secret:NO_SUCH_TOKEN}']", "serving.port=0"], 7, "NO_SUCH_TOKEN is not set"),
        (["config=fish", "serving.host=192.0.2.7", "serving.port=0"], 7, "cannot listen at 192.0.2.7:0: Cannot assign requested address\n  → serving.host"),
        (["config=fish", "serving.models.fish.versions.old.source=gone", "serving.port=0"], 6, "gone"),
        (["--trust-code", "config=fish"], 2, "serving.models.NAME.trust_code=true"),
    ],
)  # fmt: skip
def test_mistakes_end_with_a_word_and_a_status(project, argv, status, words):
    import subprocess
    import sys

    command = [sys.executable, "-m", "ai4sdk", "serve", *argv]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
