"""Bridges what kopf's own requests lack: the aiohttp session that kopf gets, with two of aiohttp's client middlewares.

kopf 1.45 lists and watches for us, but
- it does not report what went while it was not watching (a list again after 410, or after a lost connection): lists are
  read here as they pass, and the operator is told what is in them;
- it ends on 404 and logs an error for every 403, so one namespace or the CRD being away would end or flood all of it:
  here what is refused waits and is tried again, and is told once;
- after a 401 every watch logs in again at once, 50 requests a second: here they wait for one of them to succeed.
https://docs.aiohttp.org/en/stable/client_advanced.html#client-middleware
"""

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import kopf
import msgspec
from kubernetes.aio.client import ApiClient

from moorage_operator.cluster.cache.listing import EventHandler, Listing
from moorage_operator.cluster.cache.scope import Watched
from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.client import MOST_RETRY_AFTER
from moorage_operator.cluster.connection import authorization
from moorage_operator.cluster.errors import UnavailableError
from moorage_operator.cluster.kinds import FIELD_MANAGER, INFERENCE_MODELS, described, path_of
from moorage_operator.workqueue import backoffs

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 30.0
"""How long the API server may take to begin its response, and as long again for a page of a list."""
LOGIN_SECONDS: Final = 2.0
"""Between two attempts while our credentials are refused."""
LONGEST_PAUSE: Final = 5.0
"""Between two attempts of a list or watch that is refused."""

_REFUSED: Final = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
_GROUP: Final = f"/apis/{INFERENCE_MODELS.group_version}"

Handler = aiohttp.ClientHandlerType
Request = aiohttp.ClientRequest
Response = aiohttp.ClientResponse


def session(api: ApiClient, lists: "ListsAndWatches") -> kopf.AiohttpSession:
    """What kopf logs in with: a session that proves who we are. `lists` outlives it: a list may go on in the next."""
    return kopf.AiohttpSession(
        server=api.configuration.host,
        aiohttp_session=aiohttp.ClientSession(
            # No limit: each watch holds a connection.
            connector=aiohttp.TCPConnector(limit=0, ssl=api.rest_client.ssl_context),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": FIELD_MANAGER},
            # The first is the outer one: what it sends again, and only after a pause, gets fresh credentials each time.
            middlewares=(lists, Login(api)),
            proxy=api.configuration.proxy,
            trust_env=True,
        ),
    )


class Login:
    """Proves who we are with each request; while that is refused, one request after the other asks again.

    It has to be the inner middleware: a request waits inside for its turn only, never for what another one is refused.
    """

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._turn = asyncio.Lock()
        self._refused = False

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """A middleware of aiohttp."""
        if not self._refused:
            response = await self._send(request, handler)
            if response.status != HTTPStatus.UNAUTHORIZED:
                return response
            response.release()
        while True:
            async with self._turn:
                if self._refused:
                    await asyncio.sleep(LOGIN_SECONDS)
                response = await self._send(request, handler)
                if response.status != HTTPStatus.UNAUTHORIZED:
                    return response
                response.release()

    async def _send(self, request: Request, handler: Handler) -> Response:
        try:
            request.headers.update(await authorization(self._api))
        except UnavailableError as error:
            # kopf repeats what aiohttp's own errors end, and ends for any other.
            raise aiohttp.ClientConnectionError(str(error)) from error
        async with asyncio.timeout(ANSWER_SECONDS):
            response = await handler(request)
        if response.status != HTTPStatus.UNAUTHORIZED:
            self._refused = False
        elif not self._refused:
            self._refused = True
            log.warning("the API server does not accept our credentials; trying again")
        return response


class ListsAndWatches:
    """Waits where a list or watch is refused, and takes in the lists that are answered."""

    def __init__(self, watched: Iterable[Watched], watches: Watches, handler: EventHandler) -> None:
        self._paths = {path_of(*one): one for one in watched}
        self._watches, self._handler = watches, handler
        self._listings: dict[Watched, Listing] = {}

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """A middleware of aiohttp."""
        path, query = request.url.path, request.url.query
        if path in ("/apis", _GROUP):
            return await self._until_it_serves_us(request, handler)
        if (watched := self._paths.get(path)) is None:
            return await handler(request)
        pauses, page = backoffs(LONGEST_PAUSE), None
        while True:
            response = await handler(request)
            is_list, content = "watch" not in query, b""
            if response.status in _REFUSED or (response.ok and is_list):
                content = await _read(response)
            if response.status in _REFUSED:
                if self._watches.refused(watched, _message(response.status, content)):
                    self._handler.lost(watched)
                await asyncio.sleep(next(pauses))
                continue
            if _asked_to_wait(response) > MOST_RETRY_AFTER:
                # kopf would wait for as long as it is asked to.
                response.release()
                await asyncio.sleep(MOST_RETRY_AFTER)
                continue
            if response.ok and is_list and (page := _list(content)) is None:
                log.warning("the answer is no list; trying again", extra={"what": described(*watched)})
                await asyncio.sleep(next(pauses))
                continue
            if response.status == HTTPStatus.GONE and "continue" in query:
                response.release()
                # kopf ends for any other error; for this one it lists from the beginning.
                raise aiohttp.ClientPayloadError(f"the list of {described(*watched)} has expired between two pages")
            if response.ok:
                returned = self._watches.answered(watched)
                if is_list and page:
                    self._take_in(watched, page, first="continue" not in query)
                elif returned:
                    self._handler.recovered(watched)
            return response

    def _take_in(self, watched: Watched, page: dict[str, Any], *, first: bool) -> None:
        if first:
            self._listings[watched] = Listing(watched, self._handler)
        if listing := self._listings.get(watched):
            listing.page(page)

    async def _until_it_serves_us(self, request: Request, handler: Handler) -> Response:
        """kopf asks once which kinds there are; it must not be told before InferenceModels are among them."""
        pauses = backoffs(LONGEST_PAUSE)
        told = False
        while True:
            response = await handler(request)
            found = response.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND) or _names_us(await _read(response))
            if found:
                return response
            self._watches.held_up()
            if not told:
                log.warning("the API server has no InferenceModels yet; apply Moorage's CRDs")
                told = True
            await asyncio.sleep(next(pauses))


async def _read(response: Response) -> bytes:
    async with asyncio.timeout(ANSWER_SECONDS):
        return await response.read()


def _asked_to_wait(response: Response) -> float:
    asked = response.headers.get("Retry-After", "")
    return float(asked) if not response.ok and asked.isdigit() else 0.0


def _list(content: bytes) -> dict[str, Any] | None:
    """The list that an answer is; None for what a proxy may answer in place of the API server."""
    try:
        answer = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return None
    return answer if isinstance(answer, dict) and "resourceVersion" in (answer.get("metadata") or ()) else None


def _names_us(content: bytes) -> bool:
    """Whether an answer of the discovery API lists our group, or our kind."""
    try:
        answer: dict[str, Any] = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return False
    names = [item.get("name") for item in answer.get("groups") or answer.get("resources") or ()]
    return INFERENCE_MODELS.group in names or INFERENCE_MODELS.name in names


def _message(status: int, content: bytes) -> str:
    try:
        said = str(msgspec.json.decode(content).get("message", ""))
    except (msgspec.DecodeError, AttributeError):
        said = ""
    return f"{status}: {said}" if said else str(status)
