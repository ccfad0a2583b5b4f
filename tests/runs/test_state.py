"""A run's state is believed only while somebody holds its lock."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ai4sdk.errors import EnvironmentFault, NotFound
from ai4sdk.runs.files import append_json_line, overwrite_json, read_json, read_json_lines, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, hold_lock, is_alive, read_state, write_last, write_state
from ai4sdk.runs.store import create_run, fill_run, find_run, list_runs

FILES = {"plan.json": "{}"}


def test_a_new_run_is_queued_while_its_lock_is_held(tmp_path):
    run, lock = create_run(tmp_path, "job", FILES)
    assert read_state(run).state is State.QUEUED
    os.close(lock)
    state = read_state(run)
    assert state.state is State.INTERRUPTED
    assert state.exit_code == 5


@pytest.mark.parametrize("reference", ["latest", "job"])
def test_a_run_without_a_readable_state_is_no_latest_run(tmp_path, reference):
    run, lock = create_run(tmp_path, "job", FILES)
    os.close(lock)
    run.state.write_text("{")
    with pytest.raises(NotFound, match="there is no run"):
        find_run(reference, tmp_path)


def test_a_run_whose_process_is_killed_is_interrupted(tmp_path):
    run, lock = create_run(tmp_path, "job", FILES)
    write_state(run, RunState(State.RUNNING, created=time.time()))
    holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lock])
    os.close(lock)
    assert read_state(run).state is State.RUNNING
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert read_state(run).state is State.INTERRUPTED


def test_an_ended_run_stays_as_it_ended(tmp_path):
    run, lock = create_run(tmp_path, "job", FILES)
    write_state(run, RunState(State.FAILED, cause="because", exit_code=4))
    os.close(lock)
    assert read_state(run).cause == "because"


def test_only_one_holds_the_lock(tmp_path):
    run, lock = create_run(tmp_path, "job", FILES)
    assert hold_lock(run) is None
    os.close(lock)
    again = hold_lock(run)
    assert again is not None
    assert is_alive(run)
    os.close(again)


def test_a_run_is_made_in_a_given_folder_once(tmp_path):
    folder = tmp_path / "points" / "00007"
    (folder / "logs").mkdir(parents=True)  # as a kill left it
    lock = fill_run(folder, FILES)
    run = RunPaths(folder)
    assert (run.id, read_state(run).state) == (f"{tmp_path.name}/7", State.QUEUED)
    assert hold_lock(run) is None
    with pytest.raises(EnvironmentFault, match="is a run already"):
        fill_run(folder, FILES)
    os.close(lock)


def test_runs_are_found_by_id_prefix_name_suffix_latest_and_folder(tmp_path):
    first, lock1 = create_run(tmp_path, "fish", FILES)
    time.sleep(0.01)
    second, lock2 = create_run(tmp_path, "fish", FILES)
    for lock in (lock1, lock2):
        os.close(lock)
    assert find_run(first.id, tmp_path).id == first.id
    assert find_run(first.id[-4:], tmp_path).id == first.id
    assert find_run("fish", tmp_path).id == second.id
    assert find_run("latest", tmp_path).id == second.id
    assert find_run(str(first.root), tmp_path / "elsewhere").id == first.id
    assert [run.id for run in list_runs(tmp_path)] == [first.id, second.id]
    with pytest.raises(NotFound, match="2 runs begin"):
        find_run(first.id[:8], tmp_path)
    with pytest.raises(NotFound, match="no run 'whale'"):
        find_run("whale", tmp_path)


def test_no_runs_says_how_to_make_one(tmp_path):
    with pytest.raises(NotFound, match="ai4sdk run"):
        find_run("latest", tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        create_run(tmp_path / "runs", "job", FILES)


def test_a_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_json_line(path, {"a": 1})
    with open(path, "a") as file:
        file.write('{"a": 2, "b"')
    assert list(read_json_lines(path)) == [{"a": 1}]


def test_a_kill_while_writing_leaves_old_or_new(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old" * 1000)
    code = f"""
