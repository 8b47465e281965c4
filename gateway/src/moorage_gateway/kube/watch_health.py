"""How each watch is: when the API server last answered it, and whether it refuses what the watch follows."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from moorage_gateway.kube.errors import ApiError
from moorage_gateway.kube.resources import Resource


class Watched(NamedTuple):
    """What one watch follows: a kind in one namespace, or with None in all of them."""

    resource: Resource
    namespace: str | None

    def __str__(self) -> str:
        """In words."""
        where = f"namespace {self.namespace}" if self.namespace else "all namespaces"
        return f"{self.resource.kind} in {where}"


@dataclass
class _State:
    """One watch."""

    answered_at: float
    """When the API server last answered it, be it by a refusal; before that, when we started."""
    refused_at: float | None = None
    """When the refusals began; None while there are none."""
    refusal: str = ""


class WatchHealth:
    """The state of every watch of `watched`."""

    def __init__(self, watched: Iterable[Watched], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states = {one: _State(clock()) for one in watched}

    def __iter__(self) -> Iterator[Watched]:
        """All of them."""
        return iter(self._states)

    def heard(self, one: Watched) -> None:
        """A list or watch was answered, or a watch has sent something."""
        self._states[one].answered_at = self._clock()

    def refused(self, one: Watched, error: ApiError) -> float:
        """The API server refuses a list or watch. Tells for how many seconds already; 0 where this is the first."""
        state = self._states[one]
        now = state.answered_at = self._clock()
        state.refusal = f"{error.status} {error.reason}".strip()
        if state.refused_at is None:
            state.refused_at = now
        return now - state.refused_at

    def begun(self, one: Watched) -> bool:
        """A watch has begun. Tells whether it was refused before."""
        state = self._states[one]
        was_refused = state.refused_at is not None
        state.refused_at = None
        return was_refused

    def silent_seconds(self) -> float:
        """For how long the API server has not answered; of the watches, the one that waits the longest counts."""
        return self._clock() - min(state.answered_at for state in self._states.values())

    def unwatched(self) -> dict[Watched, str]:
        """The watches that are refused now, and the status and reason of each."""
        return {one: state.refusal for one, state in self._states.items() if state.refused_at is not None}
