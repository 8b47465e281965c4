"""The state of every list and watch: when it was last answered, and which the API server refuses. Pure but for the log.

What is refused (a RoleBinding or a namespace is gone, or the CRD is away) is no fault of the operator and stops nothing
else: it is told once by the log, and for as long as it lasts by a metric and in the body of /readyz.
"""

import logging
import time
from collections.abc import Callable, Iterable

from moorage_operator.cluster.cache.scope import Watched
from moorage_operator.cluster.kinds import described, path_of
from moorage_operator.metrics import UNWATCHED

log = logging.getLogger(__name__)


class Watches:
    """When each list or watch of `watched` was last answered, and why some are refused."""

    def __init__(self, watched: Iterable[Watched], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._answered: dict[Watched, float | None] = dict.fromkeys(watched)
        self._refusals: dict[Watched, str] = {}

    def answered(self, watched: Watched) -> bool:
        """A list or watch was answered with success; returns whether it had been refused before."""
        self._answered[watched] = self._clock()
        if self._refusals.pop(watched, None) is None:
            return False
        log.info("watching again", extra={"what": described(*watched)})
        UNWATCHED.remove(*_labels(watched))
        return True

    def refused(self, watched: Watched, why: str) -> bool:
        """The API server refused a list or watch; returns whether that is news."""
        self._answered[watched] = self._clock()
        news = watched not in self._refusals
        self._refusals[watched] = why[:500]
        if news:
            log.warning("cannot watch; trying again", extra={"what": described(*watched), "error": why[:500]})
            UNWATCHED.labels(*_labels(watched)).set(1)
        return news

    def held_up(self) -> None:
        """None of them can begin yet, but the API server answers: a restart would be of no use."""
        self._started = self._clock()

    def is_refused(self, watched: Watched) -> bool:
        """Whether the last list or watch was refused."""
        return watched in self._refusals

    def unwatched(self) -> list[str]:
        """What is refused and why, in words."""
        return [f"cannot watch {described(*watched)}: {why}" for watched, why in self._refusals.items()]

    def all_refused(self) -> bool:
        """Whether nothing at all can be watched."""
        return bool(self._refusals) and len(self._refusals) == len(self._answered)

    def silent_seconds(self) -> float:
        """For how long the most silent of all has not been answered in any way."""
        return self._clock() - min(self._started if at is None else at for at in self._answered.values())

    def missing(self) -> list[str]:
        """The paths of those that have never been answered."""
        return [path_of(*watched) for watched, at in self._answered.items() if at is None]


def _labels(watched: Watched) -> tuple[str, str]:
    return watched[0].name, watched[1] or ""
