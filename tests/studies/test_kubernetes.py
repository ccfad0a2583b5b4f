"""Studies on the stand-in for Kubernetes: their points are Jobs, whose runs lie on a claim that is mounted here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ai4sdk
from ai4sdk.runs.state import State
from ai4sdk.testing.helpers import command, wait_for
from tests.studies.calls import CODE, started, states_of

pytestmark = pytest.mark.slow

CONFIG = """
name: call
function: {{_target_: mine.score, x: 0}}
tracking: {{kind: none}}
backend: {{kind: kubernetes, image: "pond:1", claim: pond, mount_path: {mount}}}
sweep: {{objective: loss}}
"""


@pytest.fixture
def calls(project: Path, kubernetes: Any) -> Path:
    kubernetes.claims["pond"] = project
    (project / "mine.py").write_text(CODE)
    (project / "configs/call.yaml").write_text(CONFIG.format(mount=project))
    return project


def test_the_points_of_a_grid_are_jobs_and_so_many_at_once_as_are_wanted(calls: Path, kubernetes: Any) -> None:
    study = ai4sdk.study(
        "call", "function.x=range(5)", "+function.fails=1", "+function.until=go", "sweep.parallel=2", wait=False
    )
    wait_for(lambda: len(started(calls)) == 2)
    assert len(kubernetes.get("jobs")) == 2
    (calls / "go").touch()
    study.wait(timeout=300, check=False)
    assert states_of(study) == {"succeeded": 4, "failed": 1}
    assert "point 1: function: mine.score raised ValueError: the pond is empty" in str(study.status.cause)
    assert (study.folder / "best.yaml").exists()
    assert len({job["metadata"]["name"] for job in kubernetes.get("jobs")}) == 5
    assert started(calls) == ["0", "1", "2", "3", "4"]


def test_a_study_that_is_cancelled_leaves_nothing_in_the_cluster_and_goes_on(calls: Path, kubernetes: Any) -> None:
    study = ai4sdk.study("call", "function.x=range(3)", "+function.until=go", "sweep.parallel=2", wait=False)
    wait_for(lambda: len(started(calls)) == 2)
    assert command("study", "cancel", study.id).returncode == 0
    assert study.state is State.CANCELLED
    wait_for(lambda: not kubernetes.get("jobs"))
    (calls / "go").touch()
    study.resume()
    assert states_of(study) == {"succeeded": 3}


def test_a_study_whose_figures_would_not_be_seen_here_is_refused(calls: Path) -> None:
    (calls / "configs/call.yaml").write_text(CONFIG.format(mount="/workspace"))
    refused = command("run", "-m", "config=call", "function.x=1,2")
    assert refused.returncode == 2
    assert "is not on the claim, which pods see at /workspace" in refused.stderr
    assert "backend.mount_path" in refused.stderr
    assert not list(Path("runs").glob("*"))
