"""What it costs to hand a run to Slurm, and to ask how a thousand stand: ours beside sbatch and submitit.

    python benchmarks/slurm.py [--rounds N] [--jobs N]

A Slurm of its own is brought up by tests/slurm/up (root, Debian's packages; see README), and submitit and
hydra-submitit-launcher are installed into a virtual environment beside it. All jobs are held: none begins.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from side_by_side import measure, show

ROOT = Path(__file__).resolve().parent.parent
PORT = "29900"
HELD = "+backend.directives={hold: true}"
COMMANDS = ("squeue", "sacct", "scontrol", "sinfo", "sacctmgr")

SUBMITIT = """
import submitit

def work():
    pass

executor = submitit.AutoExecutor("submitit")
executor.update_parameters(slurm_additional_parameters={"hold": True}, timeout_min=5)
print(executor.submit(work).job_id)
"""

HYDRA_APP = """
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(cfg):
    pass

main()
"""

SUBMIT_MANY = """
import sys, submitit

def work():
    pass

executor = submitit.AutoExecutor("submitit")
executor.update_parameters(slurm_additional_parameters={"hold": True}, timeout_min=5)
print(*(executor.submit(work).job_id for _ in range(int(sys.argv[1]))))
"""

ASK_SUBMITIT = """
import sys, time
from collections import Counter
from pathlib import Path
from submitit.slurm.slurm import SlurmJob

jobs = [SlurmJob(Path("submitit"), job) for job in Path(sys.argv[1]).read_text().split()]
began = time.perf_counter()
states = Counter(job.state for job in jobs)
print(time.perf_counter() - began, dict(states))
"""

START_MANY = """
import sys
from pathlib import Path

import ai4sdk
from ai4sdk.backends.launch import start_run

plan = ai4sdk.plan("nothing.yaml")
for _ in range(int(sys.argv[1])):
    start_run(plan, Path.cwd())
"""

ASK_OURS = """
import time
from collections import Counter
from pathlib import Path

from ai4sdk.backends.standing import current_states
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import read_state

began = time.perf_counter()
runs = [RunPaths(folder) for folder in Path("runs").glob("2*")]
states = Counter(standing.state.state for standing in current_states([(run, read_state(run)) for run in runs]))
print(time.perf_counter() - began, dict(states))
"""

NOTHING = """\
defaults: [base, override backend: slurm, override tracking: none, _self_]
name: nothing
function: {_target_: nothing.work}
backend: {directives: {hold: true}}
"""


@contextmanager
def a_slurm(folder: Path) -> Iterator[None]:
    """Bring a Slurm with accounting up, which commands find, and take it down again."""
    subprocess.run([ROOT / "tests/slurm/up", folder, PORT, "accounting"], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield
    finally:
        subprocess.run([ROOT / "tests/slurm/down", folder], check=True)


def install(folder: Path) -> Path:
    """Return a Python that has what we are compared with."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = ["submitit", "hydra-submitit-launcher"]
    subprocess.run([folder / "bin/pip", "install", "--quiet", *packages], check=True)
    listed = subprocess.run([folder / "bin/pip", "freeze"], check=True, capture_output=True, text=True).stdout
    print("compared with", ", ".join(line for line in listed.split() if "submitit" in line))
    return folder / "bin/python"


def said(*argv: str | Path, path: Path | None = None) -> str:
    """Return what a program prints; with ``path`` that folder's commands come first."""
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{argv} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def processor_time(call: Callable[[], object]) -> float:
    """Return what the processes that a call starts take, at best: on a machine that others use it tells more."""
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        call()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def until_submitted(argv: list[str | Path], noting: Path, note: Path) -> None:
    """Start a program that waits for its jobs, and kill it once sbatch has answered it."""
    note.unlink(missing_ok=True)
    env = {**os.environ, "PATH": f"{noting}:{os.environ['PATH']}"}
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not note.exists():
            if process.poll() is not None:
                raise SystemExit(f"{argv} submitted nothing")
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)


def noting_commands(folder: Path, names: tuple[str, ...], note: Path) -> Path:
    """Make stand-ins for commands that call the real ones and then write a line into a file."""
    folder.mkdir()
    for name in names:
        real = said("which", name).strip()
        file = folder / name
        file.write_text(f'#!/bin/sh\n{real} "$@"\nstatus=$?\necho {name} >>{note}\nexit $status\n')
        file.chmod(0o755)
    return folder


