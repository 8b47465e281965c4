"""Who may follow the use of models at the administrative port: the operator, by a token of Kubernetes.

The token has to be made for the gateway, and RBAC has to give its holder `get` on the non-resource URL `/demand`. Those
who are refused hold no place of a follower and are told nothing. Who was let in is asked about again every minute, as a
token expires and a right is taken back. What strangers ask here is counted apart from what clients ask the front.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from moorage_common.http.handler import Running
from moorage_common.http.message import Answer, Refusal, Request
from moorage_common.http.responder import Responder
from moorage_gateway.access import bearer
from moorage_gateway.audit import FailedLogins
from moorage_gateway.callers import ReviewError, TokenCaller, User
from moorage_gateway.decisions import NO_SECONDS, YES_SECONDS
from moorage_gateway.desk import Attempt
from moorage_gateway.keys import PREFIX
from moorage_gateway.logins import Logins
from moorage_gateway.tokens import Reviewer as TokenReviewer
from moorage_gateway.tokens import Tokens

log = logging.getLogger(__name__)

PATH: Final = "/demand"
FRESH_A_MINUTE: Final = 300
"""Tokens never seen before that the API server is asked about."""
AT_A_TIME: Final = 4
"""Reviews of what known people may."""
AGAIN_SECONDS: Final = 60.0

_UNAUTHORIZED: Final = Answer(401, b"", b"text/plain", headers=((b"WWW-Authenticate", b'Bearer realm="moorage"'),))
_FORBIDDEN: Final = Answer(403, b"", b"text/plain")
_WRONG_METHOD: Final = Answer(405, b"", b"text/plain", headers=((b"Allow", b"GET"),))
_NOT_CHECKED: Final = Answer(503, b"", b"text/plain", headers=((b"Retry-After", b"2"),))


class Reviews(TokenReviewer, Protocol):
    """What the API server is asked; both raise ReviewError where it does not say."""

    async def may_get(self, user: User, path: str) -> bool:
        """Whether that user may `get` this non-resource URL; ReviewError."""


class DemandAccess:
    """Lets those follow who may. `clock` is monotonic, in seconds."""

    def __init__(self, reviews: Reviews, clock: Callable[[], float]) -> None:
        """Ask `reviews`."""
        self._reviews = reviews
        self._clock = clock
        self._tokens = Tokens(reviews, clock, FRESH_A_MINUTE)
        self._logins = Logins(clock)
        self._audit = FailedLogins(clock)
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._decided: WeakKeyDictionary[TokenCaller, tuple[bool, float]] = WeakKeyDictionary()
        """Until when a yes or no holds."""

    async def serve(
        self, request: Request, responder: Responder, follow: Callable[[Responder], Running | None]
    ) -> None:
        """Refuse, or let `follow` begin to tell, as long as that is allowed; None where it has answered itself."""
        token = bearer(request.headers.get(b"authorization"))
        attempt = Attempt(self._logins, responder.peer)
        try:
            if request.method != "GET":
                raise Refusal(_WRONG_METHOD)
            if token is None or token.startswith(PREFIX):
                # A key of a client is no token, and is not to be shown to anybody.
                raise Refusal(_UNAUTHORIZED)
            await self._check(token, attempt)
        except ReviewError as error:
            log.warning("the API server did not say who may follow", extra={"error": str(error)[:500]})
            responder.send(_NOT_CHECKED)
        except Refusal as refusal:
            self._refuse(refusal.answer, responder)
        else:
            if (following := follow(responder)) is not None:
                await self._watch_over(following, token, attempt)

    def _refuse(self, answer: Answer, responder: Responder) -> None:
        if answer.status in (401, 429):
            too_many = answer.status == 429
            self._audit.tell(client=responder.peer, key=None, request_id="", refused_early=too_many, path=PATH)
        responder.send(Answer(answer.status, b"", b"text/plain", headers=answer.headers))

    async def _check(self, token: bytes, attempt: Attempt) -> None:
        """Refusal for everybody who may not follow; ReviewError where nobody says."""
        caller, certain = self._tokens.known(token)
        if caller is None and not certain:
            caller = await self._tokens.ask(token, attempt)
        if caller is None:
            raise Refusal(_UNAUTHORIZED)
        if not await self._may_follow(caller):
            raise Refusal(_FORBIDDEN)

    async def _may_follow(self, caller: TokenCaller) -> bool:
        async with caller.listing:
            found = self._decided.get(caller)
            if found is not None and found[1] > self._clock():
                return found[0]
            async with self._turns:
                yes = await self._reviews.may_get(caller.user, PATH)
            self._decided[caller] = yes, self._clock() + (YES_SECONDS if yes else NO_SECONDS)
        if not yes:
            # Once for each time that the API server was asked, so not for every try.
            log.warning(
                "somebody may not follow the use of models", extra={"user": caller.name, "missing": f"get {PATH}"}
            )
        return yes

    async def _watch_over(self, following: Running, token: bytes, attempt: Attempt) -> None:
        """Return at the end of what follows; when it may no longer, that is now, and its stream looks cut off."""
        ended = asyncio.Event()
        following.add_done_callback(lambda _: ended.set())
        try:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_SECONDS):
                        await ended.wait()
                if not ended.is_set() and not await self._still(token, attempt):
                    return
        finally:
            if not ended.is_set():
                following.cancel()

    async def _still(self, token: bytes, attempt: Attempt) -> bool:
        """Whether it may go on: only a no ends it."""
        try:
            await self._check(token, attempt)
        except ReviewError:
            return True
        except Refusal as refusal:
            if refusal.answer.status == 429:
                return True
            log.info("a follower of the use of models may follow no longer", extra={"status": refusal.answer.status})
            return False
        return True
