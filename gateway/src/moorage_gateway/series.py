"""Counters and histograms whose children cost next to nothing to count in; prometheus_client writes them when asked.

Its own children take locks and check their labels at each count: a tenth of what a request costs here. All of a gateway
runs in one thread, so a plain number is enough.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Count more."""
        self.value += amount


class Spread:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value in its bucket."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Counters(Collector):
    """A family of counters, by their labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        """`name` is without `_total`."""
        self._about = name, text, tuple(labels)
        self._children: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The series with these labels; whoever counts often keeps it."""
        return self._children.setdefault(values, Count())

    def remove(self, label: str, value: str) -> None:
        """Drop the series that have this value of a label."""
        place = self._about[2].index(label)
        for values in [values for values in self._children if values[place] == value]:
            del self._children[values]

    def collect(self) -> Iterator[Metric]:
        """All series, for the page."""
        name, text, labels = self._about
        family = CounterMetricFamily(name, text, labels=labels)
        for values, child in self._children.items():
            family.add_metric(values, child.value)
        yield family


class Histograms(Collector):
    """A family of histograms with the same buckets, by their labels."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """`bounds` are the buckets' upper ends, inclusive; the last, infinity, goes without saying."""
        self._about = name, text, tuple(labels)
        self._bounds = tuple(bounds)
        self._children: dict[tuple[str, ...], Spread] = {}
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        """The series with these labels; whoever counts often keeps it."""
        return self._children.setdefault(values, Spread(self._bounds))

    def remove(self, label: str, value: str) -> None:
        """Drop the series that have this value of a label."""
        place = self._about[2].index(label)
        for values in [values for values in self._children if values[place] == value]:
            del self._children[values]

    def collect(self) -> Iterator[Metric]:
        """All series, for the page."""
        name, text, labels = self._about
        family = HistogramMetricFamily(name, text, labels=labels)
        ends = [*(str(bound) for bound in self._bounds), "+Inf"]
        for values, child in self._children.items():
            buckets, below = [], 0
            for end, count in zip(ends, child.counts, strict=True):
                below += count
                buckets.append((end, float(below)))
            family.add_metric(values, buckets, child.total)
        yield family
