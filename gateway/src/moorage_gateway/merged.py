"""What several workers tell, as one: their metrics, and how models are used through them. Pure."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from moorage_common.demand import News, Use
from moorage_gateway.hold import State

_TIMES: Final = "_timestamp_seconds"
"""How the names of gauges end that are moments: of these the earliest is told, all others are sums."""


class _Families:
    """What `generate_latest` needs of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def merge_metrics(pages: Iterable[str], own: Iterable[Metric] = ()) -> bytes:
    """Put pages of metrics together; `own` are families that no page has."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            found = values.setdefault(family.name, {})
            for sample in family.samples:
                series = sample.name, tuple(sample.labels.items())
                if series not in found:
                    found[series] = sample.value
                elif family.name.endswith(_TIMES):
                    found[series] = min(found[series], sample.value)
                else:
                    found[series] += sample.value
    for name, family in families.items():
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    return generate_latest(_Families([*families.values(), *own]))


class SharedModel:
    """How one model is used through all workers; to `demand` it is what a room is."""

    def __init__(self, name: str) -> None:
        """No worker has told of it yet; `name` is `namespace/name`."""
        self.name = name
        self.last_use: float | None = None
        self.told: dict[int, Use] = {}
        """By worker."""

    def __len__(self) -> int:
        """How many requests wait."""
        return sum(use.held for use in self.told.values())

    @property
    def in_flight(self) -> int:
        """Requests that a pod works on."""
        return sum(use.in_flight for use in self.told.values())

    @property
    def state(self) -> State:
        """It is scaled as long as a worker tells of it."""
        return State(scaled=bool(self.told))


class SharedUse:
    """How all models are used, as the workers tell it line by line."""

    def __init__(self, workers: int, clock: Callable[[], float], changed: Callable[[SharedModel, bool], None]) -> None:
        """`changed` is told of every model whose use has changed, and whether somebody begins to wait for it."""
        self._workers = workers
        self._clock = clock
        self._changed = changed
        self._models: dict[str, SharedModel] = {}
        self._complete: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether every worker has told of everything once."""
        return len(self._complete) == self._workers

    def news(self, worker: int, news: News) -> None:
        """A worker has told something; its first line is all that it serves."""
        if news.gateway:
            self._complete.add(worker)
            for name in [name for name, model in self._models.items() if worker in model.told]:
                if name not in news.models:
                    self._forget(worker, name)
        for name, use in news.models.items():
            if use is None:
                self._forget(worker, name)
                continue
            model = self._models.get(name)
            if model is None:
                model = self._models[name] = SharedModel(name)
            waited = len(model)
            model.told[worker] = use
            self._used(model, use)
            self._changed(model, len(model) > 0 and not waited)

    def lost(self, worker: int) -> None:
        """A worker has died, and its requests with it; until it is there again it counts as one that just was used."""
        for model in self._models.values():
            if worker in model.told:
                model.told[worker] = Use(idle=0.0)
                model.last_use = self._clock()
                self._changed(model, False)

    def _used(self, model: SharedModel, use: Use) -> None:
        if use.in_flight or use.held:
            model.last_use = self._clock()
        elif use.idle is not None:
            model.last_use = max(model.last_use or 0.0, self._clock() - use.idle)

    def _forget(self, worker: int, name: str) -> None:
        model = self._models.get(name)
        if model is None:
            return
        model.told.pop(worker, None)
        if not model.told:
            del self._models[name]
        self._changed(model, False)
