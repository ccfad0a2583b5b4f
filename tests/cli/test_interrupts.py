"""No interrupt is lost between starting something and watching it, and none is passed on twice."""

from __future__ import annotations

import os
import signal

import pytest

from ai4sdk.cli.interrupts import interrupts_held, interrupts_stop
from ai4sdk.cli.study import main as study_command
from ai4sdk.cli.study import run_study
from ai4sdk.runs.store import list_studies
from ai4sdk.studies import launch


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_while_something_starts_stops_it_once_it_is_watched():
    stopped: list[bool] = []
    with interrupts_held():
        interrupt()
        assert stopped == []
        with interrupts_stop(stopped.append, lambda text: None):
            assert stopped == [False]
            interrupt()
            assert stopped == [False, True]
            with pytest.raises(KeyboardInterrupt):
                interrupt()


def test_without_an_interrupt_nothing_is_stopped_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    stopped: list[bool] = []
    with interrupts_held(), interrupts_stop(stopped.append, lambda text: None):
        pass
    assert stopped == []
    assert signal.getsignal(signal.SIGINT) is before


def test_what_hangs_while_it_starts_can_be_left_by_a_second_interrupt():
    with interrupts_held():
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()


@pytest.mark.slow
def test_a_study_that_is_interrupted_as_it_starts_does_not_go_on_unseen(function_project, monkeypatch, capsys):
    original = launch._start_engine

    def start_engine(*args: object, **options: object) -> object:
        engine = original(*args, **options)
        interrupt()
        return engine

    monkeypatch.setattr(launch, "_start_engine", start_engine)
    assert (
        run_study(["config=pond.yaml", "function.boats=range(1,300)"], ["ai4sdk", "run"], detach=False, wait=False)
        == 130
    )
    (study,) = list_studies(function_project / "runs")
    assert study.state.state == "cancelled"
    assert study.id in capsys.readouterr().err
    assert study_command("study", ["resume", study.id]) == 130
