"""The use of models, summed up over all gateways. Pure: lines go in, `Use` comes out.

While a gateway is unreachable, the use is incomplete. When it is reachable again it reports what it did meanwhile; if
it has ended or was replaced, its models count as used until then.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from moorage_common.demand import News
from moorage_common.demand import Use as ReportedUse
from moorage_operator.api.key import Key
from moorage_operator.scaling.decision import Use

Address = tuple[str, int]
"""Where a gateway's administrative port is."""


@dataclass
class _Gateway:
    process: str = ""
    models: dict[Key, ReportedUse] = field(default_factory=dict)
    connected: bool = False
    refuses: bool = False
    """It refuses the operator."""
    ended: bool = False


class Usage:
    """The state of all gateways. Methods that change it return the models that it concerns."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._gateways: dict[Address, _Gateway] = {}
        self._last: dict[Key, float] = {}

    def set_addresses(self, addresses: Iterable[Address]) -> set[Key]:
        """Sets the addresses of all gateways."""
        there = set(addresses)
        concerned = set[Key]()
        for address in self._gateways.keys() - there:
            gone = self._gateways.pop(address)
            concerned |= gone.models.keys()
            self._assume_used(gone)
        for address in there - self._gateways.keys():
            self._gateways[address] = _Gateway()
        return concerned

    def update(self, address: Address, news: News) -> set[Key]:
        """Takes in a line of a gateway."""
        gateway = self._gateways.get(address)
        if gateway is None:
            return set()
        concerned = set(map(_key, news.models))
        if news.gateway:
            concerned |= gateway.models.keys()
            if news.gateway != gateway.process:
                self._assume_used(gateway)
            gateway.process, gateway.models = news.gateway, {}
            gateway.connected, gateway.refuses, gateway.ended = True, False, False
        for name, use in news.models.items():
            key = _key(name)
            if use is None:
                gateway.models.pop(key, None)
            else:
                gateway.models[key] = use
                self._used(key, use)
        gateway.ended = gateway.ended or news.end
        return concerned

    def lost(self, address: Address) -> set[Key]:
        """The connection to a gateway is lost."""
        gateway = self._gateways.get(address)
        if gateway is None or not gateway.connected:
            return set()
        gateway.connected = False
        return set(gateway.models)

    def refused(self, address: Address) -> bool:
        """A gateway refuses the operator; returns whether that is new. The requests that it holds are unknown."""
        gateway = self._gateways.get(address)
        if gateway is None or gateway.refuses:
            return False
        gateway.refuses = True
        return True

    def forget(self, key: Key) -> None:
        """A model has gone."""
        self._last.pop(key, None)

    def use(self, key: Key) -> Use:
        """The use of a model through all gateways."""
        gateways = self._gateways.values()
        reported = [gateway.models[key] for gateway in gateways if gateway.connected and key in gateway.models]
        return Use(
            requests=sum(use.in_flight + use.held for use in reported),
            last=self._last.get(key, self._clock()),
            known=self.complete,
            served=bool(reported),
        )

    @property
    def complete(self) -> bool:
        """Whether every gateway is connected, or has reported that it ends."""
        return all(gateway.connected or gateway.ended for gateway in self._gateways.values())

    def wakes(self, key: Key) -> bool:
        """Whether a request for a model that sleeps would wake it.

        A gateway that is not connected yet is assumed to, but not one that refuses the operator.
        """
        return any(
            key in gateway.models if gateway.connected else not (gateway.ended or gateway.refuses)
            for gateway in self._gateways.values()
        )

    def _used(self, key: Key, use: ReportedUse) -> None:
        now = self._clock()
        if use.in_flight or use.held:
            self._last[key] = now
        elif use.idle is not None:
            self._last[key] = max(self._last.get(key, 0.0), now - use.idle)
        else:
            # The time of its last use is unknown: it counts as now.
            self._last.setdefault(key, now)

    def _assume_used(self, gateway: _Gateway) -> None:
        if not gateway.ended:
            now = self._clock()
            self._last |= dict.fromkeys(gateway.models, now)


def _key(name: str) -> Key:
    namespace, _, plain = name.partition("/")
    return Key(namespace, plain)
