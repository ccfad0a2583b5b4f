"""The script that is submitted, word for word. `AI4SDK_GOLDEN=write` writes the golden files anew; then read the diff."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.backends.slurm.backend import SlurmBackend
from ai4sdk.backends.slurm.rank import task_end, variables, without_tasks
from ai4sdk.backends.slurm.script import array_script, batch_script
from ai4sdk.errors import ConfigError
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths

GOLDEN = Path(__file__).parent / "golden"
RUN = RunPaths(Path("/home/ana/pond/runs/20260102-030405-pond-abcd"))
PROJECT = Path("/home/ana/pond")

SCRIPTS = {
    "plain": {},
    "gpu": {
        "hardware": "{cpus: 8, gpus: 1, gpu_model: Tesla V100, memory: 64GiB, disk: 50GB, wall_time: 36h}",
        "backend.partition": "gpu",
        "backend.account": "fisheries",
        "backend.qos": "long",
        "backend.constraint": "'skylake&ib'",
    },
    "short": {"hardware": "{wall_time: 10m}", "backend.warning": "8m"},
    "setup": {
        "hardware": "{wall_time: 90s}",
        "backend.setup": "['module load cuda/12.4', 'source ~/venv/bin/activate']",
        "backend.python": "python",
        "backend.requeues": "0",
        "backend.gres": "card",
        "backend.warning": "10m",
        "+backend.directives": "{exclude: 'n7,n8', exclusive: true, overcommit: false, nice: 100, comment: 'say \"a b\"'}",
    },
}


def plan_of(overrides: dict[str, str]) -> ai4sdk.Plan:
    values = {"backend": "{kind: slurm, python: /opt/venv/bin/python}", **overrides}
    words = [f"{key.removeprefix('+')}={value}" for key, value in values.items()]
    words = [f"++{word}" if word.startswith("backend.") else f"+{word}" for word in words]
    return ai4sdk.plan("train", *words)


def assert_golden(name: str, script: str) -> None:
    script = re.sub(r"sha256:[0-9a-f]{64}", "sha256:0000", script)
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("AI4SDK_GOLDEN") == "write":
        golden.write_text(script)
    assert script == golden.read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_as_it_was_approved(project: Path, name: str) -> None:
    plan = plan_of(SCRIPTS[name])
    script = batch_script(plan, RUN, PROJECT)
    assert_golden(name, script)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_script_of_an_array_is_as_it_was_approved(project: Path) -> None:
    plan, listing = plan_of(SCRIPTS["setup"]), RUN.slurm / "20260102-030405-pond-abcd-2.txt"
    named = {"name": listing.stem, "count": 12, "parallel": 4, "after": "17"}
    script = array_script(plan, listing, RUN.log("slurm"), PROJECT, **named)
    assert_golden("array", script)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_folders_with_odd_names_reach_sbatch_and_the_shell_whole(project: Path) -> None:
    run = RunPaths(Path('/home/ana maria/100%/it\'s "mine"/20260102-030405-pond-abcd'))
    script = batch_script(plan_of({}), run, run.root.parent)
    assert '#SBATCH --chdir="/home/ana maria/100%/it\'s \\"mine\\""' in script
    assert "/100%%/it's" in script
    last = script.splitlines()[-1].replace("exec /opt/venv/bin/python", "printf '%s|'")
    words = subprocess.run(["bash", "-c", last, "job.sh", "3"], capture_output=True, text=True, check=True).stdout
    assert words.split("|")[3:5] == [str(run.root), "3"]


def test_the_job_starts_the_processes_that_this_machine_would(project: Path) -> None:
    submission = SlurmBackend().render(plan_of({}), RUN, PROJECT)
    assert [command.argv[:4] for command in submission.tasks] == [["/opt/venv/bin/python", "-P", "-m", "ai4sdk.worker"]]
    assert submission.tasks[0].env["PYTHONHASHSEED"] == "0"
    assert "script" not in submission.to_json()
    assert type(submission).from_json(submission.to_json()).tasks == submission.tasks


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("++backend.directives={time: 3}", "--time is decided by hardware.wall_time"),
        ("++backend.directives={partition: x}", "--partition is decided by backend.partition"),
        ("++backend.directives={--nice: 3}", "is no long option of sbatch"),
        ('++backend.setup=["a\nb"]', "one line only"),
        ("++backend.partition='a b'", "backend.partition must be text"),
        ("++backend.kind=slrum", "backend.kind must be one of local, slurm"),
        ("++backend.partitoin=x", "no key"),
        ("+hardware.nodes=2", "one process on one node"),
    ],
)
def test_what_slurm_would_stumble_over_is_a_mistake_of_the_config(project: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ai4sdk.plan("train", "+backend={kind: slurm}", override)
    assert message in str(caught.value)


def test_options_of_the_other_backend_are_pointed_out(project: Path) -> None:
    with pytest.raises(ConfigError, match="backend=slurm has it"):
        ai4sdk.plan("train", "+backend.partition=gpu")


@pytest.mark.parametrize(
    ("ends", "status", "meaning"),
    [
        ([(1, 0), (0, 0)], 0, 0),
        ([(1, 130), (0, 130)], 0, 130),
        ([(1, 5), (0, 130)], 0, 130),
        ([(1, 4)], 137, 4),
        ([(0, 5), (1, 4)], 137, 4),
        ([(1, -11)], 139, -11),
        ([(1, 4), (0, 3)], 4, 4),
        ([], 1, 1),
    ],
)
def test_how_ranks_ended_says_how_their_task_did(tmp_path, ends, status, meaning) -> None:
    for moment, (rank, code) in enumerate(ends):
        write_json(tmp_path / f"{rank}.json", {"rank": rank, "status": code, "time": moment})
    assert task_end([tmp_path / "0.json", tmp_path / "1.json"], status) == (meaning, None)


def test_a_rank_is_told_its_place_by_torchruns_names_and_not_by_slurms() -> None:
    step = {
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_NTASKS": "8",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1",
        "SLURM_JOB_ID": "17",
    }
    assert variables(step) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "GROUP_RANK": "1",
    }
    assert without_tasks(step) == {"SLURM_JOB_ID": "17"}
