"""Asks for the Events on pods that are stuck before their first container: only these say what volume is missing.

Nothing is watched: while a pod is stuck, one list in 10 seconds for each model, and ever fewer while they say the same.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from moorage_operator.api.conditions import Problem
from moorage_operator.api.key import Key
from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.errors import ForbiddenError
from moorage_operator.cluster.kinds import EVENTS
from moorage_operator.status.observe import PodState
from moorage_operator.status.volumes import problem_in, seconds_left

ASK_SECONDS: Final = 10.0
"""How often one model's Events are listed at most."""
MOST_SECONDS: Final = 60.0
"""The same while they have said nothing new for a while."""


class _Answer(NamedTuple):
    pod: str
    at: float
    problem: Problem | None
    pause: float = ASK_SECONDS


class PodEvents:
    """Explains stuck pods by their Events. `now` is the time as the API writes it, `clock` a monotonic one."""

    def __init__(self, kube: Kube, now: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._now = now
        self._clock = clock
        self._answers: dict[Key, _Answer] = {}

    async def explained(self, key: Key, pods: tuple[PodState, ...]) -> tuple[PodState, ...]:
        """`pods`, all of one model; the newest that is stuck has the problem that its Events tell.

        Raises what `Kube` does, but for a right that is missing.
        """
        stuck = [pod for pod, left in self._starting(pods) if left == 0]
        if not stuck:
            self.forget(key)
            return pods
        newest = max(stuck, key=lambda pod: (pod.created, pod.name))
        problem = await self._problem(key, newest)
        return tuple(replace(pod, problem=problem) if pod is newest and problem else pod for pod in pods)

    async def _problem(self, key: Key, pod: PodState) -> Problem | None:
        known = self._answers.get(key)
        known = known if known and known.pod == pod.uid else None
        if known and self._clock() - known.at < known.pause:
            return known.problem
        selector = {"fieldSelector": f"involvedObject.uid={pod.uid},type=Warning"}
        problem = None
        try:
            # The first page is enough for the few that a kubelet writes; more are not its.
            async for page in self._kube.pages(EVENTS, key.namespace, selector):
                problem = problem_in(page["items"])
                break
        except ForbiddenError:
            problem = None
        same = known is not None and known.problem == problem
        pause = min(MOST_SECONDS, 2 * known.pause) if known and same else ASK_SECONDS
        self._answers[key] = _Answer(pod.uid, self._clock(), problem, pause)
        return problem

    def again(self, key: Key, pods: tuple[PodState, ...]) -> float | None:
        """The seconds after which to look at the model again although no event may come; None when nothing starts."""
        answer = self._answers.get(key)
        asked = max(0.0, answer.pause - (self._clock() - answer.at)) if answer else 0.0
        return min((left or asked for _, left in self._starting(pods)), default=None)

    def forget(self, key: Key) -> None:
        """Forgets what was told of a model's pods."""
        self._answers.pop(key, None)

    def _starting(self, pods: tuple[PodState, ...]) -> list[tuple[PodState, float]]:
        """The pods that are before their first container, each with the seconds until it counts as stuck."""
        since = [(pod, pod.starting_since) for pod in pods if not (pod.terminating or pod.finished)]
        starting = [(pod, began) for pod, began in since if began is not None]
        now = self._now() if starting else ""
        return [(pod, seconds_left(began, now)) for pod, began in starting]
