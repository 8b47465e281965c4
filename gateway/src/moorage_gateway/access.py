"""Who asks, and which models they may use: API keys and Kubernetes tokens. Whoever is not known gets nothing.

A credential is a bearer token: `mrg_ID_SECRET` is an API key, anything else is taken for a token of Kubernetes, about
which the API server has to be asked (`tokens`, `decisions`).
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from moorage_gateway.callers import Caller, ReviewError, TokenCaller, User
from moorage_gateway.decisions import Decisions
from moorage_gateway.decisions import Reviewer as AccessReviewer
from moorage_gateway.keys import PREFIX, ApiKey, Keys, valid_id
from moorage_gateway.routing import ModelKey
from moorage_gateway.tokens import FRESH_A_MINUTE, MOST_REMEMBERED, Attempt, Tokens
from moorage_gateway.tokens import Reviewer as TokenReviewer

__all__ = ["Access", "Attempt", "Caller", "ReviewError", "Reviews", "TokenCaller", "User", "bearer", "claimed_key"]

MOST_HEADER: Final = 512
"""Bytes of a header that is remembered; one may be padded with blanks."""

_BEARER: Final = b"bearer "


class Reviews(TokenReviewer, AccessReviewer, Protocol):
    """What the API server is asked; both raise ReviewError where it does not say."""


class Access:
    """Knows callers by their `Authorization` header."""

    def __init__(
        self, keys: Keys, reviews: Reviews, clock: Callable[[], float], fresh_per_minute: int = FRESH_A_MINUTE
    ) -> None:
        """Take keys from `keys`; ask `reviews` for the rest. `clock` is monotonic, in seconds.

        Of tokens that were never seen, at most `fresh_per_minute` are asked about.
        """
        self._keys = keys
        self._tokens = Tokens(reviews, clock, fresh_per_minute)
        self._decisions = Decisions(reviews)
        self._verified: dict[bytes, ApiKey] = {}
        """Holders of keys by the header that proved it, while no key changes: the digest is computed once."""
        self._generation = -1

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
            return (self._verify(authorization, token), True) if self._keys.checked else (None, False)
        return self._tokens.known(token)

    async def ask(self, authorization: bytes | None, attempt: Attempt) -> Caller | None:
        """Whose token it is; ReviewError, KeysUncheckedError, and whatever `attempt` raises."""
        token = bearer(authorization)
        if token is None:
            return None
        return self._keys.caller(token) if token.startswith(PREFIX) else await self._tokens.ask(token, attempt)

    async def decide(self, caller: Caller, models: Iterable[ModelKey]) -> None:
        """Ask what `caller` may do with those models of which it is not known; ReviewError."""
        if isinstance(caller, TokenCaller):
            await self._decisions.decide(caller, models)

    def _verify(self, authorization: bytes, token: bytes) -> ApiKey | None:
        key = self._keys.caller(token)
        if key is not None and len(authorization) <= MOST_HEADER:
            if len(self._verified) >= MOST_REMEMBERED:
                self._verified.clear()
            self._verified[authorization] = key
        return key


def bearer(authorization: bytes | None) -> bytes | None:
    """The token of a header `Authorization: Bearer TOKEN` (RFC 6750); None where it is no such thing."""
    if authorization is None or authorization[:7].lower() != _BEARER:
        return None
    token = authorization[7:].strip()
    return token if token and b" " not in token and b"," not in token and len(token) <= 8192 else None


def claimed_key(token: bytes) -> str | None:
    """The ID of the key that a token claims to be, empty where that is no ID; None where it is no key at all."""
    if not token.startswith(PREFIX):
        return None
    identity = token[len(PREFIX) :].partition(b"_")[0].decode("latin-1")
    return identity if valid_id(identity) else ""
