"""Prometheus metrics of one runtime. Gauges are read when asked for, so that a request costs only its counters."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from moorage_common.http.message import Answer

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which says nothing that the pod's start does not

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The metrics, in a registry of their own."""

    def __init__(self, *, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Count from zero; `running` and `waiting` give the requests in the engine and at the door."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "moorage_runtime_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._latency = Histogram(
            "moorage_runtime_request_duration_seconds",
            "From a whole request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first_byte = Histogram(
            "moorage_runtime_time_to_first_token_seconds",
            "From a whole request to the first byte of a streamed answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "moorage_runtime_output_tokens",
            "Tokens generated, as the engine counted them in complete answers.",
            registry=self._registry,
        )
        self._broken = Counter(
            "moorage_runtime_broken_answers",
            "Answers that ended with an error after they had begun.",
            registry=self._registry,
        )
        self._timeouts = Counter(
            "moorage_runtime_request_timeouts", "Requests ended by REQUEST_TIMEOUT.", registry=self._registry
        )
        self._gauge("moorage_runtime_requests_running", "Requests in the engine.", running)
        self._gauge("moorage_runtime_requests_waiting", "Requests that wait for the engine.", waiting)

    def watch_engine(
        self,
        *,
        ready: Callable[[], bool],
        restarts: Callable[[], int],
        load_seconds: Callable[[], float | None],
        unloads: Callable[[], int],
    ) -> None:
        """Show the state of the engine too."""
        self._gauge("moorage_runtime_engine_ready", "1 when the engine answers.", lambda: float(ready()))
        self._gauge("moorage_runtime_engine_restarts_total", "Times the engine was started again.", restarts)
        self._gauge("moorage_runtime_model_unloads_total", "Times the model was unloaded after an idle time.", unloads)
        self._gauge(
            "moorage_runtime_load_seconds",
            "Seconds that the last load took, from the start of the process to its first answer.",
            lambda: load_seconds() or 0.0,
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, status).inc()
        self._latency.labels(route).observe(seconds)

    def streamed(self, route: str, seconds: float) -> None:
        """Take the time to the first byte of a stream."""
        self._first_byte.labels(route).observe(seconds)

    def generated(self, tokens: int) -> None:
        """Count tokens."""
        self._tokens.inc(tokens)

    def broke(self) -> None:
        """Count an answer that ended with an error."""
        self._broken.inc()

    def timed_out(self) -> None:
        """Count a request whose time was over."""
        self._timeouts.inc()

    def answer(self) -> Answer:
        """Write all metrics."""
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)
