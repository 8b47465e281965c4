"""The pod that has likely read the beginning of a request before: consistent hashing with bounded loads.

Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (arXiv 1608.01350): a request goes to the
first pod behind the hash of its prefix that has less than a factor times the average load. So the same prefix meets
the same pod, and its cache, while that one is not much busier than others; when a pod comes or goes, only prefixes of
its own parts of the ring move. The ring is made of addresses alone, so all gateways have the same one.
"""

from bisect import bisect
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from moorage_gateway.balance import Backends, Endpoint

PREFIX_LENGTH: Final = 256
LOAD_FACTOR_PERCENT: Final = 125
"""What holds where the InferenceModel says only that prefixes are hashed."""

MESSAGES: Final = 8
"""Messages among which the first of the user is looked for."""

MOST_MESSAGES: Final = 4096
"""Messages of a chat that is read: a body has room for a million, which would take the time of all other requests."""

_DIGESTS: Final = 16
_POINTS: Final = Struct("<8Q")
"""Points of a pod on the ring that one digest of 64 bytes makes; 128 in all, so that parts differ by some 9 %."""


class PrefixSettings(NamedTuple):
    """How prefixes choose a pod."""

    length: int = PREFIX_LENGTH
    """Bytes, as they stand in JSON, of each message that is looked at."""
    load_factor_percent: int = LOAD_FACTOR_PERCENT
    """The load that a pod may have, in percent of the average."""


class _Role:
    """The role in a message, for which the decoder calls our hook: there is one in each."""

    __slots__ = ("name",)

    name: str


class _Message(msgspec.Struct):
    role: _Role
    content: msgspec.Raw = msgspec.Raw(b"")


class _Body(msgspec.Struct):
    messages: list[_Message] = []
    prompt: msgspec.Raw = msgspec.Raw(b"")


_met: Final[list[None]] = []
"""An entry for each message of the body that is being decoded; nothing else runs meanwhile."""


def _role(_: type, found: object) -> _Role:
    if len(_met) == MOST_MESSAGES:
        raise ValueError("more messages than are read")
    if not isinstance(found, str):
        raise TypeError("a role is a text")
    _met.append(None)
    role = _Role()
    role.name = found
    return role


_BODY: Final = msgspec.json.Decoder(_Body, dec_hook=_role)


def prefix_of(body: bytes, length: int) -> bytes | None:
    """The beginning of a chat's messages up to the first of the user, or of a prompt; None where there is neither.

    Of each message `length` bytes count: with a long system message that all share, chats are still told apart.
    """
    _met.clear()
    try:
        asked = _BODY.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None  # the pod will say what is wrong with it
    if not asked.messages:
        return _beginning(asked.prompt, length) or None
    parts = []
    for message in asked.messages[:MESSAGES]:
        parts.append(_beginning(message.content, length))
        if message.role.name == "user":
            break
    return b"\0".join(parts)


def _beginning(text: msgspec.Raw, length: int) -> bytes:
    """The first bytes of a value of JSON without its first quote, and without copying the rest."""
    return bytes(memoryview(text)[1 : 1 + length])


def hash_of(prefix: bytes) -> int:
    """Where a prefix lies on the ring: 64 bits that are the same in every process."""
    return int.from_bytes(blake2b(prefix, digest_size=8).digest(), "little")


class Ring:
    """The points of all pods, in order."""

    __slots__ = ("_owners", "_points")

    def __init__(self, endpoints: list[Endpoint]) -> None:
        """Place the pods by their addresses."""
        placed = sorted(
            (point, number)
            for number, endpoint in enumerate(endpoints)
            for digest in range(_DIGESTS)
            for point in _POINTS.unpack(
                blake2b(endpoint.pool.address, digest_size=_POINTS.size, salt=bytes((digest,))).digest()
            )
        )
        self._points = [point for point, _ in placed]
        self._owners = [endpoints[number] for _, number in placed]

    def first(self, place: int, now: float, bound: int, tried: tuple[Endpoint, ...]) -> Endpoint | None:
        """The first pod behind `place` with less than `bound` in flight that is neither passed over nor `tried`."""
        owners = self._owners
        begin = bisect(self._points, place)
        for stretch in (range(begin, len(owners)), range(begin)):
            for number in stretch:
                endpoint = owners[number]
                if endpoint.in_flight < bound and endpoint.open_until <= now and endpoint not in tried:
                    return endpoint
        return None


class PrefixPods:
    """The pods of a model that hashes prefixes."""

    __slots__ = ("_placed", "_ring", "backends", "settings")

    def __init__(self, backends: Backends, settings: PrefixSettings) -> None:
        """Choose among `backends`, as they are when a request comes."""
        self.settings = settings
        self.backends = backends
        self._placed: list[Endpoint] = []
        self._ring = Ring([])

    def choosing(self, body: bytes) -> "Backends | ByPrefix":
        """Whoever chooses a pod for this request; without a prefix, it is the one with the fewest in flight."""
        prefix = prefix_of(body, self.settings.length)
        return self.backends if prefix is None else ByPrefix(self, hash_of(prefix))

    def pick(self, place: int, now: float, tried: tuple[Endpoint, ...]) -> Endpoint | None:
        """The pod for a prefix; None where all fail or there is none."""
        endpoints = self.backends.endpoints
        if endpoints is not self._placed:
            self._placed, self._ring = endpoints, Ring(endpoints)
        taking = load = 0
        for endpoint in endpoints:
            if endpoint.open_until <= now and endpoint not in tried:
                taking += 1
                load += endpoint.in_flight
        if not taking:
            return None
        # The paper's bound, rounded up, with this request counted: there is always a pod below it.
        bound = -(-self.settings.load_factor_percent * (load + 1) // (100 * taking))
        chosen = self._ring.first(place, now, bound, tried)
        if chosen is not None and chosen.open_until:
            chosen.probed(now)
        return chosen


class ByPrefix:
    """The choice of a pod for one request."""

    __slots__ = ("_place", "_pods")

    def __init__(self, pods: PrefixPods, place: int) -> None:
        """Choose by where the prefix lies on the ring."""
        self._pods = pods
        self._place = place

    def __len__(self) -> int:
        """How many pods there are."""
        return len(self._pods.backends)

    def pick(self, now: float, tried: tuple[Endpoint, ...] = ()) -> Endpoint | None:
        """The pod for the request, none of `tried`."""
        return self._pods.pick(self._place, now, tried)
