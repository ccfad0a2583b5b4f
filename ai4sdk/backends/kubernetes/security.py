"""What pods may not do: by default what the *restricted* Pod Security Standard forbids."""

from __future__ import annotations

from typing import Any

__all__ = ["HOME", "of_container", "of_pod"]

HOME = {"HOME": "/tmp", "LOGNAME": "ai4sdk"}
"""Variables of a user that the image does not know: libraries look for a folder of theirs, and for a name."""


def of_pod(options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the security context of a pod, ``None`` where the cluster is to decide."""
    if options["security"] == "none":
        return None
    user = options["user"]
    # A claim is root's at first; what its files belong to is changed once, and not at each start.
    own = {"runAsUser": user, "runAsGroup": user, "fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}
    return {"runAsNonRoot": True, **(own if user else {}), "seccompProfile": {"type": "RuntimeDefault"}}


def of_container(options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the security context of a container, ``None`` where the cluster is to decide."""
    if options["security"] == "none":
        return None
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
