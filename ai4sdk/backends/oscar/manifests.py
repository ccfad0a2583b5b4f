"""The same description for Kubernetes without OSCAR: a Service of Knative, an InferenceService of KServe. Pure."""

from __future__ import annotations

from typing import Any, Literal

from ai4sdk.backends.kubernetes import security
from ai4sdk.backends.oscar.definition import Served, quantity, service_name
from ai4sdk.backends.oscar.script import serve_command
from ai4sdk.errors import UsageError
from ai4sdk.spec.oscar import Expose, OscarBackend

__all__ = ["Kind", "manifest", "unsaid"]

Kind = Literal["knative", "kserve"]

_USER = 1000
_MANAGED = {"app.kubernetes.io/managed-by": "ai4sdk"}
_SAY_NOTHING = ("input", "output", "total_cpu", "total_memory", "allowed_users", "vo", "image_prefetch")
"""What OSCAR alone does."""


def manifest(kind: Kind, options: OscarBackend, served: Served) -> dict[str, Any]:
    """Return an object that Kubernetes is given.

    Parameters
    ----------
    kind
        ``knative`` or ``kserve``.
    options
        The description; ``expose`` says port and scale where it is given, ``synchronous`` the scale elsewhere.
    served
        The package, which the image must have.

    Raises
    ------
    UsageError
        If there is no image, or the package would be on something of OSCAR.
    """
    if options.image is None:
        raise UsageError("Kubernetes needs an image", hint="backend.image=REGISTRY/NAME:TAG")
    for name in ("mount", "volume"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"backend.{name} is of OSCAR; Kubernetes by itself knows it not",
                hint="put the package into the image: ai4sdk oscar image",
            )
    name = service_name(options, served.name)
    return _knative(options, served, name) if kind == "knative" else _kserve(options, served, name)


def unsaid(options: OscarBackend) -> list[str]:
    """Return the keys that are given, and say nothing without OSCAR."""
    return [name for name in _SAY_NOTHING if getattr(options, name)]


def _knative(options: OscarBackend, served: Served, name: str) -> dict[str, Any]:
    low, high = _scale(options)
    scale = {
        "autoscaling.knative.dev/min-scale": str(low),
        "autoscaling.knative.dev/max-scale": str(high),
    }
    # Who may call is OSCAR's to see to; without it nobody outside the cluster can, unless all may.
    hidden = {} if options.visibility == "public" else {"networking.knative.dev/visibility": "cluster-local"}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": _metadata(options, served, name, hidden),
        "spec": {
            "template": {
                "metadata": {"labels": options.labels, "annotations": {**options.annotations, **scale}},
                "spec": {
                    "timeoutSeconds": int(options.timeout),
                    **_pod(options),
                    "containers": [_container(options, served, name)],
                },
            }
        },
    }


def _kserve(options: OscarBackend, served: Served, name: str) -> dict[str, Any]:
    low, high = _scale(options)
    hidden = {} if options.visibility == "public" else {"networking.kserve.io/visibility": "cluster-local"}
    container = _container(options, served, name)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata(options, served, name, hidden),
        "spec": {
            "predictor": {
                "minReplicas": low,
                "maxReplicas": high,
                "timeout": int(options.timeout),
                "labels": options.labels,
                "annotations": options.annotations,
                **_pod(options),
                "containers": [{**container, "name": "kserve-container"}],
            }
        },
    }


def _metadata(options: OscarBackend, served: Served, name: str, hidden: dict[str, str]) -> dict[str, Any]:
    told = {"ai4sdk/weights": served.weights} if served.weights else {}
    return {
        "name": name,
        "labels": {**options.labels, "app.kubernetes.io/name": name, **_MANAGED, **hidden},
        "annotations": {**options.annotations, **told},
    }


def _scale(options: OscarBackend) -> tuple[int, int]:
    scale = options.expose or options.synchronous
    return scale.min_scale, scale.max_scale


def _pod(options: OscarBackend) -> dict[str, Any]:
    secrets = {"imagePullSecrets": [{"name": name} for name in options.image_pull_secrets]}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **(secrets if options.image_pull_secrets else {}),
    }


def _container(options: OscarBackend, served: Served, name: str) -> dict[str, Any]:
    expose = options.expose or Expose()
    program, *arguments = serve_command(
        options.package, expose.api_port, trusted=served.trusted, gpu=options.enable_gpu
    )
    amounts = {"cpu": f"{options.cpu:g}", "memory": quantity(options.memory)}
    limits = {**amounts, **({"nvidia.com/gpu": "1"} if options.enable_gpu else {})}
    texts = {**security.HOME, **options.environment.variables}
    variables: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in texts.items()]
    for key in options.environment.secrets:
        variables.append({"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    return {
        "image": options.image,
        "command": [program],
        "args": arguments,
        "ports": [{"name": "http1", "containerPort": expose.api_port}],
        "env": variables,
        "resources": {"requests": amounts, "limits": limits},
        "readinessProbe": {"httpGet": {"path": "/health/ready", "port": expose.api_port}},
        "livenessProbe": {"httpGet": {"path": "/health/live", "port": expose.api_port}},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
