"""A training outlives the server; whoever asks later is told the truth about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ai4sdk.errors import EnvironmentFault
from ai4sdk.serving.deepaas.calls import Found
from ai4sdk.serving.deepaas.trainings import TooMany, Trainings, _holders
from ai4sdk.testing.helpers import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.engine]


@pytest.fixture
def trainings(environment, tmp_path):
    return Trainings(tmp_path / "pond", environment / "bin" / "python", "pond")


def again(trainings):
    """Return what a server that was started anew knows."""
    return Trainings(trainings.folder, trainings.python, trainings.name)


def start(trainings, **values):
    values = {"epochs": 2, **values}
    return trainings.start(Found(values), values)["uuid"]


def test_a_server_that_was_killed_finds_its_training_running_and_then_done(environment, trainings, tmp_path):
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from ai4sdk.serving.deepaas.calls import Found
        from ai4sdk.serving.deepaas.trainings import Trainings
        trainings = Trainings(Path({str(trainings.folder)!r}), Path({str(trainings.python)!r}), "pond")
        trainings.start(Found({{"epochs": 7, "seconds": 2.0}}), {{}})
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    (record,) = trainings.list()
    assert record["status"] == "running"
    wait_for(lambda: trainings.list()[0]["status"] != "running", 60)
    assert trainings.get(record["uuid"])["result"]["output"] == {"epochs": 7}


def test_a_training_whose_process_was_killed_is_lost_and_says_so(trainings):
    uuid = start(trainings, seconds=60)
    wait_for(lambda: "training for 2 epochs" in (trainings.folder / uuid / "log.txt").read_text(), 30)
    assert again(trainings).get(uuid)["status"] == "running"
    os.kill(trainings._children[0].pid, signal.SIGKILL)
    wait_for(lambda: trainings.get(uuid)["status"] != "running", 10)
    record = again(trainings).get(uuid)
    assert record["status"] == "error"
    assert record["message"].startswith("lost: its process is gone and has left no result")
    assert record["message"].endswith("it said last: training for 2 epochs")


def test_a_restarted_server_cancels_what_an_earlier_one_started(trainings):
    uuid = start(trainings, seconds=60)
    pid = trainings._children[0].pid
    assert again(trainings).cancel(uuid)["status"] == "cancelled"
    trainings.list()  # lets go of the process, which is a child of the test
    assert not Path(f"/proc/{pid}").exists()
    assert again(trainings).get(uuid)["status"] == "cancelled"
    assert again(trainings).cancel(uuid)["status"] == "cancelled"  # and now it is taken away
    assert again(trainings).get(uuid) is None


def test_a_training_that_does_not_listen_is_killed_with_all_it_has_started(trainings, monkeypatch):
    monkeypatch.setattr("ai4sdk.serving.deepaas.trainings._GRACE", 0.5)
    uuid = start(trainings, seconds=60, answer="stubborn")
    log = trainings.folder / uuid / "log.txt"
    wait_for(lambda: log.read_text().count("not going") == 2, 30)
    assert trainings.cancel(uuid)["status"] == "cancelled"
    assert not list(_holders(trainings.folder / uuid / "lock"))


def test_cancelling_right_after_the_start_works(trainings):
    for _ in range(5):
        uuid = start(trainings, seconds=60)
        assert trainings.cancel(uuid)["status"] == "cancelled"
    assert not trainings._children


@pytest.mark.parametrize(
    ("values", "status", "text"),
    [
        ({"fail": True}, "error", "it ran dry"),
        ({"answer": "vanish"}, "error", "lost"),
        ({"epochs": "many"}, "error", "Not a valid integer"),
        ({"answer": "silent", "fail": True}, "error", "it ran dry"),
        ({"answer": "unserialisable"}, "done", "train answered what JSON has no form for: a builtins.set"),
    ],
)
def test_how_a_training_ended_is_told(values, status, text, trainings):
    uuid = start(trainings, seconds=0, **values)
    wait_for(lambda: trainings.get(uuid)["status"] != "running", 60)
    record = trainings.get(uuid)
    assert record["status"] == status
    assert text in record["message"]


def test_several_are_listed_in_the_order_they_began(trainings):
    begun = [start(trainings, seconds=0) for _ in range(3)]
    assert [record["uuid"] for record in again(trainings).list()] == begun
    wait_for(lambda: all(record["status"] == "done" for record in trainings.list()), 60)


def test_trainings_wait_for_their_turn_also_when_the_server_was_started_anew(trainings):
    first = start(trainings, seconds=60)
    wait_for(lambda: "training for" in (trainings.folder / first / "log.txt").read_text(), 30)
    second = start(again(trainings), seconds=0)
    log = trainings.folder / second / "log.txt"
    wait_for(lambda: log.read_text() == "waiting until another training has ended\n", 30)
    assert trainings.get(second)["status"] == "running"
    third = start(trainings, seconds=0)
    assert trainings.cancel(third)["status"] == "cancelled"  # one that waits is stopped, too
    trainings.cancel(first)
    wait_for(lambda: trainings.get(second)["status"] == "done", 60)


def test_as_many_as_said_train_at_once(environment, tmp_path):
    both = Trainings(tmp_path / "pond", environment / "bin" / "python", "pond", 2)
    begun = [start(both, seconds=60) for _ in range(2)]
    for uuid in begun:
        wait_for(lambda log=both.folder / uuid / "log.txt": "training for" in log.read_text(), 30)
        both.cancel(uuid)


def test_trainings_that_nobody_can_want_are_refused(trainings, monkeypatch):
    monkeypatch.setattr("ai4sdk.serving.deepaas.trainings._MOST_WAITING", 2)
    begun = [start(trainings, seconds=60) for _ in range(2)]
    with pytest.raises(TooMany, match="2 trainings of pond run or wait already"):
        start(trainings)
    for uuid in begun:
        trainings.cancel(uuid)
    assert trainings.get(start(trainings, seconds=0))["status"] == "running"


def test_damaged_records_are_told_of_and_hide_no_other(trainings):
    uuid = start(trainings, seconds=0)
    wait_for(lambda: trainings.get(uuid)["status"] == "done", 60)
    (trainings.folder / uuid / "outcome.json").write_text('{"status": "do')
    broken = trainings.folder / ("0" * 32)
    broken.mkdir()
    (broken / "training.json").write_text("")
    records = {record["uuid"]: record for record in trainings.list()}
    assert records[uuid]["status"] == records[broken.name]["status"] == "error"
    assert "its outcome cannot be read" in records[uuid]["message"]
    assert "its record cannot be read" in records[broken.name]["message"]


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../" * 3 + "etc", "A" * 32, "0" * 31, "0" * 32 + "\n"])
def test_a_name_that_is_none_leads_nowhere(name, trainings):
    (trainings.folder / ("0" * 31)).mkdir(parents=True)
    assert trainings.get(name) is None
    assert trainings.cancel(name) is None
    assert trainings.folder.is_dir()


def test_an_interpreter_that_is_gone_leaves_no_training(tmp_path):
    trainings = Trainings(tmp_path / "pond", tmp_path / "python", "pond")
    with pytest.raises(EnvironmentFault, match="cannot be started"):
        start(trainings)
    assert trainings.list() == []
    assert list(trainings.folder.iterdir()) == []


def test_what_was_asked_is_kept_as_it_was(trainings):
    uuid = start(trainings, seconds=0, answer="plain")
    asked = json.loads((trainings.folder / uuid / "training.json").read_text())
    assert asked["values"]["answer"] == {"value": "plain"}
    assert asked["args"] == {"epochs": 2, "seconds": 0, "answer": "plain"}
