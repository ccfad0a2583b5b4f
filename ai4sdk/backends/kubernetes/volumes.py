"""What pods see of the world's files, and where."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["PLAN_FOLDER", "mounts_of", "volumes_of"]

PLAN_FOLDER = "/etc/ai4sdk"
"""Where pods find the plan."""


def volumes_of(options: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the volumes of a pod.

    Parameters
    ----------
    options
        The section ``backend`` of a job.
    name
        Of the ConfigMap with the plan.
    """
    # Loaders hand batches over in shared memory, of which a container has 64 MB otherwise.
    limit = {"sizeLimit": str(math.ceil(options["shared_memory"]))} if options["shared_memory"] else {}
    return [
        {"name": "plan", "configMap": {"name": name}},
        {"name": "runs", "persistentVolumeClaim": {"claimName": options["claim"]}},
        {"name": "shm", "emptyDir": {"medium": "Memory", **limit}},
        *({"name": f"volume-{number}", **_source(volume)} for number, volume in enumerate(options["volumes"])),
    ]


def mounts_of(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return where a container sees the volumes of its pod."""
    return [
        {"name": "plan", "mountPath": PLAN_FOLDER, "readOnly": True},
        {"name": "runs", "mountPath": options["mount_path"]},
        {"name": "shm", "mountPath": "/dev/shm"},
        *(
            {"name": f"volume-{number}", "mountPath": volume["path"], "readOnly": volume["read_only"]}
            | ({"subPath": volume["sub_path"]} if volume["sub_path"] else {})
            for number, volume in enumerate(options["volumes"])
        ),
    ]


def _source(volume: dict[str, Any]) -> dict[str, Any]:
    if volume["claim"]:
        return {"persistentVolumeClaim": {"claimName": volume["claim"]}}
    return {"hostPath": {"path": volume["host_path"], "type": "Directory"}}
