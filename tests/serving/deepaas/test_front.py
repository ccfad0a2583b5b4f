"""`ai4sdk serve` speaks DEEPaaS: for modules in their own environments and for packages of ours, beside other protocols."""

from __future__ import annotations

import json
import signal

import pytest

from ai4sdk.testing.helpers import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.engine]


def form(name, file, content, kind):
    body = (
        f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: {kind}\r\n\r\n'
    ).encode()
    return body + content + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"


@pytest.fixture
def endpoint(start, make_package, environment, write):
    """A server of a package and of a module, on a config."""

    def serve(*overrides, package=True, env=None):
        lines = ["defaults: [base, _self_]", "name: both", "serving:"]
        if package:
            folder = make_package("fish", column_names=["a", "b", "c", "d"], class_names=["x", "y", "z"])
            lines += ["  models:", f"    fish: {{source: {folder}, trust_code: true}}"]
        lines += ["  modules:", f"    water: {{environment: {environment}, module: pond}}"]
        write({".ai4sdk": "", "configs/both.yaml": "\n".join(lines) + "\n"})
        return start("config=both", *overrides, env=env)

    return serve


def test_a_module_and_a_package_are_served_side_by_side(endpoint):
    server = endpoint()
    server._wait_for(r"water is ready \(Python 3")
    assert "pond/0: pond is warm" in server.log
    assert server.ask("/health/ready").status == 200
    models = json.loads(server.ask("/v2/models/").body)["models"]
    assert sorted(model["name"] for model in models) == ["fish", "pond"]
    # the module, by its own environment
    body, kind = form("data", "a.txt", b"hello", "text/plain")
    answer = server.ask("/v2/models/water/predict/?n=4", body, kind)
    assert json.loads(answer.body)["predictions"]["data"] == ["data", "a.txt", "text/plain", "hello"]
    numpy = json.loads(server.ask("/v2/models/water/predict/?mode=numpy", b"").body)["predictions"]
    assert numpy["version"].startswith("1.")
    # the package, by DEEPaaS and, as ever, by the Open Inference Protocol
    answer = json.loads(server.ask("/v2/models/fish/predict/?a=1&b=2&c=3&d=4", b"").body)
    assert answer["status"] == "OK"
    assert sorted(answer["labels"]) == ["x", "y", "z"]
    assert server.ask("/v2/models/fish/predict/?a=1", b"").status == 422
    assert json.loads(server.ask("/v2/models/fish/predict/?a=1", b"").body) == {
        "b": ["Missing data for required field."]
    }
    body, kind = form("data", "t.csv", b"a,b,c,d\n1,2,3,4\n5,6,7,8\n", "text/csv")
    assert len(json.loads(server.ask("/v2/models/fish/predict/", body, kind).body)["predictions"]) == 2
    assert json.loads(server.ask("/v2/models/fish").body)["platform"] == "ai4sdk_torch"
    assert json.loads(server.ask("/v2/models/fish/").body)["name"] == "fish"
    assert server.ask("/v2/models/fish/train/", b"", method="POST").status == 501
    assert json.loads(server.ask("/").body)["modules"] == {"water": {"ready": True}}
    assert (
        'ai4sdk_requests_total{model="water",protocol="deepaas",status="200",version=""}'
        in server.ask("/metrics").body.decode()
    )
    swagger = json.loads(server.ask("/swagger.json").body)
    assert {"/v2/models/fish/predict/", "/v2/models/water/predict/"} <= set(swagger["paths"])
    assert b"<form" in server.ask("/api").body


def test_a_training_goes_on_while_the_server_is_started_anew(endpoint, tmp_path):
    server = endpoint(package=False)
    server._wait_for(r"water is ready")
    begun = json.loads(server.ask("/v2/models/water/train/?epochs=2&seconds=60", b"").body)
    assert begun["status"] == "running"
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server = endpoint(package=False)
    server._wait_for(r"water is ready")
    (record,) = json.loads(server.ask("/v2/models/water/train/").body)
    assert record == begun
    gone = json.loads(server.ask(f"/v2/models/water/train/{begun['uuid']}", method="DELETE").body)
    assert gone["status"] == "cancelled"
    assert (tmp_path / "trainings" / "water" / begun["uuid"] / "log.txt").is_file()


def test_a_module_that_cannot_be_started_again_makes_the_server_unready(endpoint, environment, tmp_path):
    server = endpoint("serving.trainable=false", package=False, env={"POND_WARM_FILE": str(tmp_path / "dry")})
    server._wait_for(r"water is ready")
    assert server.ask("/health/ready").status == 200
    assert server.ask("/v2/models/water/train/?epochs=1", b"").status == 402
    (tmp_path / "dry").touch()
    assert server.ask("/v2/models/water/predict/?mode=abort", b"").status == 500
    server._wait_for(r"pond: warm failed: RuntimeError: no water")
    assert server.ask("/health/ready").status == 503
    (tmp_path / "dry").unlink()
    wait_for(lambda: server.ask("/health/ready").status == 200, 30)


def test_limits_of_the_front_hold_for_modules(endpoint):
    server = endpoint("serving.limits.body=1KB", "+serving.modules.water.timeout=2", package=False)
    server._wait_for(r"water is ready")
    body, kind = form("data", "a.txt", b"x" * 2000, "text/plain")
    assert server.ask("/v2/models/water/predict/", body, kind).status == 413
    assert server.models() == []  # where modules alone are served, no process of ours waits for a model
    small, kind = form("data", "a.txt", b"x" * 200, "text/plain")
    assert server.ask("/v2/models/water/predict/", small, kind).status == 200
    line = server._wait_for(rf'{{.*"/v2/models/water/predict/".*"in": ?{len(small)},.*}}')
    assert json.loads(line)["status"] == 200
    assert server.ask("/v2/models/water/predict/?mode=hang", b"").status == 504
    assert server.ask("/v2/models/water/predict/", b"").status == 200
    assert server.stop() == 0


def test_a_module_that_is_on_its_way_is_told_from_one_that_is_not_there(endpoint):
    server = endpoint(package=False, env={"POND_IMPORT": "2"})
    answer = server.ask("/v2/models/water/predict/", b"")
    assert (answer.status, json.loads(answer.body)) == (503, {"message": "water is being loaded"})
    assert answer.headers["retry-after"]
    assert server.ask("/v2/models/fire/predict/", b"").status == 404
    server._wait_for(r"water is ready")
    assert server.ask("/v2/models/water/predict/", b"").status == 200


def test_a_module_that_hangs_while_it_is_imported_ends_the_server(endpoint):
    server = endpoint("serving.start=1", package=False, env={"POND_IMPORT": "600"})
    assert server.process.wait(60) == 7
    assert "pond: loading took longer than 1 s" in server.log
    assert "Traceback" not in server.log


def test_a_module_that_does_not_load_ends_the_server_with_the_reason(start, environment, write):
    config = f"defaults: [base, _self_]\nname: bad\nserving:\n  modules:\n    pnod: {{environment: {environment}}}\n"
    write({".ai4sdk": "", "configs/bad.yaml": config})
    server = start("config=bad")
    assert server.process.wait(60) == 6
    assert "did you mean 'pond'?" in server.log
    assert "Traceback" not in server.log
