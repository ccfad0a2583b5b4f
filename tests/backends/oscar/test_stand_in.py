"""The stand-in: its answers are those of the published API, its jobs end as they should, its events are told once."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ai4sdk.backends.oscar.client import STAND_IN, Cluster, connect
from ai4sdk.backends.oscar.standin.cluster import Asked, Reply
from ai4sdk.backends.oscar.standin.cluster import Cluster as StandIn
from ai4sdk.backends.oscar.standin.server import ACCESS, read_access, serving
from ai4sdk.errors import EnvironmentFault, NotFound, RunFailed, UsageError
from ai4sdk.spec import OscarBackend

OPENAPI = Path(__file__).parent / "openapi"
BASIC = "Basic " + base64.b64encode(b"oscar:sesame").decode()
BOTH: dict[str, Any] = {"input": [{"path": "fish/in", "suffix": [".json"]}], "output": [{"path": "fish/out"}]}
PATHS = ("/system/services", "/system/services/pond", "/system/logs/pond")
ENCODED = base64.b64encode(b"{}")


@pytest.fixture
def inside(tmp_path: Path) -> Any:
    """A stand-in without an address."""
    made = StandIn(tmp_path / "inside", "oscar", "sesame")
    yield made
    made.jobs.close()
    made._servers.close()


def ask(cluster: StandIn, method: str, path: str, body: Any = None, authorization: str = BASIC) -> Reply:
    path, _, query = path.partition("?")
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return cluster.answer(Asked(method, path, query, authorization, data))


def until(true: Callable[[], Any]) -> None:
    """Wait until something is true."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never came true")


def schema_of(file: str, path: str, status: int, method: str = "get") -> dict[str, Any]:
    """Return the schema of an answer in a published description."""
    whole = yaml.safe_load((OPENAPI / file).read_text())
    schemas = json.loads(json.dumps(whole["components"]["schemas"]).replace("#/components/schemas/", "#/$defs/"))
    answer = whole["paths"][path][method]["responses"][str(status)]
    schema = answer["content"]["application/json"]["schema"]
    return {**json.loads(json.dumps(schema).replace("#/components/schemas/", "#/$defs/")), "$defs": schemas}


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("api-v3.6.0-openapi.yaml", "/system/services"),
        ("api-v3.6.0-openapi.yaml", "/system/services/{serviceName}"),
        ("api-v3.6.0-openapi.yaml", "/system/info"),
        ("api-v3.6.0-openapi.yaml", "/system/config"),
        ("deployment-visibility.openapi.yaml", "/system/services/{serviceName}/deployment"),
        ("deployment-visibility.openapi.yaml", "/system/services/{serviceName}/deployment/logs"),
    ],
)
def test_its_answers_are_those_of_the_published_api(inside: StandIn, defined: Any, file: str, path: str) -> None:
    assert ask(inside, "POST", "/system/services", defined(**BOTH).service) == Reply(201)
    reply = ask(inside, "GET", path.format(serviceName="pond"))
    assert reply.status == 200
    jsonschema.Draft7Validator(schema_of(file, path, 200)).validate(reply.content)


def test_jobs_are_told_of_as_in_the_published_api(inside: StandIn, defined: Any) -> None:
    ask(inside, "POST", "/system/services", defined().service)
    token = ask(inside, "GET", "/system/services/pond").content["token"]
    assert ask(inside, "POST", "/job/pond", ENCODED, f"Bearer {token}") == Reply(201)
    jobs = ask(inside, "GET", "/system/logs/pond").content["jobs"]
    whole = yaml.safe_load((OPENAPI / "api-v3.6.0-openapi.yaml").read_text())
    for job in jobs.values():
        jsonschema.Draft7Validator(whole["components"]["schemas"]["JobInfo"]).validate(job)
    assert len(jobs) == 1


