"""What a server counts and measures, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import InfoMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one server, in a registry of their own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        given: dict[str, Any] = {"registry": self._registry, "namespace": "setpoint"}
        self._requests = Counter("requests", "Requests answered.", ("path", "status"), **given)
        self._seconds = Histogram("request_seconds", "Time of a request.", ("path",), buckets=SECONDS, **given)
        self._inputs = Counter("inputs", "Inputs labelled.", **given)
        self._sizes = Histogram("batch_size", "Inputs of a batch.", buckets=SIZES, **given)
        self._batches = Histogram("batch_seconds", "Time of a batch in the model.", buckets=SECONDS, **given)
        self._waiting = Gauge("waiting_inputs", "Inputs that wait for a batch.", **given)

    def request(self, route: Any, status: int, seconds: float) -> None:
        """Count a request; paths that are none of the server's are one, so that nobody can make up any number."""
        path = getattr(route, "path", "other")
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def inputs(self, count: int) -> None:
        """Count inputs."""
        self._inputs.inc(count)

    def batch(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self._sizes.observe(size)
        self._batches.observe(seconds)

    def waiting(self, count: Callable[[], int]) -> None:
        """Where to ask how many inputs wait."""
        self._waiting.set_function(count)

    def model(self, version: Callable[[], str]) -> None:
        """Where to ask which version answers."""
        self._registry.register(_Version(version))

    def text(self) -> bytes:
        """All figures."""
        return generate_latest(self._registry)


class _Version(Collector):
    def __init__(self, version: Callable[[], str]) -> None:
        self._version = version

    def collect(self) -> list[InfoMetricFamily]:
        return [InfoMetricFamily("setpoint_model", "The version that answers.", {"version": self._version()})]
