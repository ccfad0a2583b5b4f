"""Whatever a module does, whoever asks gets an answer that says what, and the next one is served."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai4sdk.errors import EnvironmentFault, NotFound, RunFailed
from ai4sdk.serving.deepaas.module import Module
from ai4sdk.testing.helpers import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.engine]

PREDICT = "/v2/models/pond/predict/"

FAILURES = {
    "raise": (500, "ValueError: too deep"),
    "attribute": (500, "AttributeError: no such fish"),
    "not implemented": (501, "pond does not implement predict: one day"),
    "refuse": (400, "no fish on Mondays"),
    "exit": (500, "the module called exit(3)"),
    "abort": (500, "the process of pond was ended by SIGABRT while it answered"),
    "vanish": (500, "the process of pond was ended by SIGKILL while it answered"),
    "fork": (500, "the process of pond exited with status 9 while it answered"),
    "hang": (504, "pond did not answer within 2 s; its process was killed"),
    "answer on our socket": (500, "the process of pond sent what is no answer while it answered"),
    "pretend": (500, "the process of pond sent what is no answer while it answered"),
    "interrupt": (500, "KeyboardInterrupt"),
    "unserialisable": (500, "a numpy.float32 at fish[0].weight"),
    "huge": (500, "predict answered 8388643 bytes; 4194304 are allowed"),
}


@pytest.fixture(scope="module")
def shared(serving, environment, tmp_path_factory):
    with serving(["pond"], environment, tmp_path_factory.mktemp("trainings"), timeout=2, most=4 << 20) as client:
        yield client


def answered(client, params):
    """Ask until there is an answer: a process that is being started anew may take longer than a request waits."""
    wait_for(lambda: client.post(PREDICT).status_code == 200, 60)
    return client.post(PREDICT, params=params).json()["predictions"]


@pytest.mark.parametrize("mode", FAILURES)
def test_a_failure_is_told_and_the_next_request_is_answered(mode, shared):
    status, text = FAILURES[mode]
    answer = shared.post(PREDICT, params={"mode": mode})
    assert answer.status_code == status
    assert text in answer.json()["message"]
    assert answered(shared, {"n": 5})["n"] == 5


def test_a_child_that_a_module_leaves_behind_is_killed(shared, caplog):
    with caplog.at_level(logging.INFO, "ai4sdk"):
        shared.post(PREDICT, params={"mode": "fork"})
        wait_for(lambda: "left behind" in caplog.text, 10)
    child = caplog.text.rpartition("left behind: ")[2].partition(".")[0]
    wait_for(lambda: not is_running(child), 10)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_module_that_has_its_own_stdout_is_answered(serve):
    client = serve("pond")
    pid = client.modules["pond"].workers[0].pid
    for _ in range(2):
        assert client.post(PREDICT, params={"mode": "stdout"}).status_code == 200
    assert client.modules["pond"].workers[0].pid == pid


def test_a_wrong_list_of_any_length_is_the_clients_mistake(shared):
    answer = shared.post(PREDICT, json={"lst": ["x"] * 20_000})
    assert (answer.status_code, answer.json()) == (422, {"lst": ["Not valid, in more places than can be told."]})


def test_what_a_module_prints_goes_to_the_log_and_not_into_answers(shared, caplog):
    with caplog.at_level(logging.INFO, "ai4sdk"):
        answer = shared.post(PREDICT, params={"mode": "print"})
        assert answer.json()["predictions"]["mode"] == "print"
        wait_for(lambda: "a line of a child" in caplog.text, 10)
    assert "pond/0: a line for people" in caplog.text
    assert "not a frame" in caplog.text


def test_the_log_tells_where_a_module_raised(shared, caplog):
    with caplog.at_level(logging.INFO, "ai4sdk"):
        shared.post(PREDICT, params={"mode": "raise"})
        wait_for(lambda: "ValueError: too deep" in caplog.text, 10)
    assert "pond.py" in caplog.text


def test_a_worker_that_was_killed_between_requests_is_replaced(serve):
    client = serve("pond")
    (worker,) = client.modules["pond"].workers
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not worker.is_alive, 10)
    assert client.post(PREDICT).status_code == 200  # it had begun nothing, so nothing was lost
    assert worker.is_alive


def test_workers_answer_side_by_side(serve):
    client = serve("pond", workers=2, timeout=3)
    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(client.post, PREDICT, params={"mode": "hang"})
        wait_for(lambda: client.modules["pond"]._free.qsize() == 1, 10)
        assert client.post(PREDICT).status_code == 200
        assert hanging.result().status_code == 504


def test_who_waits_too_long_for_a_worker_is_told_so(serve):
    client = serve("pond", timeout=2)
    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(client.post, PREDICT, params={"mode": "hang"})
        wait_for(lambda: client.modules["pond"]._free.qsize() == 0, 10)
        client.modules["pond"].timeout = 0.3
        answer = client.post(PREDICT)
        assert hanging.result().status_code == 504
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "no worker of pond became free" in answer.json()["message"]


def test_a_client_that_goes_away_costs_no_worker(serve):
    client = serve("pond", timeout=2)
    with pytest.raises(httpx.ReadTimeout):
        client.post(PREDICT, params={"mode": "hang"}, timeout=0.5)
    assert client.post(PREDICT).status_code in (200, 503)
    wait_for(lambda: client.post(PREDICT).status_code == 200, 20)


def test_a_module_that_cannot_be_started_again_is_told_of(serve, monkeypatch):
    client = serve("pond")
    monkeypatch.setenv("POND_WARM", "raise")
    with ThreadPoolExecutor(3) as pool:  # two of them wait while it is tried again
        answers = list(pool.map(lambda _: client.post(PREDICT, params={"mode": "abort"}).status_code, range(3)))
    assert sorted(answers) == [500, 503, 503]
    wait_for(lambda: client.modules["pond"]._broken, 20)
    answer = client.post(PREDICT)
    assert answer.status_code == 503
    assert "pond: warm failed: RuntimeError: no water" in answer.json()["message"]
    monkeypatch.delenv("POND_WARM")
    wait_for(lambda: client.post(PREDICT).status_code == 200, 30)


def test_a_wrong_name_gets_the_nearest(serve):
    with pytest.raises(NotFound) as caught:
        serve("pnod")
    assert "has no module 'pnod'" in caught.value.message
    assert caught.value.hint == "did you mean 'pond'?"


def test_an_environment_without_modules_says_so(serve, bare_environment):
    with pytest.raises(NotFound, match="has no module for DEEPaaS"):
        asyncio.run(Module("pond", bare_environment).start())


def test_a_missing_environment_is_told_before_anything_is_started(tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        Module("pond", tmp_path / "nothing")
    assert "has no bin/python" in caught.value.message


def test_an_interpreter_that_is_none_is_told_of(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/nowhere/python\n")
    fake.chmod(0o755)
    with pytest.raises(EnvironmentFault, match="cannot be started"):
        asyncio.run(Module("pond", fake).start())


def test_a_module_that_does_not_load_says_why(serve):
    with pytest.raises(RunFailed) as caught:
        serve("swamp")
    assert "swamp cannot be loaded: ImportError: libmud.so.3" in caught.value.message
    assert "swamp.py" in caught.value.hint


def test_a_module_that_cannot_warm_up_is_not_served(serve, monkeypatch):
    monkeypatch.setenv("POND_WARM", "raise")
    with pytest.raises(RunFailed, match="pond: warm failed: RuntimeError: no water"):
        serve("pond")


def test_two_modules_of_one_environment_stand_side_by_side(serve):
    client = serve("pond", "lake")
    assert [model["id"] for model in client.get("/v2/models/").json()["models"]] == ["pond", "0"]
    answer = client.post("/v2/models/lake/predict/", params={"name": "pike"})
    assert answer.json() == {
        "status": "ok", "labels": ["pike", "eel"], "probabilities": [0.75, 0.25], "picture": "UE5H",
    }  # fmt: skip
    assert client.post(PREDICT).status_code == 200
    told = client.get("/v2/models/pnod/").json()["message"]
    assert told == "there is no model 'pnod'; did you mean 'pond'?"


def test_a_module_without_a_function_is_told_of_and_its_schema_holds(serve):
    client = serve("lake")
    assert client.post("/v2/models/lake/train/").status_code == 501
    assert client.get("/v2/models/lake/train/").json() == []
    wrong = client.post("/v2/models/lake/predict/", params={"name": "pike", "wrong": "true"})
    assert wrong.status_code == 500
    assert "not in the module's schema" in wrong.json()["message"]
    assert '"labels": ["Not a valid list."]' in wrong.json()["message"]
    form = client.get("/swagger.json").json()["definitions"]["ModelPredictionResponse"]["properties"]
    assert form["picture"] == {"type": "string", "description": "an image, base64"}
    assert form["best"]["properties"]["label"] == {"type": "string"}


def test_a_module_that_cannot_say_what_it_is_predicts_all_the_same(serve):
    client = serve("mire")
    told = client.get("/v2/models/mire/").json()["description"]
    assert told == "Could not load description from underlying model (loaded 'mire'): no PKG-INFO"
    assert client.post("/v2/models/mire/predict/?unknown=1").json() == {"status": "OK", "predictions": "mud"}
    assert client.get("/swagger.json").json()["paths"]["/v2/models/mire/predict/"]["post"]["parameters"] == []


def test_what_is_switched_off_is_402(serve):
    client = serve("pond", api={"can_train": False})
    assert client.post("/v2/models/pond/train/", params={"epochs": 1}).status_code == 402
    assert client.get("/v2/models/pond/train/").status_code == 402
    assert client.post(PREDICT).status_code == 200
    client = serve("pond", api={"can_predict": False, "base_path": "/deep"})
    assert client.post(f"/deep{PREDICT}").status_code == 402
    assert client.get("/deep/v2/models/pond").headers["location"] == "/deep/v2/models/pond/"
    assert client.get("/").status_code == 404


def test_files_of_a_request_are_gone_afterwards(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = {"data": ("a.txt", b"x" * 100_000, "text/plain")}
    answer = shared.post(PREDICT, files=files)
    assert len(answer.json()["predictions"]["data"][3]) == 100_000
    assert shared.post(PREDICT, files=files, params={"mode": "abort"}).status_code == 500
    wait_for(lambda: not list(tmp_path.iterdir()), 10)


def test_nobodys_json_passes_for_a_file(shared):
    secret = {"file": {"path": "/etc/passwd", "original_name": "x", "content_type": "y"}}
    for argument in ("data", "cfg"):
        answer = shared.post(PREDICT, json={argument: secret})
        assert "root:" not in answer.text
    assert shared.post(PREDICT, json={"cfg": secret}).json()["predictions"]["cfg"] == secret


def test_a_module_dies_with_the_server(environment, tmp_path):
    program = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from ai4sdk.serving.deepaas.module import Module

        async def main():
            module = Module("pond", Path({str(environment)!r}))
            await module.start()
            Path({str(tmp_path / "pid")!r}).write_text(str(module.workers[0].pid))
            await asyncio.sleep(600)

        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", program]) as server:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 60)
        server.kill()
    pid = (tmp_path / "pid").read_text()
    wait_for(lambda: not is_running(pid), 10)


NAMES = st.sampled_from(["n", "ratio", "flag", "word", "lst", "cfg", "day", "data", "accept", "other", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.dictionaries(NAMES, st.text(max_size=20), max_size=3),
    st.dictionaries(NAMES, st.binary(max_size=20), max_size=2),
)
def test_whatever_is_asked_is_answered_or_refused_and_never_a_defect(shared, values, query, files):
    answers = [
        shared.post(PREDICT, params=query, content=json.dumps(values), headers={"content-type": "application/json"})
    ]
    if files:
        parts = {name: (name, content) for name, content in files.items()}
        answers.append(shared.post(PREDICT, params=query, files=parts))
    for answer in answers:
        assert answer.status_code in (200, 400, 422), answer.text
        if answer.headers["content-type"].startswith("application/json"):
            answer.json()


def test_many_requests_leave_nothing_behind(shared):
    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    shared.post(PREDICT)
    before = count()
    for _ in range(200):
        assert shared.post(PREDICT, files={"data": ("a.txt", b"x", "text/plain")}).status_code == 200
    time.sleep(0.1)
    assert count() <= before + 2