import sys; from pathlib import Path; from ai4sdk.runs.files import write_text
while True:
    for text in ("old", "new"):
        write_text(Path({str(path)!r}), text * 1000, durable=False)
"""
    for moment in range(8):
        writer = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(0.15 + moment * 0.013)
        writer.kill()
        writer.wait()
        assert path.read_text() in ("old" * 1000, "new" * 1000)


def test_a_point_of_a_study_is_a_run_wherever_it_ran(tmp_path):
    studies = []
    for second in (1, 2):
        study = tmp_path / f"20260101-00000{second}-fish-abcd"
        os.close(fill_run(study, {"study.json": "{}"}))
        studies.append(study)
    first, second = studies
    os.close(fill_run(first / "points" / "00000", FILES))
    append_json_line(second / "points.jsonl", {"event": "reused", "number": 4, "run": f"{first.name}/points/00000"})
    assert find_run("fish/4", tmp_path).id == find_run(f"{first.name}/0", tmp_path).id == f"{first.name}/0"
    with pytest.raises(NotFound, match="point 5 of 20260101-000002-fish-abcd has not run"):
        find_run("fish/5", tmp_path)
    with pytest.raises(NotFound, match="fish is a study, not a run"):
        find_run("fish", tmp_path)


LOOKING = """
import sys
from pathlib import Path
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import is_alive
print("looking", flush=True)
while True:
    is_alive(RunPaths(Path(sys.argv[1])))
"""


def test_who_only_looks_keeps_nobody_from_the_lock(tmp_path):
    run, lock = create_run(tmp_path, "job", FILES)
    os.close(lock)
    with subprocess.Popen([sys.executable, "-c", LOOKING, str(run.root)], stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        locks = []
        for _ in range(3000):
            locks.append(hold_lock(run))
            os.close(locks[-1] or 0)
        watcher.kill()
    assert None not in locks


def test_the_last_state_is_written_to_a_full_disk(tmp_path, monkeypatch):
    run, lock = create_run(tmp_path, "job", FILES)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ai4sdk.runs.state.write_json", full)
    monkeypatch.setattr("ai4sdk.runs.state.append_json_line", full)
    started = time.monotonic()
    write_last(run, RunState(State.FAILED, cause="the disk is full", exit_code=7))
    os.close(lock)
    assert read_state(run) == RunState(State.FAILED, cause="the disk is full", exit_code=7)
    assert time.monotonic() - started < 0.4


def test_a_file_is_overwritten_only_in_the_room_it_has(tmp_path):
    path = tmp_path / "state.json"
    path.write_text('{"cause": "' + "long " * 100 + '"}')
    overwrite_json(path, {"cause": "short"})
    assert read_json(path) == {"cause": "short"}
    with pytest.raises(OSError, match="No space left"):
        overwrite_json(path, {"cause": "x" * 2**20})
    assert read_json(path) == {"cause": "short"}


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, which cuts a write short as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_that_does_not_fit_leaves_nothing_that_would_spoil_the_next(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    append_json_line(path, {"event": "first"})
    with room_for(path.stat().st_size + 10), pytest.raises(OSError, match="No space left"):
        append_json_line(path, {"event": "does not fit"})
    append_json_line(path, {"event": "second"})
    assert [record["event"] for record in read_json_lines(path)] == ["first", "second"]


def test_a_lock_that_is_freed_a_moment_later_can_be_waited_for(tmp_path):
    run, lock = create_run(tmp_path, "job", FILES)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"], pass_fds=[lock]):
        os.close(lock)
        assert hold_lock(run) is None
        started = time.monotonic()
        assert hold_lock(run, patience=0.1) is None
        assert time.monotonic() - started < 0.4
        assert hold_lock(run, patience=10.0) is not None