def submitting(folder: Path, python: Path, rounds: int) -> None:
    """Time from the command to the job's number."""
    ours = [sys.executable, "-m", "ai4sdk", "run", "--detach", "config=quickstart", "backend=slurm", HELD]
    shown = said(sys.executable, "-m", "ai4sdk", "plan", *ours[5:], "--script")
    Path("bare.sh").write_text(shown)
    Path("runs/RUN/logs").mkdir(parents=True)
    Path("one.py").write_text(SUBMITIT)
    Path("app.py").write_text(HYDRA_APP)
    note = folder / "submitted"
    noting = noting_commands(folder / "noting", ("sbatch",), note)
    hydra: list[str | Path] = [python, "app.py", "-m", "hydra/launcher=submitit_slurm"]
    hydra.append("+hydra.launcher.additional_parameters={hold: true}")
    options = ["backend.account=deep", "backend.partition=urgent", "backend.qos=long"]
    contenders: dict[str, Callable[[], object]] = {
        "bare sbatch of the same script": lambda: said("sbatch", "--parsable", "bare.sh", "1"),
        "ai4sdk run --detach": lambda: said(*ours),
        "ai4sdk run --detach, account and QoS named": lambda: said(*ours, *options),
        "submitit, a script that submits": lambda: said(python, "one.py"),
        "hydra-submitit-launcher": lambda: until_submitted(hydra, noting, note),
    }
    medians = measure(contenders, rounds)
    bare = "bare sbatch of the same script"
    show("from the command to the job's number", medians, bare)
    for name, call in contenders.items():
        taken = f"; {processor_time(call):.2f} s of processor time" if "hydra" not in name else ""  # that one is killed
        print(f"  {name}: {medians[name] - medians[bare]:+.2f} s over bare sbatch{taken}")
    said("scancel", "--user", "root")


def asking(folder: Path, python: Path, jobs: int, rounds: int) -> None:
    """Time to learn how many jobs stand, and which commands of Slurm are called for that."""
    for name, text in (
        ("nothing.yaml", NOTHING),
        ("nothing.py", "def work():\n    pass\n"),
        ("start_many.py", START_MANY),
        ("ask_ours.py", ASK_OURS),
        ("submit_many.py", SUBMIT_MANY),
        ("ask_submitit.py", ASK_SUBMITIT),
    ):
        Path(name).write_text(text)
    subprocess.run(["rm", "-rf", "runs"], check=True)
    began = time.perf_counter()
    said(sys.executable, "start_many.py", str(jobs))
    print(f"\n{jobs} runs submitted by ai4sdk in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    Path("ids").write_text(said(python, "submit_many.py", str(jobs)))
    print(f"{jobs} jobs submitted by submitit in {time.perf_counter() - began:.0f} s")

    note = folder / "asked"
    counting = noting_commands(folder / "counting", COMMANDS, note)
    inside: dict[str, list[float]] = {"ai4sdk": [], "submitit": []}

    def ask(name: str, *argv: str | Path) -> None:
        seconds, _, states = said(*argv).partition(" ")
        inside[name].append(float(seconds))
        assert name == "submitit" or str(jobs) in states, states  # sacct may lack some of submitit's

    whole: dict[str, tuple[str | Path, ...]] = {
        "ai4sdk": (sys.executable, "ask_ours.py"),
        "submitit": (python, "ask_submitit.py", "ids"),
    }
    for name, argv in (*whole.items(), ("ai4sdk ps", (sys.executable, "-m", "ai4sdk", "ps"))):
        note.unlink(missing_ok=True)
        said(*argv, path=counting)
        print(f"{name} calls {', '.join(note.read_text().split())}")
    medians = measure(
        {
            **{name: lambda name=name, argv=argv: ask(name, *argv) for name, argv in whole.items()},  # type: ignore[misc]
            "ai4sdk ps": lambda: said(*(sys.executable, "-m", "ai4sdk", "ps")),
        },
        rounds,
    )
    show(f"how {jobs} jobs stand, whole processes", medians, "submitit")
    for name, values in inside.items():
        print(f"  {name}: {sorted(values)[len(values) // 2]:.3f} s of it after imports")
    print(json.dumps({"title": "after imports", "seconds": inside}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ai4sdk-slurm-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the daemons' users look into it
        work = folder / "work"
        work.mkdir()
        with a_slurm(folder / "slurm"):
            os.environ.setdefault("PYTHONPATH", str(ROOT))
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a person's Python keeps its bytecode
            os.chdir(work)
            python = install(folder / "venv")
            submitting(folder, python, args.rounds)
            asking(folder, python, args.jobs, args.rounds)


if __name__ == "__main__":
    main()
