"""Who may call: what is asked of every caller, and the holders of Kubernetes tokens."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from moorage_gateway.keys import DEFAULT_PRIORITY
from moorage_gateway.routing import ModelKey

ALL_NAMES: Final = ""
"""As the name in a review: all models of the namespace; as the namespace: all of them (so a SubjectAccessReview)."""


class ReviewError(Exception):
    """The API server did not say; that is neither a yes nor a no."""


class Caller(Protocol):
    """Somebody with a valid credential."""

    @property
    def name(self) -> str:
        """For metrics and logs; never the credential."""

    @property
    def id(self) -> str:
        """Whose limits are kept by it."""

    @property
    def priority(self) -> int:
        """1 to 10: who goes first when not all can."""

    @property
    def limited(self) -> bool:
        """Whether there is any limit on requests or tokens."""

    @property
    def requests_per_minute(self) -> int | None:
        """None is as many as they like."""

    @property
    def tokens_per_minute(self) -> int | None:
        """Of prompts and answers together; None is as many as they like."""

    def may_use(self, key: ModelKey) -> bool | None:
        """Whether this model is for them; None where that has to be asked first (`Access.decide`)."""


@dataclass(frozen=True)
class User:
    """A user of Kubernetes, as a TokenReview tells it."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(eq=False)
class TokenCaller:
    """Whoever holds a token; what they may is remembered for a while."""

    user: User
    clock: Callable[[], float]
    decided: dict[ModelKey, tuple[bool, float]] = field(default_factory=dict)
    """Until when a yes or no holds. A key without a name is of all names, which only a yes says something of."""
    priority: int = DEFAULT_PRIORITY
    limited: bool = False
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever asks about many models: those who come meanwhile find the answers."""

    @property
    def name(self) -> str:
        """The user's name."""
        return self.user.name

    @property
    def id(self) -> str:
        """The user's name; limits are of keys."""
        return self.user.name

    def decision(self, key: ModelKey) -> bool | None:
        """What was said of just that, if it still holds."""
        found = self.decided.get(key)
        return found[0] if found is not None and found[1] > self.clock() else None

    def may_use(self, key: ModelKey) -> bool | None:
        """What was decided, if that still holds."""
        now = self.clock()
        found = self.decided.get(key)
        if found is not None and found[1] > now:
            return found[0]
        for wider in (ModelKey(key.namespace, ALL_NAMES), EVERYTHING):
            found = self.decided.get(wider)
            if found is not None and found[0] and found[1] > now:
                return True
        return None


EVERYTHING: Final = ModelKey(ALL_NAMES, ALL_NAMES)
