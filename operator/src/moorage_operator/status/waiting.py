"""The line of models that wait for room: who waits for what, and in which place. Pure.

The scheduler tries pending pods by priority, then by age, so that is the order of the line; there is one line for each
resource, since a model that waits for CPU is not in the way of one that waits for a GPU.
"""

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Generic, NamedTuple, TypeVar

from moorage_operator.desired.drift import quantity
from moorage_operator.status.observe import Place, PodState

K = TypeVar("K", bound=Hashable)

UNKNOWN_AMOUNT: Final = "?"


class Waiting(NamedTuple):
    """What a model waits for: `amount` of `resource`, with `priority` (of its pods), `since` (RFC 3339)."""

    resource: str
    amount: str
    priority: int
    since: str


def waiting(pods: Iterable[PodState], most: Mapping[str, int] | None) -> Waiting | None:
    """What a model waits for, given all its own pods; None when the scheduler has not refused one for lack of room.

    `most` is the most of each extended resource that a node has, or None: a pod that asks for more waits in vain, in
    no line.
    """
    pending = [pod for pod in pods if pod.lacks and not (pod.scheduled or pod.terminating or pod.finished)]
    hopeful = [pod for pod in pending if most is None or not _in_vain(pod, most)]
    if not hopeful:
        return None
    oldest = min(hopeful, key=lambda pod: (-pod.priority, pod.created, pod.name))
    resource = oldest.lacks[0]
    amount = _sum([pod for pod in hopeful if resource in pod.lacks], resource)
    return Waiting(resource, amount, oldest.priority, oldest.created)


def _in_vain(pod: PodState, most: Mapping[str, int]) -> bool:
    resource = pod.lacks[0]
    return "/" in resource and most.get(resource, 0) < quantity(dict(pod.requests).get(resource, "0"))


def _sum(pods: list[PodState], resource: str) -> str:
    amounts = [dict(pod.requests).get(resource, "") for pod in pods]
    try:
        total = sum((quantity(amount) for amount in amounts), start=Decimal())
    except ValueError:
        return UNKNOWN_AMOUNT
    # 34359738368 would be true, but nobody reads it; the unit that was asked in is kept where one pod waits.
    return amounts[0] if len(amounts) == 1 else f"{total.normalize():f}"


@dataclass(frozen=True, order=True)
class _Entry(Generic[K]):
    order: tuple[int, str]
    key: K


class Line(Generic[K]):
    """All that wait, in lines by resource."""

    def __init__(self) -> None:
        self._lines: dict[str, list[_Entry[K]]] = {}
        self._waiting: dict[K, Waiting] = {}

    def update(self, key: K, now: Waiting | None) -> set[K]:
        """Takes in what `key` waits for; returns all keys whose place is another than before."""
        before = self._waiting.get(key)
        if before == now:
            return set()
        changed = {key}
        if before:
            changed |= self._remove(key, before)
        if now:
            changed |= self._insert(key, now)
        return changed

    def place(self, key: K) -> Place | None:
        """Where `key` stands, or None when it does not wait."""
        if not (found := self._waiting.get(key)):
            return None
        line = self._lines[found.resource]
        position = bisect_left(line, _entry(key, found)) + 1
        return Place(position, len(line), f"{found.amount} {found.resource}")

    def keys(self) -> list[K]:
        """All that wait."""
        return list(self._waiting)

    # Who joins or leaves changes `of` for everybody in that line.

    def _remove(self, key: K, waiting: Waiting) -> set[K]:
        line = self._lines[waiting.resource]
        del line[bisect_left(line, _entry(key, waiting))]
        del self._waiting[key]
        if not line:
            del self._lines[waiting.resource]
        return {entry.key for entry in line}

    def _insert(self, key: K, waiting: Waiting) -> set[K]:
        line = self._lines.setdefault(waiting.resource, [])
        insort(line, _entry(key, waiting))
        self._waiting[key] = waiting
        return {entry.key for entry in line}


def _entry(key: K, waiting: Waiting) -> _Entry[K]:
    return _Entry((-waiting.priority, waiting.since), key)
