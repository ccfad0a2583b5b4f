"""The engine that is made ready while a study is planned: it gets its study, or goes without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ai4sdk.cli.app import main
from ai4sdk.runs.state import State, read_state
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.ready import ReadyEngine, ready_engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

JOB = """
defaults: [base, _self_]
name: nothing
function: {_target_: nothing.nothing, x: 0}
hardware: {cpus: 1}
tracking: {kind: none}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/nothing.yaml").write_text(JOB)
    (tmp_path / "nothing.py").write_text("def nothing(x=0):\n    return x\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def the_study(project: Path) -> StudyPaths:
    (folder,) = (path.parent for path in project.glob("runs/*/study.json"))
    return StudyPaths(folder)


def engines() -> list[psutil.Process]:
    """Return the engines that this process has started and that still run."""
    found = psutil.Process().children()
    return [one for one in found if one.status() != psutil.STATUS_ZOMBIE and "--ready" in one.cmdline()]


def test_a_study_is_run_by_the_engine_that_was_ready(project: Path) -> None:
    assert main(["run", "-m", "config=nothing", "function.x=1,2"]) == 0
    study = the_study(project)
    assert read_state(study).state is State.SUCCEEDED
    log = "\n".join(path.read_text() for path in study.logs.iterdir())
    assert "Traceback" not in log


def test_one_that_gets_no_study_ends_and_leaves_nothing(project: Path) -> None:
    with ready_engine() as engine:
        assert engine is not None
        assert engine.process.poll() is None
    assert engine.process.wait(30) == 0
    assert not (project / "runs").exists()


def test_a_mistake_in_the_config_leaves_no_engine(project: Path) -> None:
    assert main(["run", "-m", "config=nothing", "function.x=1,2", "sweep.serch=grid"]) == 2
    deadline = time.monotonic() + 30
    while engines() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engines() == []


def test_one_whose_planner_is_killed_ends(project: Path) -> None:
    code = (
        "import os, time; from ai4sdk.studies.ready import ReadyEngine\n"
        "print(ReadyEngine().process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as planner:
        assert planner.stdout is not None
        engine = psutil.Process(int(planner.stdout.readline()))
        planner.kill()
    assert engine.wait(30) in (0, None)


def test_one_that_was_killed_is_replaced(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Killed(ReadyEngine):
        def __init__(self) -> None:
            super().__init__()
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            made.append(self)

    monkeypatch.setattr("ai4sdk.studies.ready.ReadyEngine", Killed)
    assert main(["run", "-m", "config=nothing", "function.x=1,2"]) == 0
    assert len(made) == 1
    assert read_state(the_study(project)).state is State.SUCCEEDED
