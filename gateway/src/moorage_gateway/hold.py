"""Requests that wait until a pod of their model is ready: a `Room` for each model, all of them in one `Lobby`.

A room counts how its model is used, too, which is what the operator is told (`demand`). Requests leave it in the order
of their priority, then of their age, as many at a time as the model's pods take; nobody overtakes those that wait.
"""

import asyncio
from bisect import insort
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from moorage_common.http.message import Answer
from moorage_common.openai_errors import error_body
from moorage_gateway.balance import Backends

RETRY_SECONDS: Final = 0.25
"""How long a request rests that none of the pods has taken."""
PATIENCE_SECONDS: Final = 5.0
"""How long it goes on while there are pods by name: one that ends is out of the list in this time."""


class HoldLimits(NamedTuple):
    """What may wait at a time, of all models and of one; times in seconds."""

    requests: int = 2000
    requests_per_model: int = 500
    body_bytes: int = 64 * 2**20
    seconds: float = 600.0
    heartbeat_seconds: float = 10.0


class State(NamedTuple):
    """What the cluster says of a model."""

    waits: bool = False
    """Whether a request may wait for it: it is on its way, or can be woken."""
    why_not: str = ""
    """Why it does not answer; empty while it does."""
    takes: int = 0
    """Requests that a pod works on at a time; 0 where that is not known."""
    scaled: bool = False
    """Whether the operator chooses the number of its replicas, and has to be told how it is used."""
    sleeping: bool = False
    """Whether it has no pods because nobody has used it."""


class Guest(Protocol):
    """A request that waits."""

    priority: int
    size: int
    begun: float
    """When it came, by the clock of the loop."""

    def release(self) -> None:
        """Go to a pod."""

    def refuse(self, answer: Answer) -> None:
        """Give up."""

    def comfort(self, why: str) -> None:
        """Tell the client, if it can be told, that its answer will come."""


class _Place:
    """Where a guest waits; sorted by priority, then by age."""

    __slots__ = ("due", "guest", "order", "timer", "told_at", "tried_at")

    def __init__(self, guest: Guest, now: float, tried_at: float | None) -> None:
        self.guest = guest
        self.order = (-guest.priority, guest.begun)
        self.told_at = now
        self.tried_at = tried_at
        self.due = now if tried_at is None else now + RETRY_SECONDS
        """When it may leave at the earliest."""
        self.timer: asyncio.TimerHandle | None = None

    def __lt__(self, other: "_Place") -> bool:
        return self.order < other.order


class Lobby:
    """What all rooms share: the limits and what is in use of them."""

    def __init__(
        self, limits: HoldLimits, changed: Callable[["Room", bool], None] = lambda _room, _urgent: None
    ) -> None:
        """Nothing waits; `changed` is told of rooms whose use has changed, and whether that is urgent."""
        self.limits = limits
        self.changed = changed
        self.requests = 0
        self.body_bytes = 0
        self.ends_at: float | None = None
        """When whoever still waits has to be answered, as the process ends."""
        self.rooms: set[Room] = set()
        """In which somebody waits."""

    def yields(self, room: "Room", guest: Guest) -> bool:
        """Send away somebody who waits for the namespace that takes the most of what is short; whether there was one.

        One that would have more than that then gets nothing, so that no namespace can take all places of the others.
        """
        by_bytes = self.requests < self.limits.requests
        taken: dict[str, int] = {}
        for other in self.rooms:
            taken[other.namespace] = taken.get(other.namespace, 0) + (other.body_bytes if by_bytes else len(other))
        most = max(taken, key=taken.__getitem__, default=room.namespace)
        if taken.get(room.namespace, 0) + (guest.size if by_bytes else 1) >= taken.get(most, 0):
            return False
        theirs = (other for other in self.rooms if other.namespace == most)
        max(theirs, key=lambda other: other.body_bytes if by_bytes else len(other)).send_away()
        return True

    def end_by(self, at: float) -> None:
        """The process ends: nobody waits for longer than until then."""
        self.ends_at = at
        for room in list(self.rooms):
            room.look_again()


