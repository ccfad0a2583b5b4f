"""What happens, counted for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ai4sdk.serving.messages import Response

__all__ = ["CONTENT_TYPE", "Drift", "Metrics", "PoolMetrics"]

Drift = dict[str, dict[str, dict[str, Any]]]
"""Model → version → what is known of drift; see `ai4sdk.serving.pool.Pool.drift`."""

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LABELS = ("model", "version")
_DRIFT = {"state": "0 as in training, 1 warning, 2 drift", "dropped_batches": "Batches that were not looked at"}
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class PoolMetrics:
    """Counts what one version's processes do; see `ai4sdk.serving.pool.Observer`."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._batches = metrics.batches.labels(model, version)
        self._compute = metrics.compute.labels(model, version)
        self._samples = metrics.samples.labels(model, version)
        self._broken = metrics.broken.labels(model, version)
        self._deaths = metrics.deaths.labels(model, version)

    def batch(self, requests: int, facts: Mapping[str, Any]) -> None:
        """Count an answered batch."""
        self._batches.observe(requests)
        self._compute.observe(facts["seconds"])
        self._samples.inc(facts["samples"])
        if facts["broken"]:
            self._broken.inc(facts["broken"])

    def died(self) -> None:
        """Count a process that died."""
        self._deaths.inc()


class Metrics:
    """The counters of a server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        of: dict[str, Any] = {"labelnames": ("model", "version"), "registry": self._registry}
        self._requests = Counter(
            "ai4sdk_requests",
            "Requests by outcome",
            ("model", "version", "protocol", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "ai4sdk_request_seconds",
            "Time from a request's head to its answer",
            ("model", "version", "protocol"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batches = Histogram("ai4sdk_batch_requests", "Requests computed together", buckets=_COUNTS, **of)
        self.compute = Histogram(
            "ai4sdk_compute_seconds", "Time of a batch in the model's process", buckets=_SECONDS, **of
        )
        self.samples = Counter("ai4sdk_samples", "Samples predicted for", **of)
        self.broken = Counter("ai4sdk_samples_not_finite", "Samples whose prediction is not finite", **of)
        self.deaths = Counter("ai4sdk_process_deaths", "Model processes that died or were killed", **of)
        self._ready = Gauge("ai4sdk_ready", "1 where every model can answer", registry=self._registry)
        self._open = Gauge("ai4sdk_open_requests", "Requests that wait or are computed", registry=self._registry)
        self._drift: dict[str, Gauge] = {}
        self._known: dict[tuple[str, str, str, int], Any] = {}
        self._timed: dict[tuple[str, str, str], Any] = {}
        self.further: Callable[[], Iterable[str]] = tuple
        """Lines of figures that others keep."""

    def watch(self, ready: Callable[[], bool], waiting: Callable[[], int]) -> None:
        """Say where to look whenever the figures are asked for."""
        self._ready.set_function(lambda: float(ready()))
        self._open.set_function(lambda: float(waiting()))

    def request(self, model: str, protocol: str, answer: Response, seconds: float) -> None:
        """Count a request, to the version that answered it if one did."""
        whose = (model, answer.by.get("version", ""), protocol)
        counter = self._known.get((*whose, answer.status))
        if counter is None:
            counter = self._known[*whose, answer.status] = self._requests.labels(*whose, str(answer.status))
        counter.inc()
        timer = self._timed.get(whose)
        if timer is None:
            timer = self._timed[whose] = self._seconds.labels(*whose)
        timer.observe(seconds)

    def text(self, drift: Drift) -> bytes:
        """Return the figures in Prometheus's text form, with what the models' processes say of drift."""
        for gauge in self._drift.values():
            gauge.clear()  # what is no longer served, or is not known now, is not told as it was
        for model, versions in drift.items():
            for version, snapshot in versions.items():
                for name, value in {**snapshot.get("gauges", {}), **snapshot.get("counters", {})}.items():
                    self._drifting(name).labels(model, version).set(value)
        text: bytes = generate_latest(self._registry)
        return text + "".join(f"{line}\n" for line in self.further()).encode()

    def _drifting(self, name: str) -> Gauge:
        if name not in self._drift:
            self._drift[name] = Gauge(
                f"ai4sdk_drift_{name}", _DRIFT.get(name, "See /drift"), _LABELS, registry=self._registry
            )
        return self._drift[name]
