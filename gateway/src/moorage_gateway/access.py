"""Who asks, and which models they may use: API keys and Kubernetes tokens. Whoever is not known gets nothing.

A credential is a bearer token: `mrg_ID_SECRET` is an API key, anything else is taken for a token of Kubernetes. What
the API server has said of a token holds for ten seconds (a no for one), so that a request asks it rarely.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from moorage_gateway.keys import DEFAULT_PRIORITY, PREFIX, ApiKey, Keys
from moorage_gateway.routing import ModelKey

YES_SECONDS: Final = 10.0
NO_SECONDS: Final = 1.0
MOST_REMEMBERED: Final = 10_000
"""Credentials, and decisions for each; over this everything is forgotten and asked again."""

MOST_HEADER: Final = 512
"""Bytes of a header that is remembered; one may be padded with blanks."""

_BEARER: Final = b"bearer "


class Caller(Protocol):
    """Somebody with a valid credential."""

    @property
    def name(self) -> str:
        """For metrics and logs; never the credential."""

    @property
    def priority(self) -> int:
        """Who waits for a model is served in this order, 10 first."""

    def may_use(self, key: ModelKey) -> bool | None:
        """Whether this model is for them; None where that has to be asked first (`Access.decide`)."""


class ReviewError(Exception):
    """The API server did not say; that is neither a yes nor a no."""


class Reviews(Protocol):
    """What the API server is asked; both raise ReviewError where it does not say."""

    async def who(self, token: str) -> "User | None":
        """Whose token it is; None where it is not valid."""

    async def may_generate(self, user: "User", key: ModelKey) -> bool:
        """Whether that user may send requests to this InferenceModel."""


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
    priority: int = DEFAULT_PRIORITY

    @property
    def name(self) -> str:
        """The user's name."""
        return self.user.name

    def may_use(self, key: ModelKey) -> bool | None:
        """What was decided, if that still holds."""
        found = self.decided.get(key)
        return found[0] if found is not None and found[1] > self.clock() else None


class Access:
    """Knows callers by their `Authorization` header."""

    def __init__(self, keys: Keys, reviews: Reviews, clock: Callable[[], float]) -> None:
        """Take keys from `keys`; ask `reviews` for the rest. `clock` is monotonic, in seconds."""
        self._keys = keys
        self._reviews = reviews
        self._clock = clock
        self._tokens: dict[bytes, tuple[TokenCaller | None, float]] = {}
        self._verified: dict[bytes, ApiKey] = {}
        """Holders of keys by the header that proved it, while no key changes: the digest is computed once."""
        self._generation = -1
        self._asking: dict[bytes, asyncio.Task[TokenCaller | None]] = {}

    def known(self, authorization: bytes | None) -> tuple[Caller | None, bool]:
        """The caller, and whether that is certain: if not, it has to be asked (`ask`)."""
        if self._generation != self._keys.generation:
            self._generation = self._keys.generation
            self._verified.clear()
        key = self._verified.get(authorization) if authorization is not None else None
        if key is not None and self._keys.in_time(key):
            return key, True
        token = bearer(authorization)
        if token is None or authorization is None:
            return None, True
        if token.startswith(PREFIX):
            return self._verify(authorization, token), True
        found = self._tokens.get(hashlib.sha256(token).digest())
        if found is None or found[1] <= self._clock():
            return None, False
        return found[0], True

    async def ask(self, authorization: bytes | None) -> TokenCaller | None:
        """Whose token it is; those who ask for the same one at the same time ask once."""
        token = bearer(authorization)
        if token is None:
            return None
        digest = hashlib.sha256(token).digest()
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.ensure_future(self._review(token, digest))
            asking.add_done_callback(lambda _: self._asking.pop(digest, None))
        return await asyncio.shield(asking)

    async def decide(self, caller: Caller, models: Iterable[ModelKey]) -> None:
        """Ask what `caller` may do with those models of which it is not known."""
        if not isinstance(caller, TokenCaller):
            return
        unknown = [key for key in models if caller.may_use(key) is None]
        answers = await asyncio.gather(*(self._reviews.may_generate(caller.user, key) for key in unknown))
        if len(caller.decided) > MOST_REMEMBERED:
            caller.decided.clear()
        now = self._clock()
        for key, yes in zip(unknown, answers, strict=True):
            caller.decided[key] = (yes, now + (YES_SECONDS if yes else NO_SECONDS))

    def _verify(self, authorization: bytes, token: bytes) -> ApiKey | None:
        key = self._keys.caller(token)
        if key is not None and len(authorization) <= MOST_HEADER:
            if len(self._verified) >= MOST_REMEMBERED:
                self._verified.clear()
            self._verified[authorization] = key
        return key

    async def _review(self, token: bytes, digest: bytes) -> TokenCaller | None:
        user = await self._reviews.who(token.decode("latin-1"))
        caller = TokenCaller(user, self._clock) if user is not None else None
        if len(self._tokens) > MOST_REMEMBERED:
            self._tokens.clear()
        self._tokens[digest] = (caller, self._clock() + (YES_SECONDS if caller else NO_SECONDS))
        return caller


def bearer(authorization: bytes | None) -> bytes | None:
    """The token of a header `Authorization: Bearer TOKEN` (RFC 6750); None where it is no such thing."""
    if authorization is None or authorization[:7].lower() != _BEARER:
        return None
    token = authorization[7:].strip()
    return token if token and b" " not in token and b"," not in token and len(token) <= 8192 else None
