"""The operator's own metrics, served as `/metrics` beside the probes; names follow Prometheus' conventions."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from moorage_operator.api.key import Key
from moorage_operator.status.observe import PodState

PREEMPTIONS: Final = Counter(
    "moorage_preemptions_total",
    "Pods of a model that were preempted by pods of higher priority.",
    ["namespace", "name"],
)

GATEWAYS: Final = Gauge(
    "moorage_gateways",
    "Gateways by connection state: connected, refused (missing permission), unreachable.",
    ["state"],
)

UNWATCHED: Final = Gauge(
    "moorage_unwatched",
    "1 for each kind and namespace (empty: all of them) that the API server does not let the operator watch.",
    ["resource", "namespace"],
)

RESTARTS_IN_PLACE: Final = Counter(
    "moorage_restarts_in_place_total",
    "Times that the process began anew, with the same id, because the framework that watches had ended.",
)

STARTUP_SECONDS: Final = Histogram(
    "moorage_model_startup_seconds",
    "How long pods of models took to become ready, by phase: queued, image, download, load, total.",
    ["phase"],
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600),
)


class StartMetrics:
    """Observes each start once. Of starts before this process, only those that no status has reported are counted."""

    def __init__(self) -> None:
        self._seen: dict[Key, frozenset[tuple[str, str]]] = {}

    def observe(self, key: Key, pods: Iterable[PodState], reported: Mapping[str, Any]) -> None:
        """Takes in all pods of a model; `reported` is the last start in its status."""
        starts = {(pod.uid, pod.start.began): pod.start for pod in pods if pod.start}
        before = self._seen.get(key)
        if before is None:
            before = frozenset(start for start in starts if start[1] <= reported.get("startedAt", ""))
        for start in starts.keys() - before:
            for phase, seconds in starts[start].phases().items():
                STARTUP_SECONDS.labels(phase).observe(seconds)
        # A pod that is not ready now may be again, with the same start: it is kept as long as the pod is there.
        there = {pod.uid for pod in pods}
        self._seen[key] = frozenset(starts) | {start for start in before if start[0] in there}

    def forget(self, key: Key) -> None:
        """A model is gone."""
        self._seen.pop(key, None)
