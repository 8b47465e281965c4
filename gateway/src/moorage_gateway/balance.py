"""Which pod gets a request: the one with the fewest in flight, of those that are not passed over for failing."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from moorage_gateway.upstream import Counts, Pool

FAILURES: Final = 3
"""Failures in a row after which a pod is passed over."""
FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 30.0
"""Seconds for which it is: they double with each failure more. Then one request is the probe."""


class Endpoint:
    """One pod of a model."""

    __slots__ = ("_failures", "in_flight", "open_until", "pool")

    def __init__(self, host: str, port: int, counts: Counts | None = None) -> None:
        """Nothing is connected yet; connections are counted in `counts`."""
        self.pool = Pool(host, port, counts)
        self.in_flight = 0
        self.open_until = 0.0
        self._failures = 0

    def succeeded(self) -> None:
        """An answer has begun: whatever was before, it works."""
        self._failures = 0
        self.open_until = 0.0

    def failed(self, now: float) -> None:
        """It could not be reached, or went before it had answered anything."""
        self._failures += 1
        if self._failures >= FAILURES:
            self.open_until = now + min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** (self._failures - FAILURES))

    def probed(self, now: float) -> None:
        """A request goes to it although it was passed over: until that has ended, others do not."""
        self.open_until = now + FIRST_PAUSE


class Pods(Protocol):
    """Pods of one model, and how one of them is chosen for a request."""

    def __len__(self) -> int:
        """How many there are."""

    def pick(self, now: float, tried: tuple[Endpoint, ...] = ()) -> Endpoint | None:
        """The endpoint for the next request, none of `tried`; None where all fail or there is none."""


class Backends:
    """The ready pods of one model."""

    __slots__ = ("_endpoints", "_turn", "counts")

    def __init__(self) -> None:
        self.counts = Counts()
        self._endpoints: list[Endpoint] = []
        self._turn = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._endpoints)

    def __iter__(self) -> Iterator[Endpoint]:
        """All of them."""
        return iter(self._endpoints)

    @property
    def in_flight(self) -> int:
        """Requests that are with one of them."""
        return sum(endpoint.in_flight for endpoint in self._endpoints)

    @property
    def endpoints(self) -> list[Endpoint]:
        """All of them: another list after each change, never the same one changed."""
        return self._endpoints

    def update(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Keep what is still there, with its connections; what has gone finishes what it has begun."""
        known = {(endpoint.pool.host, endpoint.pool.port): endpoint for endpoint in self._endpoints}
        wanted = sorted(set(addresses))
        for address, endpoint in known.items():
            if address not in wanted:
                endpoint.pool.close()
        self._endpoints = [known.get(address) or Endpoint(*address, self.counts) for address in wanted]

    def pick(self, now: float, tried: tuple[Endpoint, ...] = ()) -> Endpoint | None:
        """The endpoint for the next request, none of `tried`; None where all fail or there is none."""
        endpoints = self._endpoints
        if len(endpoints) == 1 and not tried and not endpoints[0].open_until:
            return endpoints[0]
        self._turn += 1
        best: Endpoint | None = None
        count = len(endpoints)
        for place in range(count):
            # Of those with equally few the next in turn, or the first of the list would get all that come one by one.
            endpoint = endpoints[(self._turn + place) % count]
            if endpoint.open_until > now or endpoint in tried:
                continue
            if best is None or endpoint.in_flight < best.in_flight:
                best = endpoint
        if best is not None and best.open_until:
            best.probed(now)
        return best