@pytest.mark.parametrize(
    ("method", "path", "authorization", "status"),
    [
        ("GET", "/health", "", 200),
        ("GET", "/system/services", "", 401),
        ("GET", "/system/services", "Basic b3NjYXI6d3Jvbmc=", 401),
        ("GET", "/system/services", "Bearer " + "0" * 64, 401),
        ("GET", "/system/services/pond", BASIC, 200),
        ("GET", "/system/services/lake", BASIC, 404),
        ("GET", "/system/services/..%2fescape", BASIC, 404),
        ("DELETE", "/system/services/lake", BASIC, 404),
        ("GET", "/system/logs/lake", BASIC, 404),
        ("GET", "/system/logs/pond/nothing", BASIC, 404),
        ("DELETE", "/system/logs/pond/nothing", BASIC, 404),
        ("POST", "/run/pond", BASIC, 401),
        ("POST", "/run/pond", "Bearer " + "0" * 64, 401),
        ("POST", "/run/lake", "Bearer " + "0" * 64, 404),
        ("POST", "/job/pond", "", 401),
        ("GET", "/run/pond", BASIC, 404),
        ("GET", "/nowhere", BASIC, 404),
        ("GET", "/system/volumes", BASIC, 404),
        ("POST", "/system/services", BASIC, 400),
        ("PUT", "/system/services", BASIC, 400),
    ],
)
def test_it_refuses_as_oscar_does(
    inside: StandIn, defined: Any, method: str, path: str, authorization: str, status: int
) -> None:
    ask(inside, "POST", "/system/services", defined().service)
    assert ask(inside, method, path, b"{}", authorization).status == status


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "x" * 40},
        {"name": "../escape"},
        {"image": None},
        {"script": None},
        {"cpu": 1},
        {"input": [{"path": "fish/../../escape"}]},
        {"output": [{}]},
        {"output": [{"path": "./out"}]},
        {"output": ["fish/out"]},
        {"input": "fish/in"},
        {"labels": ["a"]},
        {"expose": 8080},
    ],
)
def test_it_takes_no_service_that_oscar_would_not(inside: StandIn, defined: Any, change: dict[str, Any]) -> None:
    reply = ask(inside, "POST", "/system/services", {**defined().service, **change})
    assert reply.status == 400
    assert reply.content.startswith("The service specification is not valid")
    assert inside.services() == []


def test_two_services_of_one_name_are_refused_and_an_update_keeps_the_token(inside: StandIn, defined: Any) -> None:
    service = defined().service
    assert ask(inside, "PUT", "/system/services", service).status == 404
    assert ask(inside, "POST", "/system/services", service).status == 201
    assert ask(inside, "POST", "/system/services", service).content == "A service with the provided name already exists"
    token = ask(inside, "GET", "/system/services/pond").content["token"]
    assert ask(inside, "PUT", "/system/services", {**service, "memory": "1Gi", "token": "other"}).status == 204
    now = ask(inside, "GET", "/system/services/pond").content
    assert (now["memory"], now["token"], len(token)) == ("1Gi", token, 64)


