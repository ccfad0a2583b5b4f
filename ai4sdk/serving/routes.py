"""From a path to what is asked: which model, in which version, in whose protocol."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ai4sdk.serving.deepaas.routes import takes

__all__ = ["Route", "find_route"]


@dataclass(frozen=True, slots=True)
class Route:
    """What a path asks for.

    Parameters
    ----------
    kind
        ``infer`` for what a model answers; else the name of an answer of the server's own.
    methods
        The methods it has.
    protocol
        In whose form it is asked.
    model, version
        Of which model; nothing for the only one, and for the version that is next.
    """

    kind: str
    methods: tuple[str, ...]
    protocol: str = "natural"
    model: str | None = None
    version: str | None = None


_GET = ("GET", "HEAD")
_POST = ("POST",)

_FIXED = {
    "/": Route("index", _GET),
    "/metrics": Route("metrics", _GET),
    "/openapi.json": Route("openapi", _GET),
    "/drift": Route("drift", _GET),
    "/health": Route("ready", _GET),
    "/health/live": Route("live", _GET),
    "/health/ready": Route("ready", _GET),
    "/predict": Route("infer", _POST, "natural"),
    "/v2": Route("server", _GET, "v2"),
    "/v2/health/live": Route("v2_live", _GET, "v2"),
    "/v2/health/ready": Route("v2_ready", _GET, "v2"),
    "/v2/repository/index": Route("repository", _POST, "v2"),
    "/ping": Route("ping", _GET, "mlflow"),
    "/version": Route("mlflow_version", _GET, "mlflow"),
    "/invocations": Route("infer", _POST, "mlflow"),
}
_OF_A_MODEL = {
    ("v2", "models", ""): ("model", _GET, "v2"),
    ("v2", "models", "ready"): ("model_ready", _GET, "v2"),
    ("v2", "models", "infer"): ("infer", _POST, "v2"),
    ("", "models", ""): ("model", _GET, "natural"),
    ("", "models", "predict"): ("infer", _POST, "natural"),
    ("", "models", "invocations"): ("infer", _POST, "mlflow"),
}


def find_route(path: str, protocols: Collection[str]) -> Route | None:
    """Return what a path asks for; nothing where there is no such path, or its protocol is not spoken."""
    if "deepaas" in protocols and takes(path):
        model = path.split("/")[3] if path.startswith("/v2/models/") else None
        return Route("deepaas", ("GET", "POST", "DELETE"), "deepaas", model or None)
    route = _FIXED.get(path.rstrip("/") or "/") or _of_a_model(path)
    own = route is not None and route.kind in ("index", "metrics", "openapi", "drift", "live", "ready")
    return route if route is not None and (own or route.protocol in protocols) else None


def _of_a_model(path: str) -> Route | None:
    """Read ``[/v2]/models/NAME[/versions/VERSION][/OPERATION]``."""
    parts = path.strip("/").split("/")
    start = "v2" if parts[0] == "v2" else ""
    parts = parts[1:] if start else parts
    if len(parts) < 2 or parts[0] != "models" or not all(parts):
        return None
    name, rest, version = parts[1], parts[2:], None
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    if len(rest) > 1:
        return None
    known = _OF_A_MODEL.get((start, "models", rest[0] if rest else ""))
    return Route(known[0], known[1], known[2], name, version) if known else None
