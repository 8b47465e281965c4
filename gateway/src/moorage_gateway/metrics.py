"""Prometheus metrics of one gateway. Labels are models that exist, callers that were let in, statuses: bounded all.

What a request costs is a few look-ups in a dictionary; the text is written when it is asked for. Then the series of
models and keys that have gone go, too.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moorage_common.http.message import Answer
from moorage_gateway.exchange import Exchange
from moorage_gateway.hold import Lobby
from moorage_gateway.series import Count, Counters, Histograms
from moorage_gateway.usage import Tokens

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
MOST_CALLERS: Final = 1000
"""Callers with series of their own; the others are `other` together."""
OTHER: Final = "other"

_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


class _OfModel:
    """The series of one model."""

    __slots__ = ("duration", "first_token", "requests", "tokens")

    def __init__(self, metrics: "Metrics", model: str) -> None:
        self.duration = metrics.duration.labels(model)
        self.first_token = metrics.first_token.labels(model)
        self.requests: dict[tuple[int, str], Count] = {}
        self.tokens: dict[tuple[str, bool], tuple[Count, Count]] = {}


class Metrics:
    """The metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Count from zero."""
        self._registry = CollectorRegistry()
        self._requests = self._counter(
            "requests", "Requests; error is the kind of what went wrong: client, model, timeout, capacity, or empty.",
            "model", "status", "error",
        )  # fmt: skip
        self._tokens = self._counter(
            "tokens", "Tokens; source is the usage in answers, or an estimate where an answer has none.",
            "model", "caller", "kind", "source",
        )  # fmt: skip
        self._limited = self._counter("rate_limited", "Requests over a limit of their key.", "caller", "limit")
        self._logins = self._counter(
            "failed_logins", "Credentials that were not valid; too_many is those answered by 429.", "answer"
        )
        self.duration = self._histogram("request_duration_seconds", "From a request to the end of its answer.")
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "From a request to the first of the body of its streamed answer."
        )
        self._models: dict[str, _OfModel] = {}
        self._callers: set[str] = set()

    def watch(self, lobby: Lobby) -> None:
        """Tell how many requests wait in it."""
        self._registry.register(_Held(lobby))

    def add(self, collector: Collector) -> None:
        """Let `collector` tell more whenever the metrics are read."""
        self._registry.register(collector)

    # -- what happens -------------------------------------------------------------------------------------------------

    def ended(self, exchange: Exchange, tokens: Tokens, kind: str) -> None:
        """Count a request that has been with a model; `kind` is that of its error."""
        model = exchange.model
        of_model = self._models.get(model)
        if of_model is None:
            of_model = self._models[model] = _OfModel(self, model)
        outcome = exchange.status, kind
        count = of_model.requests.get(outcome)
        if count is None:
            count = of_model.requests[outcome] = self._requests.labels(model, str(exchange.status), kind)
        count.value += 1
        of_model.duration.observe(exchange.now() - exchange.begun)
        if exchange.streamed and exchange.first_byte:
            of_model.first_token.observe(exchange.first_byte - exchange.begun)
        if tokens.input or tokens.output:
            caller = self._known(exchange.caller)
            counted = of_model.tokens.get((caller, tokens.estimated))
            if counted is None:
                source = "estimate" if tokens.estimated else "usage"
                into, out = (self._tokens.labels(model, caller, way, source) for way in ("input", "output"))
                counted = of_model.tokens[caller, tokens.estimated] = (into, out)
            counted[0].value += tokens.input
            counted[1].value += tokens.output

    def answered(self, model: str, status: int, kind: str) -> None:
        """Count a request that was answered here; `model` is empty where it is about none, or about one unknown."""
        if model and model not in self._models:
            self._models[model] = _OfModel(self, model)
        self._requests.labels(model, str(status), kind).inc()

    def limited(self, caller: str, limit: str) -> None:
        """Count a request over the `limit` of its key."""
        self._limited.labels(self._known(caller), limit).inc()

    def login_failed(self, *, too_many: bool) -> None:
        """Count a credential that was not valid, or was not even looked at."""
        self._logins.labels("too_many" if too_many else "unauthorized").inc()

    # -- what is read -------------------------------------------------------------------------------------------------

    def page(self) -> Answer:
        """What Prometheus reads."""
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE)

    def forget_gone(self, has_model: Callable[[str], bool], has_caller: Callable[[str], bool]) -> None:
        """Drop the series of models and callers that are not there any more."""
        for model in [name for name in self._models if not has_model(name)]:
            del self._models[model]
            for metric in (self._requests, self._tokens, self.duration, self.first_token):
                metric.remove("model", model)
        for caller in [name for name in self._callers if not has_caller(name)]:
            self._callers.discard(caller)
            for metric in (self._tokens, self._limited):
                metric.remove("caller", caller)
            for of_model in self._models.values():
                of_model.tokens.pop((caller, False), None)
                of_model.tokens.pop((caller, True), None)

    def _known(self, caller: str) -> str:
        if caller in self._callers:
            return caller
        if len(self._callers) >= MOST_CALLERS:
            return OTHER
        self._callers.add(caller)
        return caller

    def _counter(self, name: str, text: str, *labels: str) -> Counters:
        return Counters(f"moorage_gateway_{name}", text, labels, self._registry)

    def _histogram(self, name: str, text: str) -> Histograms:
        return Histograms(f"moorage_gateway_{name}", text, ("model",), _SECONDS, self._registry)


class _Held(Collector):
    """Looks at the rooms when it is asked: nothing is counted twice."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby

    def collect(self) -> Iterator[Metric]:
        """Models for which nobody waits have no series."""
        held = GaugeMetricFamily("moorage_gateway_held_requests", "Requests that wait for a pod.", labels=["model"])
        for room in self._lobby.rooms:
            held.add_metric([room.name], len(room))
        yield held
