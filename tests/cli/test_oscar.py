"""`ai4sdk oscar`, against the stand-in, as it is typed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.backends.oscar.client import STAND_IN
from ai4sdk.backends.oscar.standin.server import serving
from ai4sdk.cli import main, oscar_image
from ai4sdk.cli.oscar_service import _public

WEIGHTS = "5eed" * 16
EVENTS = ("backend.input=[{path: fish/in}]", "backend.output=[{path: fish/out}]")
PROGRAM = """#!/bin/sh
grep -q raises "$4" && { echo it raised; exit 3; }
cp "$4" "$6"
"""


@pytest.fixture
def oscar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run `ai4sdk oscar` in a project with a package, beside a stand-in; gives status, output and errors."""
    (tmp_path / ".ai4sdk").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "model.json").write_text(json.dumps({"name": "pond", "weights_sha256": WEIGHTS}))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ai4sdk").write_text(PROGRAM)
    (tmp_path / "bin" / "ai4sdk").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"

    def run(*argv: str) -> tuple[int, str, str]:
        with_path = (f"backend.environment.variables={{PATH: '{path}'}}",) if argv[0] in ("plan", "apply") else ()
        status = main(["oscar", *argv, *with_path])
        output = capsys.readouterr()
        return status, output.out, output.err

    with serving(tmp_path / STAND_IN) as (_, server):
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield run
        server.shutdown()
        thread.join()


SERVER = f"""#!{sys.executable}
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({{"predictions": [self.headers["Content-Type"], body]}}).encode())

port = next(one.partition("=")[2] for one in sys.argv if one.startswith("serving.port="))
http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never came true")


def test_a_service_is_planned_made_called_and_removed(oscar: Callable[..., Any], tmp_path: Path) -> None:
    status, out, _ = oscar("plan", "package", *EVENTS)
    assert status == 0
    assert "# fdl.yaml" in out
    assert "#!/bin/sh" in out
    assert oscar("ls")[1].startswith("no services")
    assert oscar("apply", "package", *EVENTS)[1].startswith("pond is created, at the stand-in")
    assert oscar("apply", "package", *EVENTS)[1].startswith("pond is left as it is")
    assert oscar("apply", "package", *EVENTS, "backend.memory=3GiB")[1].startswith("pond is updated: memory")
    assert oscar("ls")[1].splitlines()[1].split() == ["pond", "ai4sdk-rehearsal", "fish/in", "fish/out"]

    Path("row.json").write_text("[1]")
    assert oscar("invoke", "pond", "--input", "row.json")[:2] == (0, "[1]\n")
    assert oscar("invoke", "pond", "--input", "row.json", "--output", "answer.json")[:2] == (0, "")
    assert Path("answer.json").read_text() == "[1]"
    Path("row.json").write_text("raises")
    status, _, err = oscar("invoke", "pond", "--input", "row.json")
    assert status == 4
    assert "it raised" in err

    out = oscar("invoke", "pond", "--input", "row.json", "--async")[1]
    assert out.startswith("pond-")
    job = out.split()[0]
    until(lambda: "Failed" in oscar("jobs", "pond")[1])
    assert "it raised" in oscar("logs", "pond")[1]
    assert oscar("logs", "pond", job)[1] == oscar("logs", "pond")[1]
    assert json.loads(oscar("jobs", "pond", "--json")[1])[job]["status"] == "Failed"
    assert oscar("rm", "pond", "--all-jobs")[1] == "jobs of pond are removed\n"
    status, _, err = oscar("rm", "pond")
    assert (status, "all that is in them: fish" in err) == (2, True)
    assert oscar("rm", "pond", "--with-buckets")[1] == "pond is removed\n"
    assert oscar("rm", "pond")[0] == 6


def test_no_secret_is_shown(oscar: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEY", "sesame-street")
    secret = "backend.environment.secrets={TOKEN: '${secret:KEY}'}"
    storage = "backend.storage_providers={minio: {ours: {endpoint: 'http://x', access_key: '${secret:KEY}', secret_key: '${secret:KEY}'}}}"
    said = [oscar("plan", "package", secret, storage), oscar("plan", "package", "--json", secret, storage)]
    said += [oscar("apply", "package", secret, storage), oscar("ls", "--json"), oscar("ls")]
    assert [one[0] for one in said] == [0] * 5
    token = json.loads(next((tmp_path / STAND_IN / "services").glob("*.json")).read_text())["token"]
    for _, out, err in said:
        assert "sesame-street" not in out + err
        assert token not in out + err
    (service,) = json.loads(said[3][1])
    assert service["environment"]["secrets"] == {"TOKEN": ""}
    shown = _public(
        {"environment": {"Secrets": {"A": "x"}}, "clusters": {"other": {"auth_password": "x"}}, "name": "y"}
    )
    assert shown == {"environment": {"Secrets": {"A": ""}}, "name": "y"}


def test_what_is_exposed_answers_without_loading_the_model_again(oscar: Callable[..., Any], tmp_path: Path) -> None:
    """The program that is asked for a server here answers what it is asked, as a model's would."""
    (tmp_path / "bin" / "ai4sdk").write_text(SERVER)
    status, out, err = oscar("apply", "package", "backend.expose={}", "backend.enable_gpu=true")
    assert status == 0
    assert "/system/services/pond/exposed/" in out
    Path("row.json").write_text("[1]")
    until(lambda: oscar("invoke", "pond", "--input", "row.json")[0] == 0)
    assert json.loads(oscar("invoke", "pond", "--input", "row.json")[1]) == ["application/json", "[1]"]
    until(lambda: "POST" in oscar("logs", "pond")[1])
    status, _, err = oscar("apply", "package")
    assert (status, "--recreate" in err) == (2, True)
    assert "a GPU is for what is exposed" in oscar("apply", "package", "--recreate", "backend.enable_gpu=true")[2]


