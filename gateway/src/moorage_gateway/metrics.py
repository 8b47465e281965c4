"""Prometheus metrics of one gateway. Labels are models that exist, callers that were let in, statuses: bounded all.

What a request costs is a few look-ups in a dictionary (`series`); the text is written when it is asked for.
"""

import re
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moorage_common.http.message import Answer
from moorage_gateway.exchange import Exchange
from moorage_gateway.hold import Lobby
from moorage_gateway.series import Count, Counters, Histograms

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
MOST_CALLERS: Final = 1000
"""Callers with series of their own; the others are `other` together."""

_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

# OpenAI's usage; a text cannot contain it, as its quotes are escaped.
_IN: Final = b'"prompt_tokens"'
_OUT: Final = b'"completion_tokens"'
_NUMBER: Final = re.compile(rb":\s*(\d{1,9})")
_READ: Final = 8 * 1024


class _OfModel:
    """The series of one model."""

    __slots__ = ("duration", "first_byte", "requests", "tokens")

    def __init__(self, metrics: "Metrics", model: str) -> None:
        self.duration = metrics.duration.labels(model)
        self.first_byte = metrics.first_byte.labels(model)
        self.requests: dict[tuple[int, str], Count] = {}
        self.tokens: dict[str, tuple[Count, Count]] = {}


class Metrics:
    """The metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Count from zero."""
        self._registry = CollectorRegistry()
        self._requests = Counters(
            "moorage_gateway_requests",
            "Requests sent to models; error says who broke an answer off: the backend, the client, or nobody.",
            ("model", "status", "error"),
            registry=self._registry,
        )
        self._tokens = Counters(
            "moorage_gateway_tokens",
            "Tokens by the usage in answers.",
            ("model", "caller", "kind"),
            registry=self._registry,
        )
        self.duration = self._histogram("moorage_gateway_request_duration_seconds", "From a request to its end.")
        self.first_byte = self._histogram(
            "moorage_gateway_time_to_first_byte_seconds", "From a request to the first byte of its answer."
        )
        self._models: dict[str, _OfModel] = {}
        self._callers: set[str] = set()

    def watch(self, lobby: Lobby) -> None:
        """Tell how many requests wait in it."""
        self._registry.register(_Held(lobby))

    def add(self, collector: Collector) -> None:
        """Show what another part counts."""
        self._registry.register(collector)

    def ended(self, exchange: Exchange) -> None:
        """Count a request that has ended."""
        of_model = self._models.get(exchange.model)
        if of_model is None:
            of_model = self._models[exchange.model] = _OfModel(self, exchange.model)
        outcome = exchange.status, exchange.error
        count = of_model.requests.get(outcome)
        if count is None:
            count = self._requests.labels(exchange.model, str(exchange.status), exchange.error)
            of_model.requests[outcome] = count
        count.value += 1
        of_model.duration.observe(exchange.now() - exchange.begun)
        if exchange.first_byte:
            of_model.first_byte.observe(exchange.first_byte - exchange.begun)
        if exchange.status == 200:
            self._count_tokens(exchange, of_model)

    def page(self) -> Answer:
        """What Prometheus reads."""
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE)

    def _count_tokens(self, exchange: Exchange, of_model: _OfModel) -> None:
        tail = exchange.tail
        told = (tail[0] if len(tail) == 1 else b"".join(tail))[-_READ:]
        into, out = _last(_IN, told), _last(_OUT, told)
        if not into and not out:
            return
        caller = exchange.caller
        if caller not in self._callers:
            if len(self._callers) >= MOST_CALLERS:
                caller = "other"
            self._callers.add(caller)
        counted = of_model.tokens.get(caller)
        if counted is None:
            both = (self._tokens.labels(exchange.model, caller, kind) for kind in ("input", "output"))
            counted = of_model.tokens[caller] = (next(both), next(both))
        counted[0].value += into
        counted[1].value += out

    def _histogram(self, name: str, text: str) -> Histograms:
        return Histograms(name, text, ("model",), _SECONDS, self._registry)


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


def _last(name: bytes, text: bytes) -> int:
    """Give the number behind the last field of that name."""
    place = text.rfind(name)
    if place < 0:
        return 0
    found = _NUMBER.match(text, place + len(name))
    return int(found[1]) if found else 0
