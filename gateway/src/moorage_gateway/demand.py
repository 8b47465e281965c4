"""Tells operators how models are used: `GET /demand`, lines of JSON (`moorage_common.demand`), to each that asks.

What changes is told within a tenth of a second, many changes as one; that somebody waits for a model, at once.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final, Protocol

from moorage_common.demand import HEARTBEAT_SECONDS, News, Use, encode
from moorage_common.http.message import Answer
from moorage_common.http.responder import Responder
from moorage_gateway.hold import State

NDJSON: Final = b"application/x-ndjson"
CALM_SECONDS: Final = 0.1
"""Between two lines that tell changes."""
URGENT_SECONDS: Final = 0.005
"""The same where somebody begins to wait."""
MOST_FOLLOWERS: Final = 16


class Used(Protocol):
    """A model, and how it is used: a `hold.Room`, or what several workers tell of theirs."""

    last_use: float | None
    """By the loop's clock."""

    @property
    def name(self) -> str:
        """`namespace/name`."""

    @property
    def in_flight(self) -> int:
        """Requests that a pod works on."""

    @property
    def state(self) -> State:
        """What the cluster says of it."""

    def __len__(self) -> int:
        """How many requests wait."""


class Demand:
    """The use of all models that the operator scales, and who follows it."""

    def __init__(self) -> None:
        """Nobody follows."""
        self._name = secrets.token_hex(8)
        self._loop = asyncio.get_running_loop()
        self._rooms: dict[str, Used] = {}
        self._changed: set[str] = set()
        self._followers: set[Follower] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When that timer fires: uvloop's own handle does not always tell."""
        self._told_at = 0.0

    def changed(self, room: Used, urgent: bool) -> None:
        """The use of a model has changed; `urgent`, somebody waits for it."""
        if room.state.scaled:
            self._rooms[room.name] = room
        else:
            self._rooms.pop(room.name, None)
        self._changed.add(room.name)
        if not self._followers:
            self._changed.clear()
            return
        at = self._told_at + (URGENT_SECONDS if urgent else CALM_SECONDS)
        if self._timer is None or self._due > at:
            self._tell_at(at)

    def follow(self, responder: Responder) -> "Follower | None":
        """Tell everything, and from now on what changes; None where it is told to nobody more."""
        if len(self._followers) >= MOST_FOLLOWERS:
            responder.send(Answer(503, b"too many follow already\n", b"text/plain"))
            return None
        follower = Follower(responder, self._followers.discard)
        self._tell()
        follower.write(News(self._name, {name: self._use(room) for name, room in self._rooms.items()}))
        self._followers.add(follower)
        self._tell_at(self._told_at + HEARTBEAT_SECONDS)
        return follower

    def end(self) -> None:
        """All requests have been answered: that is the last word."""
        if self._timer is not None:
            self._timer.cancel()
        for follower in list(self._followers):
            follower.end()

    def _tell_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = at
        self._timer = self._loop.call_at(at, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._told_at = self._loop.time()
        changed, self._changed = self._changed, set()
        news = News(models={name: self._use(self._rooms[name]) if name in self._rooms else None for name in changed})
        for follower in self._followers:
            follower.write(news)
        if self._followers:
            self._tell_at(self._told_at + HEARTBEAT_SECONDS)

    def _use(self, room: Used) -> Use:
        idle = None if room.last_use is None else round(max(0.0, self._loop.time() - room.last_use), 3)
        return Use(room.in_flight, len(room), idle)


class Follower:
    """One operator that follows, until it leaves or the process ends."""

    def __init__(self, responder: Responder, gone: Callable[["Follower"], None]) -> None:
        """Begin the answer."""
        self._responder = responder
        self._gone = gone
        self._done: Callable[[Follower], Any] | None = None
        self._cancelled = False
        self._full = False
        self._missed: dict[str, Use | None] = {}
        responder.start(200, NDJSON, flow=self)

    def write(self, news: News) -> None:
        """Write a line; of what somebody does not read, only the last state of each model is kept."""
        if not self._full:
            self._responder.write(encode(news))
        else:
            self._missed |= news.models

    def end(self) -> None:
        """Say that nothing more will come."""
        self._responder.write(encode(News(end=True)))
        self._responder.finish()
        self._finish()

    def pause(self) -> None:
        """It does not read."""
        self._full = True

    def resume(self) -> None:
        """It reads again."""
        self._full = False
        missed, self._missed = self._missed, {}
        self.write(News(models=missed))

    def add_done_callback(self, callback: "Callable[[Follower], Any]") -> None:
        """Call `callback` at the end."""
        self._done = callback

    def cancelled(self) -> bool:
        """Tell whether it has left."""
        return self._cancelled

    def cancel(self) -> None:
        """It has left."""
        self._cancelled = True
        self._finish()

    def _finish(self) -> None:
        self._gone(self)
        if self._done is not None:
            self._done(self)