def test_a_service_of_somebody_else_is_left_alone(oscar: Callable[..., Any], tmp_path: Path) -> None:
    oscar("apply", "package")
    file = tmp_path / STAND_IN / "services" / "pond.json"
    file.write_text(file.read_text().replace("ai4sdk.managed", "made.by.hand"))
    assert oscar("ls")[1].rstrip().endswith("not by ai4sdk")
    status, _, err = oscar("apply", "package", "backend.cpu=2")
    assert (status, "which ai4sdk has not made" in err) == (2, True)


def test_a_file_is_put_where_a_service_is_started_for_it(oscar: Callable[..., Any]) -> None:
    oscar("apply", "package", *EVENTS)
    Path("row.json").write_text("[2]")
    assert oscar("invoke", "pond", "--input", "row.json", "--upload")[1].startswith("fish/in/row.json is there")
    until(lambda: "Succeeded" in oscar("jobs", "pond")[1])
    assert Path(STAND_IN, "buckets/fish/out/results/row.json.json").read_text() == "[2]"


def test_an_image_has_the_wheel_that_is_named_or_made(
    oscar: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_wheel(folder: Path) -> Path:
        made = folder / "ai4sdk-0.1.0-py3-none-any.whl"
        made.write_text("a wheel")
        return made

    monkeypatch.setattr(oscar_image, "make_wheel", make_wheel)
    assert oscar("image", "package", "--out", "image")[0] == 0
    assert Path("image/ai4sdk-0.1.0-py3-none-any.whl").read_text() == "a wheel"
    monkeypatch.setattr(oscar_image, "make_wheel", lambda folder: pytest.fail("there is no need"))
    status, _, err = oscar("image", "package", "--out", "image")
    assert (status, "has something in it" in err) == (2, True)
    Path("ours.whl").write_text("ours")
    assert oscar("image", "package", "--out", "other", "--wheel", "ours.whl")[0] == 0
    assert Path("other/ours.whl").read_text() == "ours"
    assert oscar("image", "package", "--out", "third", "--wheel", "nowhere.whl")[0] == 6


def test_a_definition_is_written_for_other_clients(oscar: Callable[..., Any]) -> None:
    assert oscar("plan", "package", "--out", "fdl")[:2] == (0, "fdl/fdl.yaml\nfdl/script.sh\n")
    assert Path("fdl/script.sh").read_text().startswith("#!/bin/sh")
    _, out, _ = oscar("plan", "package", "--json")
    assert json.loads(out)["script"] == Path("fdl/script.sh").read_text()
    secrets = "backend.environment.secrets={TOKEN: '${secret:TOKEN}'}"
    assert "secrets are references" in oscar("plan", "package", "--out", "fdl", secrets)[2]


def test_a_backend_of_ones_own_is_a_group_of_the_project(oscar: Callable[..., Any]) -> None:
    Path("configs/backend").mkdir(parents=True)
    Path("configs/backend/ours.yaml").write_text(
        "defaults: [oscar, _self_]\nservice: of-our-own\nimage: registry.example.org/pond:1\n"
    )
    assert "name: of-our-own" in oscar("plan", "package", "backend=ours")[1]


@pytest.mark.parametrize(
    ("argv", "status", "told"),
    [
        (("aply",), 2, "apply"),
        (("apply", "package", "more"), 2, "what is 'more' for?"),
        (("apply", "nowhere"), 6, "there are no runs"),
        (("apply", "package", "backend.memmory=1GiB"), 2, "backend.memory"),
        (("ls", "backend=local"), 2, "has no services"),
        (("apply", "package", "backend.service=" + "x" * 40), 2, "at most 39"),
        (("apply", "package", "backend.cluster=http://127.0.0.1:9", "backend.image=x"), 2, "who asks"),
        (("ls", "backend.cluster=http://127.0.0.1:9", "backend.image=x", "backend.token='${secret:NO}'"), 7, "NO"),
        (("invoke", "--input", "x"), 2, "which NAME?"),
        (("invoke", "lake", "--input", "/nowhere"), 6, "cannot be read"),
        (("invoke", "lake", "--input", "bin/ai4sdk"), 6, "no service lake"),
        (("invoke", "lake", "--input", "-", "--upload"), 2, "has a name"),
        (("invoke", "lake", "--input", "x", "--async", "--output", "y"), 2, "no answer"),
        (("logs", "lake"), 6, "no service lake"),
        (("jobs", "lake"), 6, "no service lake"),
    ],
)
def test_a_mistake_ends_with_what_to_do(
    oscar: Callable[..., Any], argv: tuple[str, ...], status: int, told: str
) -> None:
    ended, _, err = oscar(*argv)
    assert (ended, told in err) == (status, True), err
    assert "Traceback" not in err


def test_without_a_stand_in_it_is_said_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".ai4sdk").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["oscar", "ls"]) == 7
    assert "ai4sdk oscar cluster" in capsys.readouterr().err


