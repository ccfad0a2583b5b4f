"""Being asked to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from ai4sdk.worker.signals import StopRequest, StopTraining


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nobody_asked() -> None:
    StopRequest().check()


def test_asked() -> None:
    stop = StopRequest()
    stop.ask()
    with pytest.raises(StopTraining, match="stopped on request"):
        stop.check()


@pytest.mark.parametrize(("wall_time", "ends"), [(3600.0, 3570.0), (100.0, 90.0), (10.0, 9.0)])
def test_the_task_stops_shortly_before_its_time_is_over(wall_time: float, ends: float) -> None:
    clock = Clock()
    stop = StopRequest(wall_time, clock=clock)
    clock.now += ends - 0.1
    assert stop.reason is None
    clock.now += 0.2
    assert stop.reason == "wall time reached"


def test_the_user_code_cannot_swallow_the_stop() -> None:
    assert not issubclass(StopTraining, Exception)


def test_code_that_does_not_ask_is_interrupted_at_the_end_of_its_time() -> None:
    stop = StopRequest(0.2)
    began = time.monotonic()
    with pytest.raises(StopTraining, match="wall time reached"), stop.interrupting():
        time.sleep(10)
    assert time.monotonic() - began < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_code_that_swallows_the_interruption_is_stopped_when_it_returns() -> None:
    stop = StopRequest(0.2)
    with pytest.raises(StopTraining), stop.interrupting(), contextlib.suppress(BaseException):
        time.sleep(10)


def test_code_that_comes_to_its_end_in_time_is_not_interrupted() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with StopRequest(60).interrupting():
        pass
    assert signal.getsignal(signal.SIGALRM) is before


def test_after_the_request_nothing_is_begun() -> None:
    stop = StopRequest()
    stop.ask()
    with pytest.raises(StopTraining), stop.interrupting():
        pytest.fail("it began")


CHILD = """
import os, signal, sys, time
from ai4sdk.worker.signals import StopRequest
stop = StopRequest()
stop.listen()
if "orderly" in sys.argv:
    stop.orderly()
if "fork" in sys.argv and (child := os.fork()):
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status), stop.reason, flush=True)
    sys.exit()
print(os.getpid(), flush=True)
while stop.reason is None or "stubborn" in sys.argv:
    time.sleep(0.01)
print(stop.reason, flush=True)
"""


def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_nothing_to_lose_a_signal_ends_the_process(number: signal.Signals) -> None:
    process, pid = start()
    os.kill(pid, number)
    assert process.wait(20) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_later_a_signal_is_remembered(number: signal.Signals) -> None:
    process, pid = start("orderly")
    os.kill(pid, number)
    assert process.communicate(timeout=20)[0].strip() == "stopped on request"
    assert process.returncode == 0


def test_a_second_signal_ends_a_process_that_does_not_stop() -> None:
    process, pid = start("orderly", "stubborn")
    os.kill(pid, signal.SIGINT)
    while process.poll() is None:
        time.sleep(0.1)
        os.kill(pid, signal.SIGINT)
    assert process.returncode == 130


def test_a_forked_child_dies_of_a_signal_and_its_parent_is_not_asked_to_stop() -> None:
    process, child = start("orderly", "fork")
    os.kill(child, signal.SIGTERM)
    assert process.communicate(timeout=20)[0].split() == [str(int(signal.SIGTERM)), "None"]
