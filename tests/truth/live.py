"""Holds the statuses of a live cluster against the truth: `Truth(api).hold()`, and `watching(api)` beside a step."""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self

from tests.support.api import Api, ApiRefusedError
from tests.truth.judge import Falsehood, falsehoods
from tests.truth.memory import Memory
from tests.truth.watcher import Watcher
from tests.truth.world import PATHS, SELECTED, World

WITHIN: Final = 1.0
"""Seconds that a field may be false, on a quiet machine."""

BUSIEST: Final = 5.0
PATIENCE: Final = 30.0
POLL_SECONDS: Final = 0.05


def busy_factor() -> float:
    """How much longer everything may take now: the processes that want to run, for each core, from 1 up to 5.

    Tests share a machine with the whole control plane and often with other tests, so a second of work may take some.
    """
    return min(BUSIEST, max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0))))


@dataclass(frozen=True)
class Lie:
    """A field that was false for `seconds`, as far as it could be seen."""

    falsehood: Falsehood
    seconds: float

    def __str__(self) -> str:
        return f"for {self.seconds:.2f} s {self.falsehood}"


class Clock:
    """Follows for how long each field has been false without a break."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[tuple[str, str], tuple[float, Falsehood]] = {}
        self.lies: list[Lie] = []

    def see(self, found: Sequence[Falsehood]) -> None:
        """Take in all that is false now."""
        now = self._now()
        false = {(one.model, one.field): one for one in found}
        for key in self._since.keys() - false.keys():
            since, first = self._since.pop(key)
            self.lies.append(Lie(first, now - since))
        for key, falsehood in false.items():
            self._since.setdefault(key, (now, falsehood))

    def lose_sight(self) -> None:
        """Nothing can be seen, so what is false then is no lie."""
        self._since.clear()

    def open(self) -> list[Lie]:
        """What is false now, and for how long."""
        now = self._now()
        return [Lie(falsehood, now - since) for since, falsehood in self._since.values()]


class Truth:
    """The statuses of the models in the namespace of `api`, or in `namespaces`, against what is true.

    As a context manager it watches all the time: `lies` has every field that was false, with the seconds. That is also
    how it knows what has happened, such as who preempted whom; without, it knows what it saw when asked, and
    the cluster's Events. `images` are the FRAMEWORK/DEVICE that the operator has images for, if that is in question;
    `autoscaled` is whether it is told that nodes of any size may be added.
    """

    def __init__(
        self,
        api: Api,
        *,
        namespaces: Collection[str] = (),
        images: Collection[str] | None = None,
        autoscaled: bool = False,
    ) -> None:
        self._api, self._images, self._autoscaled = api, images, autoscaled
        self._namespaces = namespaces or (api.namespace,)
        self._memory, self._clock, self._lock = Memory(), Clock(), threading.Lock()
        self._watcher: Watcher | None = None

    def __enter__(self) -> Self:
        self._watcher = Watcher(self._api, self._saw)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._watcher:
            self._watcher.stop()

    @property
    def lies(self) -> list[Lie]:
        """Every field that has been false so far, and for how long."""
        with self._lock:
            return [*self._clock.lies, *self._clock.open()]

    def longest(self, count: int = 1) -> list[Lie]:
        """The longest of them."""
        return sorted(self.lies, key=lambda lie: -lie.seconds)[:count]

    def forget(self) -> None:
        """Begin a new step: earlier lies are not counted any more; what has happened is not forgotten."""
        with self._lock:
            self._clock = Clock()

    def hold(self, within: float = WITHIN) -> None:
        """Returns at a moment when every field is true; fails if one stays false for longer than `within` seconds.

        On a busy machine `within` is multiplied by `busy_factor`.
        """
        clock, began = Clock(), time.monotonic()
        while found := self.check():
            clock.see(found)
            allowed = within * busy_factor()
            late = [lie for lie in clock.open() if lie.seconds > allowed]
            assert not late, _report(late, allowed)
            assert time.monotonic() - began < PATIENCE, _report(clock.open(), PATIENCE)
            time.sleep(POLL_SECONDS)

    def kept(self, within: float = WITHIN) -> None:
        """Fails if, while it watched, a field was false for longer than `within` seconds (times `busy_factor`)."""
        allowed = within * busy_factor()
        late = [lie for lie in self.lies if lie.seconds > allowed]
        assert not late, _report(late, allowed)

    def check(self) -> list[Falsehood]:
        """All false fields at one moment."""
        return self._judge(self._look())

    def _saw(self, world: World | None) -> None:
        if world is None:
            with self._lock:
                self._clock.lose_sight()
            return
        found = self._judge(world)
        with self._lock:
            self._clock.see(found)

    def _judge(self, world: World) -> list[Falsehood]:
        with self._lock:
            self._memory.see(world)
            return falsehoods(
                world,
                self._memory,
                namespaces=self._namespaces,
                images=self._images,
                autoscaled=self._autoscaled,
            )

    def _look(self) -> World:
        """All objects as they were at one and the same moment.

        All kinds have one counter of versions: the models are listed first, and the others as they were at that
        version. https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
        """
        while True:
            version, found = "", {}
            try:
                for kind in PATHS:
                    answer = self._list(kind, version)
                    version = version or answer["metadata"]["resourceVersion"]
                    found[kind] = answer["items"]
            except ApiRefusedError as refusal:
                if refusal.status != HTTPStatus.GONE:
                    raise
                continue  # that version is forgotten already; there is a newer one
            return World.of(found)

    def _list(self, kind: str, version: str) -> dict[str, Any]:
        exact = {"resourceVersion": version, "resourceVersionMatch": "Exact"} if version else {}
        return self._api.request("GET", PATHS[kind], params={**exact, **SELECTED.get(kind, {})})


def _report(lies: Sequence[Lie], allowed: float) -> str:
    lines = [str(lie) for lie in sorted(lies, key=lambda lie: -lie.seconds)]
    return "\n".join([f"false for longer than {allowed:.1f} s:", *lines])


@contextmanager
def watching(api: Api, *, namespaces: Collection[str] = (), images: Collection[str] | None = None) -> Iterator[Truth]:
    """A Truth that watches until the block ends."""
    with Truth(api, namespaces=namespaces, images=images) as truth:
        yield truth
