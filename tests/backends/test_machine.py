"""What a machine does not have is said with the numbers, before anything runs; nothing is refused for it."""

from __future__ import annotations

import ai4sdk
from ai4sdk.backends.local import machine
from ai4sdk.cli.app import main

GIB = 2**30


def test_what_a_plan_asks_for_beyond_this_machine_is_told_with_the_numbers(project, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2})
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: type("Memory", (), {"total": 4 * GIB}))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.shortages(ai4sdk.plan("train", "hardware.cpus=3", "hardware.memory=4GiB")) == []
    cpus, gpus, memory = machine.shortages(
        ai4sdk.plan("train", "hardware.cpus=4", "hardware.gpus=1", "hardware.memory=5GiB")
    )
    assert "hardware.cpus is 4, this machine has 3" in cpus
    assert "hardware.gpus is 1, this machine shows none" in gpus
    assert "hardware.memory is 5 GiB, this machine has 4 GiB" in memory


def test_a_plan_and_a_study_that_do_not_fit_say_so(project, capsys):
    assert main(["plan", "config=train", "hardware.cpus=9999"]) == 0
    assert "warning" in (told := capsys.readouterr().out)
    assert "hardware.cpus is 9999" in told
    assert main(["plan", "-m", "config=train", "hardware.cpus=1,9999"]) == 0
    told = capsys.readouterr().out
    assert "warning: hardware.cpus is 9999" in told
    assert "1 at once" in told
