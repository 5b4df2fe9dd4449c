"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """Of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.clients = Gauge("ornstein_clients", "connections that are open", registry=self._registry)
        self.answers = Counter("ornstein_answers", "actions that were sent", registry=self._registry)
        self.refused = Counter(
            "ornstein_refused", "messages and connections that were refused", ["reason"], registry=self._registry
        )
        self.shielded = Counter("ornstein_shielded", "actions that the shield changed", ["reason"], registry=self._registry)
        self.seconds = Histogram(
            "ornstein_inference_seconds", "from an observation to its action", buckets=_SECONDS, registry=self._registry
        )

    def page(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)
