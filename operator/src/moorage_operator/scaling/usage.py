"""The use of models as all gateways tell it, put together. Pure: lines go in, `Use` comes out.

A gateway that cannot be reached makes what is known incomplete. What it did meanwhile is told by itself when it can be
reached again; if it cannot, because another process is in its place or none, its models count as used until then.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from moorage_common.demand import News
from moorage_common.demand import Use as Told
from moorage_operator.api.key import Key
from moorage_operator.scaling.decision import Use

Address = tuple[str, int]
"""Where a gateway's administrative port is."""


@dataclass
class _Gateway:
    process: str = ""
    models: dict[Key, Told] = field(default_factory=dict)
    connected: bool = False
    refuses: bool = False
    """It does not tell us, by its own decision."""
    ended: bool = False


class Usage:
    """What is known of all gateways. Methods that take something in give the models that it concerns."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._gateways: dict[Address, _Gateway] = {}
        self._last: dict[Key, float] = {}

    def exist(self, addresses: Iterable[Address]) -> set[Key]:
        """These are all gateways that there are."""
        there = set(addresses)
        concerned = set[Key]()
        for address in self._gateways.keys() - there:
            gone = self._gateways.pop(address)
            concerned |= gone.models.keys()
            self._passed_unseen(gone)
        for address in there - self._gateways.keys():
            self._gateways[address] = _Gateway()
        return concerned

    def told(self, address: Address, news: News) -> set[Key]:
        """A gateway has said something."""
        gateway = self._gateways.get(address)
        if gateway is None:
            return set()
        concerned = set(map(_key, news.models))
        if news.gateway:
            concerned |= gateway.models.keys()
            if news.gateway != gateway.process:
                self._passed_unseen(gateway)
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
        """A gateway cannot be heard any more."""
        gateway = self._gateways.get(address)
        if gateway is None or not gateway.connected:
            return set()
        gateway.connected = False
        return set(gateway.models)

    def refused(self, address: Address) -> bool:
        """A gateway does not let us hear it; gives whether that is new. What it waits for, nobody will know of."""
        gateway = self._gateways.get(address)
        if gateway is None or gateway.refuses:
            return False
        gateway.refuses = True
        return True

    def forget(self, key: Key) -> None:
        """A model has gone."""
        self._last.pop(key, None)

    def use(self, key: Key) -> Use:
        """How a model is used through all gateways together."""
        gateways = self._gateways.values()
        told = [gateway.models[key] for gateway in gateways if gateway.connected and key in gateway.models]
        return Use(
            requests=sum(use.in_flight + use.held for use in told),
            last=self._last.get(key, self._clock()),
            known=self.complete,
            served=bool(told),
        )

    @property
    def complete(self) -> bool:
        """Whether every gateway can be heard, or has said that it ends."""
        return all(gateway.connected or gateway.ended for gateway in self._gateways.values())

    def wakes(self, key: Key) -> bool:
        """Whether a request for a model that sleeps would wake it.

        A gateway that was not heard yet is believed to, but not one that refuses to tell.
        """
        return any(
            key in gateway.models if gateway.connected else not (gateway.ended or gateway.refuses)
            for gateway in self._gateways.values()
        )

    def _used(self, key: Key, use: Told) -> None:
        now = self._clock()
        if use.in_flight or use.held:
            self._last[key] = now
        elif use.idle is not None:
            self._last[key] = max(self._last.get(key, 0.0), now - use.idle)
        else:
            # Nobody knows when it was used: that counts as now.
            self._last.setdefault(key, now)

    def _passed_unseen(self, gateway: _Gateway) -> None:
        if not gateway.ended:
            now = self._clock()
            self._last |= dict.fromkeys(gateway.models, now)


def _key(name: str) -> Key:
    namespace, _, plain = name.partition("/")
    return Key(namespace, plain)
