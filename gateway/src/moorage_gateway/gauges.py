"""What is true at the moment, read when the metrics are: requests and connections by model, and what is not watched."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moorage_gateway.kube.watch_health import WatchHealth
from moorage_gateway.routing import Model

PREFIX = "moorage_gateway_"


class ModelGauges(Collector):
    """Tells it of the models that there are: one that has gone has no series."""

    def __init__(self, models: Callable[[], Iterable[Model]]) -> None:
        """`models` gives all of them."""
        self._models = models

    def describe(self) -> Iterator[Metric]:
        """Nothing has to be known beforehand."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Look at every model."""
        in_flight = _gauge("requests_in_flight", "Requests that are with the model's ready pods.", "model")
        pods = _gauge("ready_pods", "Ready pods of the model, of which `passed_over` are failing.", "model", "state")
        connections = _gauge("upstream_connections", "Connections to the model's ready pods.", "model", "state")
        events = CounterMetricFamily(
            f"{PREFIX}upstream",
            "Connections that were opened, reused, found stale (the request was sent again) or failed.",
            labels=("model", "event"),
        )
        for model in self._models():
            name, backends = str(model.key), model.backends
            endpoints = list(backends)
            passed_over = sum(1 for endpoint in endpoints if endpoint.open_until)
            idle = sum(endpoint.pool.idle for endpoint in endpoints)
            in_flight.add_metric((name,), backends.in_flight)
            pods.add_metric((name, "passed_over"), passed_over)
            pods.add_metric((name, "used"), len(endpoints) - passed_over)
            connections.add_metric((name, "idle"), idle)
            connections.add_metric((name, "in_use"), sum(endpoint.pool.open for endpoint in endpoints) - idle)
            counts = backends.counts
            for event in ("opened", "reused", "stale", "failed"):
                events.add_metric((name, event), getattr(counts, event))
        yield from (in_flight, pods, connections, events)


class Unwatched(Collector):
    """Tells of every kind and namespace whether the API server refuses to let it be watched."""

    def __init__(self, health: WatchHealth) -> None:
        """`health` knows all watches."""
        self._health = health

    def describe(self) -> Iterator[Metric]:
        """Nothing has to be known beforehand."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Look at every watch; an empty namespace is all of them."""
        found = _gauge("unwatched", "1 while the API server refuses to let it be watched.", "kind", "namespace")
        refused = self._health.unwatched()
        for one in self._health:
            found.add_metric((one.resource.kind, one.namespace or ""), one in refused)
        yield found


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)
