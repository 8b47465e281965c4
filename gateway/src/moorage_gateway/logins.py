"""Failed logins, and how many of them somebody may have. Pure, but for the clock.

They are counted by the client's address (an IPv6 /64 is one) and by the ID of a key. Whoever has had too many gets 429
in place of 401, and no token of theirs that is not known to be good is shown to the API server. A key is checked here,
so a good one always works, whoever else shares its address; so does a token that was good not long ago (`tokens`).
"""

from collections.abc import Callable
from typing import Final

from moorage_gateway.gcra import PERIOD, spent, wait

FAILURES_A_MINUTE: Final = 30
MOST_REMEMBERED: Final = 10_000
"""Addresses, and IDs of keys; the ones that failed longest ago are forgotten first."""


class Failures:
    """Those of one kind of name."""

    def __init__(self, per_minute: int = FAILURES_A_MINUTE, most: int = MOST_REMEMBERED) -> None:
        """Take `per_minute` failures of each name, that many at once; remember `most` names."""
        self._limit = per_minute
        self._most = most
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._full_at)

    def wait(self, name: str, now: float) -> float:
        """Seconds until `name` may fail again; 0 where it may."""
        found = self._full_at.get(name)
        return max(0.0, wait(found, now, 1, self._limit)) if found is not None else 0.0

    def count(self, name: str, now: float) -> None:
        """Take note of a failure."""
        full_at = self._full_at.pop(name, 0.0)
        # What came too soon is not added: a flood does not shut its address out for longer than a while after it.
        too_soon = wait(full_at, now, 1, self._limit) > 0
        self._full_at[name] = full_at if too_soon else spent(full_at, now, 1, self._limit)
        if len(self._full_at) > self._most:
            del self._full_at[next(iter(self._full_at))]

    def forgive(self, name: str) -> None:
        """Take back a failure that was none."""
        if name in self._full_at:
            self._full_at[name] -= PERIOD / self._limit


class Logins:
    """What failed, by address (see `addresses.group`) and by key."""

    def __init__(self, clock: Callable[[], float], per_minute: int = FAILURES_A_MINUTE) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._addresses = Failures(per_minute)
        self._keys = Failures(per_minute)

    def wait(self, group: str, identity: str | None = None) -> float:
        """Seconds until an address may fail again, and with the key of that ID; 0 where it may."""
        now = self._clock()
        seconds = self._addresses.wait(group, now)
        return max(seconds, self._keys.wait(identity, now)) if identity else seconds

    def failed(self, group: str, identity: str | None = None) -> None:
        """Take note of a failure of an address, and of the key of that ID."""
        now = self._clock()
        self._addresses.count(group, now)
        if identity:
            self._keys.count(identity, now)

    def good(self, group: str) -> None:
        """Take back a failure of an address."""
        self._addresses.forgive(group)
