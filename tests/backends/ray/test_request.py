"""The request that is submitted, word for word. `AI4SDK_GOLDEN=write` writes the golden files anew; then read the diff."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.backends.ray.request import job_request
from ai4sdk.errors import ConfigError
from ai4sdk.runs.layout import RunPaths

GOLDEN = Path(__file__).parent / "golden"
RUN = RunPaths(Path("/home/ana/my pond/runs/20260102-030405-pond-abcd"))
BACKEND = "+backend={kind: ray, python: /opt/venv/bin/python%s}"
REQUESTS = {
    "plain": (BACKEND % "",),
    "gpu": (
        BACKEND % ", resources: {fast-disk: 0.5}, grace: 90.5s",
        "+hardware={cpus: 8, gpus: 2, gpu_model: A100, memory: 64GiB}",
        "training=ddp",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_request_is_as_it_was_approved(project: Path, name: str) -> None:
    plan = ai4sdk.plan("train", *REQUESTS[name]).model_copy(update={"digest": "sha256:0000"})
    request = json.dumps(job_request(plan, RUN, attempt=2), indent=2) + "\n"
    golden = GOLDEN / f"{name}.json"
    if os.environ.get("AI4SDK_GOLDEN") == "write":
        golden.write_text(request)
    assert request == golden.read_text()


def test_the_entrypoint_is_one_command_whatever_the_folder_is_called(project: Path) -> None:
    run = RunPaths(Path("/home/ana/; touch '$HOME' #/runs/one"))
    entrypoint = job_request(ai4sdk.plan("train", "+backend={kind: ray, python: printf %s}"), run, 1)["entrypoint"]
    said = subprocess.run(["sh", "-c", entrypoint], capture_output=True, text=True, check=True)
    assert said.stdout == f"-P-mai4sdk.backends.ray{run.root}1one-1"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("++backend.address=ray://head:10001", "backend.address must be text that fits"),
        ("++backend.resources={pond: 0}", "more than 0"),
        ("++hardware.nodes=2", "a Ray job of a run is on one node"),
    ],
)
def test_what_ray_would_not_take_is_a_mistake_of_the_config(project: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ai4sdk.plan("train", "+backend=ray", override)


def test_planning_for_ray_imports_none(project: Path) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "ai4sdk", "plan", "config=train", "+backend=ray", "--script"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["submission_id"].startswith("train-")
    assert not [
        line for line in shown.stderr.splitlines() if line.split("|")[-1].strip() in ("ray", "torch", "requests")
    ]
