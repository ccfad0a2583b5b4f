"""`ai4sdk oscar`: trained models as services of a cluster that OSCAR manages."""

from __future__ import annotations

from collections.abc import Sequence

from ai4sdk.cli.actions import act

EPILOG = """\
actions:
  plan RUN [KEY=VALUE ...]        show the FDL file and the script of a service
  apply RUN [KEY=VALUE ...]       create the service, or change it in place if it differs
  ls                              list services
  invoke NAME --input FILE        call a service, and wait for its answer
  jobs NAME                       list the jobs of a service, and how they stand
  logs NAME [JOB]                 show what a job printed, by default the newest one, or what its server did
  rm NAME                         remove a service
  manifests RUN [KEY=VALUE ...]   the same as a Knative Service, or an InferenceService of KServe
  image RUN [KEY=VALUE ...]       write a Containerfile for its image
  cluster                         start a stand-in for a cluster on this machine, to rehearse on

`ai4sdk oscar ACTION --help` says more. The cluster is that of backend=oscar, or of your own group: backend=OURS.
"""
ACTIONS = {
    "plan": ("ai4sdk.cli.oscar_service", "plan"),
    "apply": ("ai4sdk.cli.oscar_service", "apply"),
    "ls": ("ai4sdk.cli.oscar_service", "ls"),
    "rm": ("ai4sdk.cli.oscar_service", "rm"),
    "invoke": ("ai4sdk.cli.oscar_call", "invoke"),
    "jobs": ("ai4sdk.cli.oscar_call", "jobs"),
    "logs": ("ai4sdk.cli.oscar_call", "logs"),
    "manifests": ("ai4sdk.cli.oscar_image", "manifests"),
    "image": ("ai4sdk.cli.oscar_image", "image"),
    "cluster": ("ai4sdk.cli.oscar_cluster", "cluster"),
}
"""Action → module and function that does it."""


def main(command: str, argv: Sequence[str]) -> int:
    """Do one of the actions."""
    description = "Let trained models answer on a cluster that OSCAR manages."
    return act(command, argv, ACTIONS, description=description, epilog=EPILOG)
