"""A pod of ours → a TrainJob of Kubeflow Trainer, whose runtime has the rest: restarts and the network. Pure."""

from __future__ import annotations

from typing import Any

__all__ = ["API", "CONTAINER", "TRAINER", "host_of_first", "train_job"]

TRAINER = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
"""Where the API has TrainJobs."""
API = "{group}/{version}".format(**TRAINER)
CONTAINER = "node"
"""Name of the container that works, and of its part of the JobSet, in every runtime that trains."""

_ENTER = 'cd "$0" && exec "$@"'
"""For a shell: a TrainJob cannot say in which folder its command starts."""
_THE_RUNTIMES = {
    "restartPolicy",
    "activeDeadlineSeconds",  # a TrainJob's own ends it for good; the worker looks at the clock, and goes on
    "subdomain",
    "automountServiceAccountToken",
    "enableServiceLinks",
}
"""What of a pod is the runtime's to decide."""
_PATCHES = (
    "terminationGracePeriodSeconds",
    "serviceAccountName",
    "imagePullSecrets",
    "nodeSelector",
    "tolerations",
    "securityContext",
    "volumes",
)
"""What of a pod a TrainJob may put in the place of its runtime's."""
_PATCHES_OF_CONTAINER = ("securityContext", "volumeMounts")
_OF_TRAINER = {"name", "image", "command", "args", "workingDir", "env", "resources", "terminationMessagePath"}


def train_job(
    meta: dict[str, Any], pod: dict[str, Any], labels: dict[str, str], *, runtime: str, nodes: int, processes: int
) -> dict[str, Any]:
    """Return a TrainJob whose pods are as one of ours, so far as it can say.

    Parameters
    ----------
    meta
        Its metadata.
    pod
        What a pod is in a Job.
    labels
        Of its pods.
    runtime
        Name of the ClusterTrainingRuntime.
    nodes, processes
        How many pods there are, and processes in each.
    """
    (container,) = pod["containers"]
    beyond = pod.keys() - {*_THE_RUNTIMES, *_PATCHES, "containers"} | container.keys() - {
        *_OF_TRAINER,
        *_PATCHES_OF_CONTAINER,
    }
    assert not beyond, f"a TrainJob cannot say {beyond}; the options that lead to them are refused"
    patch = {name: pod[name] for name in _PATCHES if name in pod}
    own = {name: container[name] for name in _PATCHES_OF_CONTAINER if name in container}
    patch["containers"] = [{"name": CONTAINER, **own}]
    template = {"metadata": {"labels": labels, "annotations": meta["annotations"]}, "spec": patch}
    job = {"name": CONTAINER, "template": {"spec": {"template": template}}}
    return {
        "apiVersion": API,
        "kind": "TrainJob",
        "metadata": meta,
        "spec": {
            "runtimeRef": {"apiGroup": TRAINER["group"], "kind": "ClusterTrainingRuntime", "name": runtime},
            "trainer": {
                "numNodes": nodes,
                "numProcPerNode": processes,
                "image": container["image"],
                "command": ["sh", "-c", _ENTER, container["workingDir"], *container["command"]],
                "args": container["args"],
                "env": container["env"],
                "resourcesPerNode": container["resources"],
            },
            "runtimePatches": [
                {"manager": "ai4sdk/manager", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}
            ],
        },
    }


def host_of_first(name: str) -> str:
    """Return what the first pod of a TrainJob is called in the network."""
    return f"{name}-{CONTAINER}-0-0.{name}"