def test_a_training_is_no_service(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "plan"):
        assert main([command, "config=train", "+backend=oscar"]) == 2
        assert "ai4sdk oscar apply" in capsys.readouterr().err
    assert main(["run", "-m", "config=train", "+backend=oscar", "optimizer.lr=1e-2,1e-3"]) == 2
    assert "it cannot run studies" in capsys.readouterr().err
    shutil.rmtree(project / "runs", ignore_errors=True)


@pytest.mark.slow
def test_a_real_model_answers_as_it_does_here(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train, apply, call: the answer is that of `ai4sdk predict`, and a wrong input is an error."""
    assert main(["run", "config=train", "+tracking=none"]) == 0
    Path("rows.csv").write_text("a,b\n0.1,0.2\n0.3,0.4\n")
    with serving(project / STAND_IN) as (_, server):
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            assert main(["oscar", "apply"]) == 0
            capfd.readouterr()
            assert main(["predict", "latest", "--input", "rows.csv", "--output", "here.json"]) == 0
            assert main(["oscar", "invoke", "train", "--input", "rows.csv", "--output", "there.json"]) == 0
            assert json.loads(Path("there.json").read_text()) == json.loads(Path("here.json").read_text())
            Path("wrong.csv").write_text("wrong\n1\n")
            assert main(["oscar", "invoke", "train", "--input", "wrong.csv"]) == 4
        finally:
            server.shutdown()
            thread.join()
    exposed_answers_as(Path("here.json"), capfd)


def exposed_answers_as(expected: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Start the script as OSCAR does for exposed services, without a supervisor, and ask what it serves."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    capfd.readouterr()
    assert main(["oscar", "plan", "--json", f"backend.expose={{api_port: {port}}}"]) == 0
    service = json.loads(capfd.readouterr().out)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **service["environment"]["variables"], "PATH": path}
    process = subprocess.Popen(["/bin/sh", "-c", service["script"]], env=env)
    try:
        address = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health/ready").close()
                break
            except OSError:
                time.sleep(0.2)
        rows = Path("rows.csv").read_bytes()
        request = urllib.request.Request(f"{address}/invocations", rows, {"Content-Type": "text/csv"})
        with urllib.request.urlopen(request) as answer:
            told = [one["prediction"] for one in json.loads(answer.read())["predictions"]]
        assert told == [one["prediction"] for one in json.loads(expected.read_text())]
    finally:
        process.terminate()
        process.wait()
