"""The agent starts a process a rank, tells each who it is, and lets none outlive another's failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ai4sdk.backends.agent import End, which_counts
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths

AGENT = """
import sys
from pathlib import Path
from ai4sdk.backends.agent import start_ranks
from ai4sdk.runs.layout import RunPaths
run = RunPaths(Path(sys.argv[1]))
sys.exit(start_ranks(run, "train", int(sys.argv[2]), [sys.executable, "-c", sys.argv[3], sys.argv[1]]))
"""

START = """
import os, signal, sys, time
from pathlib import Path
root, rank = Path(sys.argv[1]), int(os.environ["RANK"])
def others(name):
    while len(list(root.glob(name + ".*"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.005)
def here(name):
    (root / f"{name}.{rank}").write_text(str(os.getpid()))
"""


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "run")
    paths.logs.mkdir(parents=True)
    return paths


def agent(run: RunPaths, code: str, ranks: int = 2, **options: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", AGENT, str(run.root), str(ranks), START + code]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(path: Path) -> int:
    while not path.exists() or not path.read_text():
        pass
    return int(path.read_text())


def test_each_rank_knows_who_it_is_and_has_a_log_of_its_own(run):
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"]
    process = agent(run, f"print([os.environ[name] for name in {names}])", ranks=3)
    said, _ = process.communicate()
    assert process.returncode == 0
    assert said == "['0', '0', '3', '3', '127.0.0.1']\n"
    assert run.log("train", 2).read_text() == "['2', '2', '3', '3', '127.0.0.1']\n"
    assert sorted(path.name for path in run.logs.iterdir()) == ["train.rank1.log", "train.rank2.log"]


def test_the_port_is_open_before_anybody_looks_for_it_and_closed_to_other_machines(run):
    code = """
import socket
if rank:
    others_socket = socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
    others_socket.sendall(b"hello")
else:
    listening = socket.socket(fileno=int(os.environ["AI4SDK_LISTEN_FD"]))
    print(listening.getsockname()[0], listening.accept()[0].recv(5).decode())
"""
    said, _ = agent(run, code).communicate()
    assert said == "127.0.0.1 hello\n"


def test_what_was_handed_to_the_agent_is_handed_on(run):
    held, kept = os.pipe()
    try:
        process = agent(run, f"os.write({kept}, str(rank).encode())", pass_fds=[kept])
        process.communicate()
        assert sorted(os.read(held, 2).decode()) == ["0", "1"]
    finally:
        os.close(held)
        os.close(kept)


def test_when_a_rank_fails_the_others_are_ended_at_once(run):
    process = agent(run, "here('up'); others('up')\nif rank == 1: sys.exit(4)\ntime.sleep(3600)")
    process.communicate()
    assert process.returncode == 4
    assert gone(wait_for(run.root / "up.0"))


@pytest.mark.parametrize(
    ("number", "status", "cause"),
    [
        (signal.SIGKILL, 5, "rank 1 was killed (SIGKILL: kill -9, or out of memory)"),
        (signal.SIGSEGV, 4, "rank 1 crashed with SIGSEGV"),
        (signal.SIGTERM, 5, "rank 1 was told to stop from outside"),
    ],
)
def test_a_rank_that_a_signal_ended_is_named(run, number, status, cause):
    code = f"here('up'); others('up')\nif rank == 1: os.kill(os.getpid(), {int(number)})\ntime.sleep(3600)"
    process = agent(run, code)
    process.communicate()
    assert process.returncode == status
    assert read_json(run.failure)["cause"] == cause
    assert gone(wait_for(run.root / "up.0"))


def test_being_told_to_stop_reaches_all_and_the_agent_waits_for_their_good_order(run):
    code = """
def stop(*_):
    here("stopped"); others("stopped"); os._exit(130)
signal.signal(signal.SIGTERM, stop)
here("up"); time.sleep(3600)
"""
    process = agent(run, code)
    for rank in range(2):
        wait_for(run.root / f"up.{rank}")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 130
    assert len(list(run.root.glob("stopped.*"))) == 2
    assert not run.failure.exists()


def test_ranks_are_told_to_stop_when_the_agent_is_killed(run):
    process = agent(run, "here('up'); time.sleep(3600)")
    pids = [wait_for(run.root / f"up.{rank}") for rank in range(2)]
    process.kill()
    process.communicate()  # until the last of them has closed its output
    while not all(map(gone, pids)):
        pass


@pytest.mark.parametrize(
    ("ends", "counts"),
    [
        ([End(1, 0), End(0, 0)], End(0, 0)),
        ([End(1, 0), End(0, 4)], End(0, 4)),
        ([End(0, 5), End(1, 4)], End(1, 4)),  # rank 0 noticed that rank 1 was gone before we did
        ([End(0, 5), End(1, -9)], End(1, -9)),
        ([End(1, 130), End(0, 130)], End(0, 130)),
        ([End(1, 5), End(0, 5)], End(0, 5)),
        ([End(1, 4), End(0, 4)], End(1, 4)),
    ],
)
def test_the_end_that_counts_is_the_first_real_failure(ends, counts):
    assert which_counts(ends) == counts


def test_the_agent_imports_nothing_heavy():
    code = "import sys, ai4sdk.backends.agent; print([n for n in ('torch', 'numpy', 'pydantic', 'yaml') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