def test_services_come_and_go_while_others_look(inside: StandIn, defined: Any) -> None:
    """Nobody sees half of a service: neither who lists them, nor who looks for events."""
    service = defined(**BOTH).service
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            ask(inside, "POST", "/system/services", service)
            ask(inside, "PUT", "/system/services", service)
            ask(inside, "DELETE", "/system/services/pond")

    threads = [threading.Thread(target=change) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        statuses = {ask(inside, "GET", path).status for _ in range(200) for path in PATHS}
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert statuses <= {200, 404}


def test_a_lone_name_is_a_folder_in_the_bucket_of_the_service(inside: StandIn, defined: Any) -> None:
    ask(inside, "POST", "/system/services", {**defined().service, "input": [{"path": "/in/"}]})
    assert ask(inside, "GET", "/system/services/pond").content["input"] == [{"path": "pond/in"}]


def test_secrets_are_given_to_services_and_shown_to_nobody(inside: StandIn, defined: Any) -> None:
    service = defined().service
    service["environment"]["secrets"] = {"TOKEN": "sesame-street"}
    service["script"] = "echo $TOKEN $OSCAR_SERVICE_NAME"
    ask(inside, "POST", "/system/services", service)
    shown = ask(inside, "GET", "/system/services/pond")
    assert shown.content["environment"]["secrets"] == {"TOKEN": ""}
    assert b"sesame-street" not in shown.body
    answer = ask(inside, "POST", "/run/pond", ENCODED, f"Bearer {shown.content['token']}")
    assert answer.content == "sesame-street pond\n\n"


def test_a_call_that_takes_too_long_is_ended(tmp_path: Path, defined: Any) -> None:
    made = StandIn(tmp_path / "inside", "oscar", "sesame", timeout=0.5)
    ask(made, "POST", "/system/services", defined().service)
    token = made.services()[0]["token"]
    reply = ask(made, "POST", "/run/pond", base64.b64encode(b"slow"), f"Bearer {token}")
    assert (reply.status, reply.content) == (500, "no answer within 0.5 s\n")
    made.jobs.close()


def test_files_that_appear_are_events_once_each(stand_in: Cluster, defined: Any, ended: Any, tmp_path: Path) -> None:
    fish = tmp_path / STAND_IN / "buckets" / "fish"
    stand_in.create(defined(**BOTH).service)
    for name, text in (("a.json", "1"), ("b.txt", "2"), ("deep/c d.json", "3"), (".e.json", "4")):
        path = fish / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    jobs = ended(stand_in, "pond", 3)
    assert {job["status"] for job in jobs.values()} == {"Succeeded"}
    results = {str(path.relative_to(fish / "out" / "results")) for path in (fish / "out" / "results").rglob("*.json")}
    assert results == {"a.json.json", "deep/c d.json.json"}  # and the text file was passed over
    assert not (fish / "out" / "errors").exists()
    (fish / "in" / "a.json").write_text("changed")
    ended(stand_in, "pond", 4)


def test_files_that_were_there_when_it_began_are_no_events(tmp_path: Path, defined: Any) -> None:
    for _ in range(2):
        with serving(tmp_path / "inside") as (_, server):
            inside = server.cluster
            if not inside.services():
                ask(inside, "POST", "/system/services", defined(**BOTH).service, inside._basic)
                (tmp_path / "inside" / "buckets" / "fish" / "in" / "a.json").write_text("1")
                while not inside.jobs.of("pond"):
                    time.sleep(0.02)
            inside._watcher.look()
            inside._watcher.look()
            assert len(inside.jobs.of("pond")) == 1


def test_an_update_tells_minio_of_new_buckets_alone(inside: StandIn, defined: Any, tmp_path: Path) -> None:
    """As in OSCAR, whose client therefore refuses to change inputs in place."""
    ask(inside, "POST", "/system/services", defined(**BOTH).service)
    changed = [{"path": "fish/other"}, {"path": "lake/in"}]
    assert ask(inside, "PUT", "/system/services", {**defined(**BOTH).service, "input": changed}).status == 204
    for place in ("fish/in", "fish/other", "lake/in"):
        (tmp_path / "inside" / "buckets" / place / "x.json").write_text("1")
    inside._watcher.look()
    inside._watcher.look()
    assert len(inside.jobs.of("pond")) == 2


@pytest.mark.parametrize("places", [("fish/in", "lake/out"), ("lake/in", "fish/out")])
def test_buckets_that_are_there_already_are_refused(inside: StandIn, defined: Any, places: tuple[str, str]) -> None:
    ask(inside, "POST", "/system/services", defined(**BOTH).service)
    service = {**defined().service, "name": "lake", "input": [{"path": places[0]}], "output": [{"path": places[1]}]}
    assert ask(inside, "POST", "/system/services", service) == Reply(500, 'the bucket "fish" already exists\n')
    assert [one["name"] for one in inside.services()] == ["pond"]
    assert not (inside._buckets / "lake").exists()
    twice = {**service, "input": [{"path": "sea/in"}, {"path": "sea/more"}]}
    assert ask(inside, "POST", "/system/services", twice).status == 500


def test_an_exposed_service_has_a_server_of_its_own(stand_in: Cluster, defined: Any) -> None:
    stand_in.create(defined(expose={}).service)
    token = stand_in.known("pond")["token"]
    place = f"{stand_in.endpoint}/system/services/pond"
    until(lambda: state_of(stand_in) == "ready")
    who = "Basic " + base64.b64encode(f"pond:{token}".encode()).decode()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{place}/exposed/health/ready")
    request = urllib.request.Request(f"{place}/exposed/health/ready?x=1", headers={"Authorization": who})
    assert json.load(urllib.request.urlopen(request)) == {"path": "/health/ready?x=1"}  # without what leads there
    with pytest.raises(EnvironmentFault, match="now"):  # nothing answers but the server
        stand_in.run("pond", ENCODED, token, 20)
    with pytest.raises(EnvironmentFault, match="no other deployment"):
        stand_in.update(defined().service)
    stand_in.update({**defined(expose={"set_auth": False}).service})
    until(lambda: state_of(stand_in) == "ready")
    assert json.load(urllib.request.urlopen(f"{place}/exposed/")) == {"path": "/"}
    stand_in.remove("pond")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{place}/exposed/")


def test_a_server_that_does_not_start_is_told_with_its_log(inside: StandIn, defined: Any) -> None:
    ask(inside, "POST", "/system/services", defined(weights="0" * 64, expose={}).service)

    def deployment() -> Any:
        return ask(inside, "GET", "/system/services/pond/deployment").content

    until(lambda: deployment()["state"] == "failed")
    file = "deployment-visibility.openapi.yaml"
    path = "/system/services/{serviceName}/deployment"
    jsonschema.Draft7Validator(schema_of(file, path, 200)).validate(deployment())
    log = ask(inside, "GET", "/system/services/pond/deployment/logs").content
    jsonschema.Draft7Validator(schema_of(file, f"{path}/logs", 200)).validate(log)
    assert "is not the model package" in log["entries"][-1]["message"]
    who = "Basic " + base64.b64encode(f"pond:{inside.services()[0]['token']}".encode()).decode()
    assert ask(inside, "GET", "/system/services/pond/exposed/x", None, who).status == 503


def state_of(cluster: Cluster) -> str:
    return str(cluster._object("/system/services/pond/deployment", "read the deployment")["state"])


def test_a_job_that_fails_has_failed_and_says_why(stand_in: Cluster, defined: Any, ended: Any, tmp_path: Path) -> None:
    stand_in.create(defined(**BOTH).service)
    token = stand_in.known("pond")["token"]
    stand_in.start("pond", base64.b64encode(b"raises"), token)
    ((name, job),) = ended(stand_in, "pond", 1).items()
    assert job["status"] == "Failed"
    assert "it raised" in stand_in.log("pond", name)
    with pytest.raises(RunFailed, match="it raised"):
        stand_in.run("pond", base64.b64encode(b"raises"), token, 20)


def test_an_event_that_is_too_long_for_a_variable_fails(stand_in: Cluster, defined: Any, ended: Any) -> None:
    stand_in.create(defined().service)
    stand_in.start("pond", b"x" * 200_000, stand_in.known("pond")["token"])
    ((name, job),) = ended(stand_in, "pond", 1).items()
    assert job["status"] == "Failed"
    assert "cannot be started" in stand_in.log("pond", name)


def test_removing_a_service_forgets_its_jobs_and_removes_its_buckets(
    stand_in: Cluster, defined: Any, ended: Any, tmp_path: Path
) -> None:
    stand_in.create(defined(**BOTH).service)
    stand_in.start("pond", ENCODED, stand_in.known("pond")["token"])
    ended(stand_in, "pond", 1)
    stand_in.remove("pond")
    with pytest.raises(NotFound):
        stand_in.jobs("pond")
    assert list((tmp_path / STAND_IN / "buckets").iterdir()) == []
    stand_in.create(defined().service)
    assert stand_in.jobs("pond") == {}


@pytest.mark.engine
@pytest.mark.slow
def test_a_stand_in_that_is_killed_goes_on_with_what_it_had(tmp_path: Path, defined: Any, ended: Any) -> None:
    (tmp_path / ".ai4sdk").touch()
    command = [sys.executable, "-m", "ai4sdk", "oscar", "cluster"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("a stand-in for a cluster of OSCAR answers at http://127.0.0.1:")
    folder = tmp_path / STAND_IN
    assert (folder / ACCESS).stat().st_mode & 0o777 == 0o600
    options = OscarBackend.model_validate({"kind": "oscar"})
    cluster = connect(options, tmp_path)
    with pytest.raises(EnvironmentFault, match="already"), serving(folder):
        pass
    cluster.create(defined().service)
    cluster.start("pond", base64.b64encode(b"slow"), cluster.known("pond")["token"])
    while {job["status"] for job in cluster.jobs("pond").values()} != {"Running"}:
        time.sleep(0.02)
    process.kill()
    process.wait()
    process.stdout.close()
    assert read_access(folder) is None
    with pytest.raises(EnvironmentFault) as caught:
        connect(options, tmp_path)
    assert "ai4sdk oscar cluster" in str(caught.value.hint)
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    cluster = connect(options, tmp_path)
    assert [job["status"] for job in cluster.jobs("pond").values()] == ["Failed"]
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    process.stdout.close()
    assert not (folder / ACCESS).exists()


def test_only_its_user_may_read_what_it_keeps_of_services(tmp_path: Path, inside: StandIn, defined: Any) -> None:
    ask(inside, "POST", "/system/services", defined().service)
    (file,) = (tmp_path / "inside" / "services").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.access(file, os.R_OK)


def test_the_client_tells_what_to_do_about_a_service_that_is_there(stand_in: Cluster, defined: Any) -> None:
    stand_in.create(defined().service)
    with pytest.raises(UsageError, match="already exists"):
        stand_in.create(defined().service)
