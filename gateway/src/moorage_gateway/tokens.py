"""Tokens of Kubernetes: whose they are, asked of the API server as seldom and as gently as can be.

What it said of a token holds for ten seconds (a no for one). Those who ask for the same one at the same time ask once.
Reviews run few at a time, and those of tokens that were never seen have a rate: a flood of random ones ends here. A
token that was good within the last hour does not wait behind such a flood.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from moorage_gateway.callers import ReviewError, TokenCaller, User
from moorage_gateway.gcra import spent, wait

YES_SECONDS: Final = 10.0
NO_SECONDS: Final = 1.0
GOOD_SECONDS: Final = 3600.0
"""For so long a token is known to have been good; its reviews go on all the same."""
MOST_REMEMBERED: Final = 10_000
AT_A_TIME: Final = 16
WAITING: Final = 1024
"""Reviews of tokens that were never seen; more are not even queued."""
FRESH_A_MINUTE: Final = 3000
"""Tokens that were never seen, of all clients together."""


class TooManyReviewsError(ReviewError):
    """More tokens come than the API server is to be asked about."""


class Reviewer(Protocol):
    """Asks the API server."""

    async def who(self, token: str) -> User | None:
        """Whose token it is; None where it is not valid; ReviewError."""


class Attempt(Protocol):
    """Who counts failures, of the address that a token comes from."""

    def check(self) -> None:
        """Raise where there were too many of them for another review."""

    def failed(self) -> None:
        """The token is taken for one that is not valid, until `good` is said."""

    def good(self) -> None:
        """It is valid, or nobody knows."""


class Tokens:
    """What is known of tokens, by their SHA-256."""

    def __init__(self, reviews: Reviewer, clock: Callable[[], float], fresh_per_minute: int = FRESH_A_MINUTE) -> None:
        """`clock` is monotonic, in seconds."""
        self._reviews = reviews
        self._clock = clock
        self._fresh_per_minute = fresh_per_minute
        self._fresh_full_at = 0.0
        self._fresh = 0
        self._yes: dict[bytes, tuple[TokenCaller, float]] = {}
        """In the order in which they were found good."""
        self._no: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Task[TokenCaller | None]] = {}
        self._known_turns = asyncio.Semaphore(AT_A_TIME)
        self._fresh_turns = asyncio.Semaphore(AT_A_TIME)

    def known(self, token: bytes) -> tuple[TokenCaller | None, bool]:
        """Whose it is, and whether that is certain."""
        digest = hashlib.sha256(token).digest()
        now = self._clock()
        found = self._yes.get(digest)
        if found is not None and found[1] > now:
            return found[0], True
        return None, self._no.get(digest, 0.0) > now

    async def ask(self, token: bytes, attempt: Attempt) -> TokenCaller | None:
        """Whose it is; ReviewError where nobody says. `attempt` is asked about a token that is not known to be good."""
        digest = hashlib.sha256(token).digest()
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.ensure_future(self._begin(token, digest, attempt))
            asking.add_done_callback(lambda task: self._asked(digest, task))
        return await asyncio.shield(asking)

    def _asked(self, digest: bytes, task: "asyncio.Task[TokenCaller | None]") -> None:
        del self._asking[digest]
        if not task.cancelled():
            task.exception()  # whoever asked may have left; then nobody else looks at it

    async def _begin(self, token: bytes, digest: bytes, attempt: Attempt) -> TokenCaller | None:
        found = self._yes.get(digest)
        now = self._clock()
        if found is not None and found[1] + GOOD_SECONDS > now:
            async with self._known_turns:
                return await self._review(token, digest)
        attempt.check()
        if self._fresh >= WAITING or self._over_rate():
            raise _too_many()
        self._fresh += 1
        asked = False
        try:
            async with self._fresh_turns:
                # Those before it in the line may have failed meanwhile; and of those that are asked about at the same
                # time no more may fail than one may have. What is not asked about is not counted: an address has its
                # failures, and the rate is everybody's.
                attempt.check()
                if self._over_rate():
                    raise _too_many()
                self._fresh_full_at = spent(self._fresh_full_at, self._clock(), 1, self._fresh_per_minute)
                attempt.failed()
                asked = True
                caller = await self._review(token, digest)
        except ReviewError:
            if asked:
                attempt.good()
            raise
        finally:
            self._fresh -= 1
        if caller is not None:
            attempt.good()
        return caller

    def _over_rate(self) -> bool:
        return wait(self._fresh_full_at, self._clock(), 1, self._fresh_per_minute) > 0

    async def _review(self, token: bytes, digest: bytes) -> TokenCaller | None:
        user = await self._reviews.who(token.decode("latin-1"))
        now = self._clock()
        known = self._yes.pop(digest, None)
        if user is None:
            self._no[digest] = now + NO_SECONDS
            _forget_oldest(self._no)
            return None
        caller = known[0] if known is not None and known[0].user == user else TokenCaller(user, self._clock)
        self._yes[digest] = caller, now + YES_SECONDS
        _forget_oldest(self._yes)
        return caller


def _forget_oldest(remembered: dict[bytes, Any]) -> None:
    if len(remembered) > MOST_REMEMBERED:
        del remembered[next(iter(remembered))]


def _too_many() -> TooManyReviewsError:
    return TooManyReviewsError("more tokens come that were never seen than the API server is to be asked about")
