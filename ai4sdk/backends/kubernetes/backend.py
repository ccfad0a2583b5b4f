"""Plan → one Job, and how its run stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ai4sdk.backends.base import Command, Submission
from ai4sdk.backends.kubernetes.manifests import manifests, pod_project, pod_run, to_yaml
from ai4sdk.backends.local.backend import LocalBackend
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths

__all__ = ["KubernetesBackend"]


class KubernetesBackend:
    """Hands a run to Kubernetes as one Job; inside of its pod the run is supervised as it is on any machine."""

    def render(self, plan: Plan, run: RunPaths, project: Path) -> Submission:
        """Say what would be created, and which processes the pod would start."""
        inside = RunPaths(Path(pod_run(plan, run)))
        local = LocalBackend().render(plan, inside, Path(pod_project(plan, project)))

        def moved(command: Command) -> Command:
            return replace(command, argv=["python", *command.argv[1:]])

        return replace(
            local,
            backend="kubernetes",
            project=str(project),
            tasks=[moved(command) for command in local.tasks],
            sidecars=[moved(command) for command in local.sidecars],
            script=to_yaml(manifests(plan, run, project)),
        )