class Room:
    """The waiting room of one model."""

    __slots__ = (
        *("_lobby", "_loop", "_waiting", "backends", "body_bytes", "in_flight", "last_use", "name", "namespace"),
        "state",
    )

    def __init__(self, name: str, backends: Backends, lobby: Lobby) -> None:
        """Nobody waits; `name` is the model's, `namespace/name`."""
        self.name = name
        self.namespace = name.partition("/")[0]
        self.body_bytes = 0
        """Of those that wait."""
        self.backends = backends
        self.state = State()
        self.in_flight = 0
        self.last_use: float | None = None
        self._lobby = lobby
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Place] = []

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    # -- how the model is used ----------------------------------------------------------------------------------------

    def began(self, now: float) -> None:
        """A request has gone to a pod."""
        self.in_flight += 1
        self.last_use = now
        if self.state.scaled:
            self._lobby.changed(self, False)

    def ended(self, now: float) -> None:
        """It has left the pod."""
        self.in_flight -= 1
        self.last_use = now
        if self._waiting:
            self.pump()
        if self.state.scaled:
            self._lobby.changed(self, False)

    def set(self, state: State) -> None:
        """What the cluster says of the model has changed."""
        told, self.state = self.state.scaled or state.scaled, state
        if told:
            self._lobby.changed(self, False)
        if not state.waits:
            for place in list(self._waiting):
                self._refuse(place, not_ready(self.name, state.why_not))
        else:
            self.pump()

    # -- who waits ----------------------------------------------------------------------------------------------------

    def admit(self, guest: Guest, tried_at: float | None = None) -> Answer | None:
        """Let a request wait, or say why not; `tried_at` is when it was first found that no pod takes it, if so."""
        now, lobby, limits = self._loop.time(), self._lobby, self._lobby.limits
        place = _Place(guest, now, tried_at)
        if not self.state.waits or self._until(place) <= now:
            return self._why_not(place)
        if lobby.ends_at is not None and lobby.ends_at <= now:
            return _ending(self.name)
        if not self._makes_room(guest, limits):
            return _full(self.name, len(self._waiting))
        lobby.requests += 1
        lobby.body_bytes += guest.size
        self.body_bytes += guest.size
        lobby.rooms.add(self)
        insort(self._waiting, place)
        self.last_use = now
        self._schedule(place)
        if self.state.scaled:
            self._lobby.changed(self, len(self._waiting) == 1)
        return None

    def leave(self, guest: Guest) -> None:
        """Its client has left."""
        for place in self._waiting:
            if place.guest is guest:
                self._remove(place)
                return

    def pump(self) -> None:
        """Let go who can go."""
        now = self._loop.time()
        free = self._free(now)
        while free > 0:
            place = next((place for place in self._waiting if place.due <= now), None)
            if place is None:
                return
            self._remove(place)
            place.guest.release()
            free -= 1

    def look_again(self) -> None:
        """The time until which one may wait has changed."""
        for place in list(self._waiting):
            self._schedule(place)

    def _free(self, now: float) -> int:
        """How many more requests the ready pods take."""
        takes = self.state.takes
        open_pods = [endpoint for endpoint in self.backends if endpoint.open_until <= now]
        if not takes:
            return len(self._waiting) if open_pods else 0
        return sum(max(0, takes - endpoint.in_flight) for endpoint in open_pods)

    def send_away(self) -> None:
        """Whoever would be the last to go has no place any more."""
        self._refuse(self._waiting[-1], _full(self.name, len(self._waiting)))

    def _makes_room(self, guest: Guest, limits: HoldLimits) -> bool:
        """Whether there is a place for it; where there is none, whoever is least important has to go first."""
        lobby = self._lobby
        if guest.size > limits.body_bytes:
            return False
        while True:
            here = len(self._waiting) >= limits.requests_per_model
            if not (here or lobby.requests >= limits.requests or lobby.body_bytes + guest.size > limits.body_bytes):
                return True
            if self._waiting and self._waiting[-1].guest.priority < guest.priority:
                self.send_away()
            elif here or not lobby.yields(self, guest):
                return False

    def _remove(self, place: _Place) -> None:
        self._waiting.remove(place)
        self.last_use = self._loop.time()
        self._lobby.requests -= 1
        self._lobby.body_bytes -= place.guest.size
        self.body_bytes -= place.guest.size
        if place.timer is not None:
            place.timer.cancel()
        if not self._waiting:
            self._lobby.rooms.discard(self)
        if self.state.scaled:
            self._lobby.changed(self, False)

    def _refuse(self, place: _Place, answer: Answer) -> None:
        self._remove(place)
        place.guest.refuse(answer)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _until(self, place: _Place) -> float:
        until = place.guest.begun + self._lobby.limits.seconds
        if place.tried_at is not None and len(self.backends):
            until = min(until, place.tried_at + PATIENCE_SECONDS)
        return until if self._lobby.ends_at is None else min(until, self._lobby.ends_at)

    def _why_not(self, place: _Place) -> Answer:
        why = "none of its pods could be reached" if place.tried_at is not None and len(self.backends) else ""
        return not_ready(self.name, self.state.why_not or why)

    def _schedule(self, place: _Place) -> None:
        now = self._loop.time()
        at = min(self._until(place), place.told_at + self._lobby.limits.heartbeat_seconds)
        if place.due > now:
            at = min(at, place.due)
        if place.timer is not None:
            place.timer.cancel()
        place.timer = self._loop.call_at(at, self._passed, place)

    def _passed(self, place: _Place) -> None:
        now, lobby = self._loop.time(), self._lobby
        place.timer = None
        if lobby.ends_at is not None and lobby.ends_at <= now:
            self._refuse(place, _ending(self.name))
            return
        if self._until(place) <= now:
            self._refuse(place, self._why_not(place))
            return
        if place.told_at + lobby.limits.heartbeat_seconds <= now:
            place.told_at = now
            place.guest.comfort(self.state.why_not)
        self._schedule(place)
        self.pump()


def not_ready(model: str, why_not: str) -> Answer:
    """What is said of a model that does not answer."""
    why = f": {why_not}" if why_not else ""
    body = error_body(f"The model {model} is not ready{why}.", kind="service_unavailable", code="model_not_ready")
    return Answer(503, body, headers=((b"Retry-After", b"5"),))


def _full(model: str, waiting: int) -> Answer:
    text = f"The model {model} is not ready, and no more requests may wait for it: {waiting} do."
    body = error_body(text, kind="service_unavailable", code="too_many_waiting")
    return Answer(503, body, headers=((b"Retry-After", b"10"),))


def _ending(model: str) -> Answer:
    text = f"The model {model} is not ready, and this gateway ends. Another one goes on: try again now."
    body = error_body(text, kind="service_unavailable", code="model_not_ready")
    return Answer(503, body, headers=((b"Retry-After", b"1"),), close=True)
