"""Prometheus metrics of one runtime. Gauges are read when asked for, so that a request costs only its counters.

What OpenTelemetry has a name for (gen_ai.server.*, gen_ai.client.token.usage) has that name; the rest begins with
moorage_runtime_. Labels are routes, statuses, kinds of tokens and phases only: never what a client says.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from moorage_common.http.message import Answer

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which says nothing that the pod's start does not

# The boundaries that OpenTelemetry's conventions for generative AI ask for.
_DURATION: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
_PER_TOKEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
_WAIT: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

GAP_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Of the times between pieces of a stream."""

OPERATIONS: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/embeddings/text": "embeddings",
    "/embeddings/image": "embeddings",
    "/embeddings/fused": "embeddings",
    "/similarity": "embeddings",
}
"""OpenTelemetry's names of what our routes do."""

OTHER: Final = "other"
"""What a route is counted as that is not among them: an answer must not fail for its count."""


def _value(values: Callable[[], Mapping[str, float]], name: str) -> float:
    return values().get(name, 0.0)


class Gaps(Collector):
    """Times between pieces of streams, counted by the relays in lists of their own and added at the end of each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count from zero."""
        self._counts = [0] * (len(GAP_BOUNDS) + 1)
        self._sum = 0.0
        registry.register(self)

    def add(self, counts: Sequence[int], seconds: float) -> None:
        """Add those of one stream, which took so long from its first to its last piece."""
        for place, count in enumerate(counts):
            self._counts[place] += count
        self._sum += seconds

    def collect(self) -> list[HistogramMetricFamily]:
        """Give the histogram."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, GAP_BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        text = "Between two pieces of a stream; a piece is a token, or several that came together."
        return [HistogramMetricFamily("moorage_runtime_inter_token_seconds", text, buckets, self._sum)]


class Metrics:
    """The metrics, in a registry of their own."""

    def __init__(self, *, running: Callable[[], float], waiting: Callable[[], float], detailed: bool = True) -> None:
        """Count from zero; `running` and `waiting` give the requests in the engine and at the door."""
        self._registry = CollectorRegistry()
        self.gaps = Gaps(self._registry) if detailed else None
        """Where it is None, the times between pieces are not to be taken."""
        self._requests = self._counter("moorage_runtime_requests", "Requests answered.", "route", "status")
        self._timeouts = self._counter("moorage_runtime_request_timeouts", "Requests ended by REQUEST_TIMEOUT.")
        self._input = self._counter(
            "moorage_runtime_input_tokens", "Tokens of prompts, as the engine counted them in complete answers."
        )
        self._output = self._counter(
            "moorage_runtime_output_tokens", "Tokens generated, as the engine counted them in complete answers."
        )
        self._broken = self._counter(
            "moorage_runtime_broken_answers", "Answers that ended with an error after they had begun."
        )
        operation = "gen_ai_operation_name"
        self._latency = self._histogram(
            "gen_ai_server_request_duration_seconds", "From a whole request to its last byte.", _DURATION, operation
        )
        self._first_token = self._histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "To the first byte.",
            _FIRST_TOKEN,
            operation,
        )
        self._per_token = self._histogram(
            "gen_ai_server_time_per_output_token_seconds", "For each token after the first.", _PER_TOKEN, operation
        )
        self._usage = self._histogram(
            "gen_ai_client_token_usage", "Tokens of a request.", _TOKENS, operation, "gen_ai_token_type"
        )
        self._wait = self._histogram("moorage_runtime_queue_seconds", "How long a request waited for a place.", _WAIT)
        self._batch = self._histogram(
            "moorage_runtime_batch_size",
            "Answers in the engine when a request comes in, with its own.",
            _BATCH,
        )
        self._gauge("moorage_runtime_requests_running", "Requests in the engine.", running)
        self._gauge("moorage_runtime_requests_waiting", "Requests that wait for the engine.", waiting)

    def watch_engine(
        self,
        *,
        ready: Callable[[], bool],
        restarts: Callable[[], int],
        unloads: Callable[[], int],
        load_phases: Callable[[], Mapping[str, float]],
    ) -> None:
        """Show the state of the engine too."""
        self._gauge("moorage_runtime_engine_ready", "1 when the engine answers.", lambda: float(ready()))
        self._gauge("moorage_runtime_engine_restarts_total", "Times the engine was started again.", restarts)
        self._gauge("moorage_runtime_model_unloads_total", "Times the model was unloaded after an idle time.", unloads)
        self._gauge(
            "moorage_runtime_load_seconds",
            "Seconds that the last load took, from the start of the process to its first answer.",
            lambda: sum(load_phases().get(phase, 0.0) for phase in ("load", "first_answer")),
        )
        phases = Gauge(
            "moorage_runtime_load_phase_seconds", "Seconds of the last load.", ["phase"], registry=self._registry
        )
        for phase in ("check", "load", "first_answer"):
            phases.labels(phase).set_function(partial(_value, load_phases, phase))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route if route in OPERATIONS else OTHER, status).inc()
        self._latency.labels(OPERATIONS.get(route, OTHER)).observe(seconds)

    def streamed(self, route: str, first: float, rest: float, tokens: int) -> None:
        """Take the time to the first byte of a stream, and the time from there to its end."""
        operation = OPERATIONS.get(route, OTHER)
        self._first_token.labels(operation).observe(first)
        if tokens > 1:
            self._per_token.labels(operation).observe(rest / (tokens - 1))

    def entered(self, waited: float, running: int) -> None:
        """Take the time that a request waited, and how many are in the engine with it."""
        self._wait.observe(waited)
        self._batch.observe(running)

    def counted(self, route: str, asked: int, generated: int) -> None:
        """Count tokens."""
        self._input.inc(asked)
        self._output.inc(generated)
        operation = OPERATIONS.get(route, OTHER)
        self._usage.labels(operation, "input").observe(asked)
        if operation != "embeddings":
            self._usage.labels(operation, "output").observe(generated)

    def broke(self) -> None:
        """Count an answer that ended with an error."""
        self._broken.inc()

    def timed_out(self) -> None:
        """Count a request whose time was over."""
        self._timeouts.inc()

    def answer(self) -> Answer:
        """Write all metrics."""
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)
