"""The watches: every kind is listed and then followed, and what they show goes to a `Sink`. Nothing is decided here.

Each is a task of its own and never ends: list → watch from the list's resourceVersion → at the end of a watch go on
from the last version that was seen → list again when the API server does not know that version any more, or answers
anything else than events. https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes

One that is refused (403, 404: a RoleBinding, a namespace or the CRD has gone) tries again for ever; no other watch, and
no probe, is concerned by it.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Set
from http import HTTPStatus
from itertools import repeat
from typing import Any, Final, Protocol

from moorage_gateway.kube.client import NOTHING, Kube
from moorage_gateway.kube.errors import ApiError, BrokenError, ForbiddenError, NotFoundError, UnavailableError
from moorage_gateway.kube.resources import Resource
from moorage_gateway.kube.watch_health import Watched, WatchHealth

log = logging.getLogger(__name__)

LIST_AGAIN_SECONDS: Final = 600.0
"""A watch that begins later than this after its list is preceded by a new one, in case that something was missed."""

SHORT_SECONDS: Final = 1.0
"""A watch that ends sooner is followed by a pause, lest a server that ends them all at once is asked without end."""

LONG_SECONDS: Final = 10.0
"""A watch that ends later has worked, and its end is the first of a new series."""

REFUSED_SECONDS: Final = 4.0
"""The longest pause while a list or watch is refused: rights that are given back are noticed within this time."""

AT_ONCE: Final = repeat(0.0)
"""No pauses."""


class Sink(Protocol):
    """Takes in what the watches see."""

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """An object was listed (None), ADDED, MODIFIED or DELETED."""

    def listed(self, one: Watched, found: Set[str]) -> None:
        """A list is complete; `found` has the uids. What is not in it is gone."""

    def refused(self, one: Watched, seconds: float) -> None:
        """A list is refused, for so long already: what was seen may not be true any more."""


async def watch_all(
    kube: Kube,
    watched: Iterable[Watched],
    sink: Sink,
    health: WatchHealth,
    selectors: Mapping[Resource, Mapping[str, str]],
) -> None:
    """Watches everything until cancelled; `selectors` are query parameters, for kinds of which not all is wanted."""
    returned = Returned()
    async with asyncio.TaskGroup() as group:
        for one in watched:
            chosen = selectors.get(one.resource, NOTHING)
            group.create_task(Watch(kube, one, sink, health, selectors=chosen, returned=returned).run())


class Returned:
    """Tells all watches that the API server, which was away, has answered one of them.

    What one kind shows while another is not seen yet makes a status that is not true.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """It has answered."""
        self._event.set()
        self._event = asyncio.Event()

    async def within(self, seconds: float) -> None:
        """Returns when it has, or after so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


def backoffs(longest: float = 8.0) -> Iterator[float]:
    """Endless delays in seconds, doubling up to `longest`, with jitter."""
    delay = 0.25
    while True:
        yield delay * random.uniform(0.75, 1.25)  # noqa: S311 - jitter is no secret
        delay = min(longest, delay * 2)


class _ExpiredError(Exception):
    """A watch ended with an error of its own; most often, the version that it began at is too old."""


def _too_old(error: Exception) -> bool:
    return isinstance(error, _ExpiredError) or (isinstance(error, ApiError) and error.status == HTTPStatus.GONE)


class Watch:
    """One kind in one namespace, or in all of them; `selectors` are query parameters that say which of its objects."""

    def __init__(  # noqa: PLR0913 - what it watches, with what, and for whom
        self,
        kube: Kube,
        one: Watched,
        sink: Sink,
        health: WatchHealth,
        *,
        selectors: Mapping[str, str] = NOTHING,
        returned: Returned | None = None,
    ) -> None:
        self._kube, self._one = kube, one
        self._returned = returned or Returned()
        self._broken = False
        self._sink, self._health = sink, health
        self._selectors = selectors
        self._version: str | None = None
        self._listed_at = 0.0
        self._refusals = backoffs(REFUSED_SECONDS)

    async def run(self) -> None:
        """Lists and follows until cancelled, whatever the API server does."""
        pauses, clock = backoffs(), asyncio.get_running_loop().time
        while True:
            began = clock()
            lists = self._version is None or began - self._listed_at > LIST_AGAIN_SECONDS
            try:
                refused = await self._turn(lists)
            except BrokenError as error:
                self._broken = True
                await self._returned.within(self._wait(error, pauses))
                wait = 0.0
            except (ApiError, UnavailableError, _ExpiredError) as error:
                # It answers, but with no events: the version is too old, or its store was set back and never had it.
                self._version = None
                # What a list mends is listed at once, as statuses may not be true until then; after a list it did not.
                mends = _too_old(error) and (not lists or clock() - began > LONG_SECONDS)
                wait = self._wait(error, AT_ONCE if mends else pauses)
            except Exception:
                # A bug in what takes the events in must be seen, and must not end our sight.
                self._version = None
                wait = next(pauses)
                log.exception("a watch failed", extra={**self._named(), "in_seconds": round(wait, 2)})
            else:
                wait = refused or (next(pauses) if clock() - began < SHORT_SECONDS else 0.0)
            if clock() - began > LONG_SECONDS:
                pauses = backoffs()
            await asyncio.sleep(wait)

    async def _turn(self, lists: bool) -> float:
        """One watch, after a list if it `lists`; gives the seconds to wait where the API server refuses either."""
        try:
            if lists:
                await self._list()
            await self._follow()
        except (ForbiddenError, NotFoundError) as error:
            return self._refused(error)
        return 0.0

    def _wait(self, error: Exception, pauses: Iterator[float]) -> float:
        wait: float = max(getattr(error, "retry_after", 0.0), next(pauses))
        extra = {**self._named(), "error": str(error)[:500], "in_seconds": round(wait, 2)}
        log.warning("a watch ended; it begins again", extra=extra)
        return wait

    def _refused(self, error: ApiError) -> float:
        """Take note of a refusal, once in the log; gives the seconds before the next try."""
        seconds = self._health.refused(self._one, error)
        if not seconds:
            self._refusals = backoffs(REFUSED_SECONDS)
            log.warning("a kind cannot be watched; retrying", extra={**self._named(), "error": str(error)[:500]})
        self._answered()
        if self._version is None:  # a refused watch after a list that succeeded says nothing against the list
            self._sink.refused(self._one, seconds)
        self._version = None
        return next(self._refusals)

    def _named(self) -> dict[str, str]:
        return {"kind": self._one.resource.kind, "namespace": self._one.namespace or ""}

    def _heard(self) -> None:
        self._health.heard(self._one)
        self._answered()

    def _answered(self) -> None:
        if self._broken:
            self._broken = False
            self._returned.tell()

    async def _list(self) -> None:
        found: set[str] = set()
        self._version = None
        version = ""
        async for page in self._kube.pages(*self._one, self._selectors):
            self._heard()
            version = page["metadata"]["resourceVersion"]
            for obj in page["items"]:
                found.add(obj["metadata"]["uid"])
                self._sink.event(self._one.resource, None, obj)
        self._sink.listed(self._one, found)
        self._version, self._listed_at = version, asyncio.get_running_loop().time()

    async def _follow(self) -> None:
        assert self._version is not None  # noqa: S101 - it was listed
        async for event in self._kube.watch(*self._one, self._selectors, self._version):
            self._heard()
            if event is None:
                if self._health.begun(self._one):
                    log.info("a kind can be watched again", extra=self._named())
                continue
            kind, obj = event["type"], event["object"]
            if kind == "ERROR":
                raise _ExpiredError(f"{obj.get('code')} {obj.get('reason')}: {obj.get('message')}")
            if kind != "BOOKMARK":
                self._sink.event(self._one.resource, kind, obj)
            self._version = obj["metadata"]["resourceVersion"]
