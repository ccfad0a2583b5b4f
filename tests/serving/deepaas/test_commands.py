"""`ai4sdk deepaas`: modules are called and trained without a server, in their own environments."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from ai4sdk.testing.helpers import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.engine]


@pytest.fixture
def command(environment, tmp_path):
    """Begin a command in a process of its own, below a project's folder."""
    (tmp_path / ".ai4sdk").touch()
    (tmp_path / "configs").mkdir()
    lines = ["defaults: [base, _self_]", "name: both", "serving:", "  modules:"]
    lines += [f"    {name}: {{environment: {environment}}}" for name in ("pond", "lake")]
    (tmp_path / "configs" / "both.yaml").write_text("\n".join(lines) + "\n")
    below = tmp_path / "below"  # the project is found from any of its folders
    below.mkdir()

    def begin(*words):
        argv = [sys.executable, "-m", "ai4sdk", "deepaas", *words, "config=both"]
        return subprocess.Popen(argv, cwd=below, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return begin


@pytest.fixture
def ask(command):
    """What a command ends with: status, and what it has written to each of the two."""

    def run(*words):
        with command(*words) as process:
            out, err = process.communicate(timeout=300)
            return process.returncode, out, err

    return run


def test_a_module_tells_what_it_takes(ask):
    status, out, _ = ask("show", "pond")
    assert status == 0
    assert "description: Counts fish." in out
    assert "n       integer, default 3, minimum 1, maximum 10: How many." in out
    assert "epochs   integer, required" in out
    assert "no train" in ask("show", "lake")[1]


def test_a_module_predicts_from_what_is_typed(ask, tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("hello")
    words = ["n=4", "lst=5", "lst=6", 'cfg={"b": [1]}', f"data={note}", "day=2024-02-03"]
    status, out, err = ask("predict", "pond", *words)
    told = json.loads(out)
    assert (status, told["status"]) == (0, "OK")
    assert told["predictions"]["lst"] == [5, 6]
    assert told["predictions"]["cfg"] == {"b": [1]}
    assert told["predictions"]["data"] == ["data", "note.txt", "text/plain", "hello"]
    assert "pond/0: pond is warm" in err
    assert note.read_text() == "hello"


def test_arguments_come_in_json_and_answers_go_into_files(ask, tmp_path):
    given, kept = tmp_path / "given.json", tmp_path / "kept.png"
    given.write_text('{"n": 4, "lst": 7, "accept": "image/png"}')
    assert ask("predict", "pond", "n=5", "--input", str(given), "--output", str(kept))[:2] == (0, "")
    assert kept.read_bytes() == b"\x89PNG of 5"
    for text, told in (
        ("{", "--input is no JSON"),
        ("[1]", "--input is JSON, and no mapping"),
        ('{"rati": 1}', "did you mean 'ratio'?"),
    ):
        given.write_text(text)
        status, _, err = ask("predict", "pond", "--input", str(given))
        assert (status, told in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["predict", "pond", "n=11", "ratio=x"], 2, "  ratio: Not a valid number."),
        (["predict", "pond", "rati=1"], 2, "did you mean 'ratio'?"),
        (["predict", "pond", "n=1", "n=2"], 2, "n is given twice, and is no list"),
        (["predict", "pond", "data=nowhere.txt"], 6, "nowhere.txt is none"),
        (["predict", "pond", "mode=raise"], 4, "ValueError: too deep"),
        (["predict", "pond", "mode=abort"], 4, "was ended by SIGABRT"),
        (["predict", "pnod"], 6, "did you mean 'pond'?"),
        (["predict"], 2, "which NAME?"),
        (["predict", "pond", "config=other"], 2, "config= is given 2 times"),
        (["cancel", "pond"], 2, "which TRAINING?"),
        (["cancel", "pond", "0123"], 6, "there is no training 0123"),
        (["train", "lake"], 2, "lake has no train"),
        (["train", "pond"], 2, "epochs: Missing data for required field."),
    ],
)
def test_a_mistake_is_told_and_nothing_is_left(words, status, text, ask, tmp_path):
    ended, _, err = ask(*words)
    assert (ended, text in err, "ai4sdk/cli/" in err) == (status, True, False), err
    assert not (tmp_path / "trainings").exists()


def test_a_module_is_trained_and_the_server_knows_of_it(ask, serve, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("1,2")
    status, out, err = ask("train", "pond", "epochs=3", f"data={table}")
    record = json.loads(out)
    assert (status, record["status"]) == (0, "done")
    assert record["result"]["output"] == {"epochs": 3, "read": "1,2"}
    assert "training for 3 epochs" in err
    assert table.exists()
    client = serve("pond", folder=tmp_path / "trainings")
    assert client.get("/v2/models/pond/train/").json() == [record]
    begun = client.post("/v2/models/pond/train/", params={"epochs": 1}).json()["uuid"]
    wait_for(lambda: f"{begun}  done" in ask("trainings", "pond")[1], 30)


def test_a_training_that_fails_ends_the_command_with_its_reason(ask):
    status, out, err = ask("train", "pond", "epochs=1", "fail=true")
    assert (status, out) == (4, "")
    assert ": it ran dry" in err
    assert ask("train", "pond", "epochs=1", "answer=vanish")[0] == 5


def test_a_training_that_is_left_alone_is_listed_and_cancelled(ask):
    assert "no trainings of pond" in ask("trainings", "pond")[1]
    uuid = ask("train", "pond", "epochs=1", "seconds=60", "--detach")[1].split()[0]
    assert f"{uuid}  running" in ask("trainings", "pond")[1]
    assert ask("cancel", "pond", uuid[:8])[:2] == (0, f"training {uuid} is cancelled\n")
    assert [record["status"] for record in json.loads(ask("trainings", "pond", "--json")[1])] == ["cancelled"]
    assert ask("cancel", "pond", uuid)[1] == f"training {uuid} is taken away\n"


def test_ctrl_c_stops_the_training_that_is_watched(ask, command):
    with command("train", "pond", "epochs=1", "seconds=60") as process:
        wait_for(lambda: "training for 1 epochs" in process.stderr.readline(), 60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "was stopped" in err) == (130, True)
    assert "cancelled" in ask("trainings", "pond")[1]
