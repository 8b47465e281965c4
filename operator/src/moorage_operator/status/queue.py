"""The scheduling queue: which models wait for which resource, and in which order. Pure.

The scheduler tries pending pods by priority, then by age, so that is the order of the queue. Each resource has a queue
of its own, since a model that waits for CPU does not delay one that waits for a GPU.
"""

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Generic, NamedTuple, TypeVar

from moorage_operator.desired.drift import quantity
from moorage_operator.status.observe import PodState, QueuePosition

K = TypeVar("K", bound=Hashable)

UNKNOWN_AMOUNT: Final = "?"


class QueueEntry(NamedTuple):
    """What a model waits for: `amount` of `resource`, with `priority` (of its pods), `since` (RFC 3339)."""

    resource: str
    amount: str
    priority: int
    since: str


def queue_entry(pods: Iterable[PodState], most: Mapping[str, int] | None) -> QueueEntry | None:
    """What a model waits for, given all its own pods; None unless the scheduler has refused one for lack of a resource.

    `most` is the most of each extended resource that a node has, or None if unknown. A pod that requests more than that
    can never be scheduled, and is in no queue.
    """
    pending = [pod for pod in pods if pod.lacks and not (pod.scheduled or pod.terminating or pod.finished)]
    schedulable = [pod for pod in pending if most is None or not _exceeds(pod, most)]
    if not schedulable:
        return None
    first = min(schedulable, key=lambda pod: (-pod.priority, pod.created, pod.name))
    resource = first.lacks[0]
    amount = _sum([pod for pod in schedulable if resource in pod.lacks], resource)
    return QueueEntry(resource, amount, first.priority, first.created)


def _exceeds(pod: PodState, most: Mapping[str, int]) -> bool:
    resource = pod.lacks[0]
    return "/" in resource and most.get(resource, 0) < quantity(dict(pod.requests).get(resource, "0"))


def _sum(pods: list[PodState], resource: str) -> str:
    amounts = [dict(pod.requests).get(resource, "") for pod in pods]
    try:
        total = sum((quantity(amount) for amount in amounts), start=Decimal())
    except ValueError:
        return UNKNOWN_AMOUNT
    # For a single pod the unit of the spec is kept: 32Gi is easier to read than 34359738368.
    return amounts[0] if len(amounts) == 1 else f"{total.normalize():f}"


@dataclass(frozen=True, order=True)
class _Ordered(Generic[K]):
    order: tuple[int, str]
    key: K


class SchedulingQueue(Generic[K]):
    """All models that wait, in one queue for each resource."""

    def __init__(self) -> None:
        self._queues: dict[str, list[_Ordered[K]]] = {}
        self._entries: dict[K, QueueEntry] = {}

    def update(self, key: K, entry: QueueEntry | None) -> set[K]:
        """Sets what `key` waits for; returns all keys whose position changed."""
        before = self._entries.get(key)
        if before == entry:
            return set()
        changed = {key}
        if before:
            changed |= self._remove(key, before)
        if entry:
            changed |= self._insert(key, entry)
        return changed

    def position(self, key: K) -> QueuePosition | None:
        """The position of `key`, or None when it does not wait."""
        if not (entry := self._entries.get(key)):
            return None
        queue = self._queues[entry.resource]
        index = bisect_left(queue, _ordered(key, entry))
        return QueuePosition(index + 1, len(queue), f"{entry.amount} {entry.resource}")

    def keys(self) -> list[K]:
        """All that wait."""
        return list(self._entries)

    # A model that joins or leaves changes the length of its queue, so every position in it changes.

    def _remove(self, key: K, entry: QueueEntry) -> set[K]:
        queue = self._queues[entry.resource]
        del queue[bisect_left(queue, _ordered(key, entry))]
        del self._entries[key]
        if not queue:
            del self._queues[entry.resource]
        return {ordered.key for ordered in queue}

    def _insert(self, key: K, entry: QueueEntry) -> set[K]:
        queue = self._queues.setdefault(entry.resource, [])
        insort(queue, _ordered(key, entry))
        self._entries[key] = entry
        return {ordered.key for ordered in queue}


def _ordered(key: K, entry: QueueEntry) -> _Ordered[K]:
    return _Ordered((-entry.priority, entry.since), key)
