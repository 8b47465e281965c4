"""What the holders of Kubernetes tokens may use: SubjectAccessReviews, as few as will do.

A list of all models would ask one for each. So where several are unknown, it is asked for all names of a namespace at
once (and for all namespaces, where there are many), then by name only where that was denied.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol

from moorage_gateway.callers import ALL_NAMES, EVERYTHING, TokenCaller, User
from moorage_gateway.routing import ModelKey

YES_SECONDS: Final = 10.0
NO_SECONDS: Final = 1.0
MOST_REMEMBERED: Final = 10_000
"""Decisions of one caller; over this they are forgotten and asked again."""
AT_A_TIME: Final = 16
MANY_NAMESPACES: Final = 3
A_SECOND: Final = 10.0
"""Where many are asked at once, a no holds the longer: so that nobody who lists all the time asks for more a second."""


class Reviewer(Protocol):
    """Asks the API server."""

    async def may_generate(self, user: User, key: ModelKey) -> bool:
        """Whether that user may send requests to this InferenceModel, or to all of them; ReviewError."""


class Decisions:
    """Asks, a few at a time, and tells the callers."""

    def __init__(self, reviews: Reviewer) -> None:
        """Ask `reviews`."""
        self._reviews = reviews
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def decide(self, caller: TokenCaller, models: Iterable[ModelKey]) -> None:
        """Ask what `caller` may do with those models of which it is not known; ReviewError."""
        unknown = _unknown(caller, models)
        if len(unknown) <= 1:
            await self._ask(caller, unknown, len(unknown))
            return
        async with caller.listing:
            await self._narrow(caller, unknown)

    async def _narrow(self, caller: TokenCaller, models: Iterable[ModelKey]) -> None:
        unknown = _unknown(caller, models)
        count = Counter(key.namespace for key in unknown)
        asked = 0
        if len(count) > MANY_NAMESPACES and caller.decision(EVERYTHING) is None:
            asked += await self._ask(caller, [EVERYTHING], 1)
            unknown = _unknown(caller, unknown)
        whole = {ModelKey(key.namespace, ALL_NAMES) for key in unknown if count[key.namespace] > 1}
        undecided = [namespace for namespace in sorted(whole) if caller.decision(namespace) is None]
        asked += await self._ask(caller, undecided, len(undecided))
        unknown = _unknown(caller, unknown)
        await self._ask(caller, unknown, asked + len(unknown))

    async def _ask(self, caller: TokenCaller, keys: list[ModelKey], asked: int) -> int:
        """Ask; a no holds by how many were `asked`. Gives how many it asked now."""
        answers = await asyncio.gather(*(self._one(caller.user, key) for key in keys))
        if len(caller.decided) > MOST_REMEMBERED:
            caller.decided.clear()
        now = caller.clock()
        no_seconds = min(YES_SECONDS, max(NO_SECONDS, asked / A_SECOND))
        for key, yes in zip(keys, answers, strict=True):
            caller.decided[key] = (yes, now + (YES_SECONDS if yes else no_seconds))
        return len(keys)

    async def _one(self, user: User, key: ModelKey) -> bool:
        async with self._turns:
            return await self._reviews.may_generate(user, key)


def _unknown(caller: TokenCaller, models: Iterable[ModelKey]) -> list[ModelKey]:
    return [key for key in models if caller.may_use(key) is None]
