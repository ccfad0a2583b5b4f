"""Our backends keep what every backend promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ai4sdk.testing.backends import BackendContract

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class TestLocal(BackendContract):
    options = ("backend.kind=local",)


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
class TestSlurm(BackendContract):
    options = ("backend={kind: slurm, env: {OMP_NUM_THREADS: '2'}}",)


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
class TestRay(BackendContract):
    options = ("backend={kind: ray, env: {OMP_NUM_THREADS: '2'}}",)


class TestKubernetes(BackendContract):
    """On a stand-in for Kubernetes, whose claim is mounted here, too."""

    @pytest.fixture(autouse=True)
    def cluster(self, project: Path, kubernetes: Any) -> None:
        kubernetes.claims["pond"] = project
        options = {"kind": "kubernetes", "image": "pond", "claim": "pond", "mount_path": str(project)}
        words = ", ".join(f"{key}: {value}" for key, value in options.items())
        self.options = (f"backend={{{words}, env: {{OMP_NUM_THREADS: '2'}}}}",)  # type: ignore[misc]
