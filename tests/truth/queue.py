"""The queues of models that wait for a resource: by priority, then by age (docs/conditions.md). Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from tests.truth import objects
from tests.truth.objects import Object
from tests.truth.pods import lacks
from tests.truth.world import World


@dataclass(frozen=True)
class Waiter:
    """A model that waits for `amount` of `resource` with `priority`, `since`."""

    resource: str
    amount: Decimal
    priority: int
    since: str

    @property
    def order(self) -> tuple[int, str]:
        """The queue is sorted by this; the order within one second is free."""
        return -self.priority, self.since


@dataclass(frozen=True)
class QueueRange:
    """The positions from `first` to `last`, of `of`: more than one where several began to wait in the same second."""

    first: int
    last: int
    of: int
    waiter: Waiter

    def __str__(self) -> str:
        positions = str(self.first) if self.first == self.last else f"{self.first} to {self.last}"
        return f"position {positions} of {self.of}, for {self.waiter.amount.normalize():f} {self.waiter.resource}"


def queue_positions(world: World, attainable: Callable[[str], float]) -> Mapping[str, QueueRange]:
    """The positions of all models that wait, by uid; `attainable` is the most of a resource that a node may have."""
    waiters = {objects.uid(model): found for model in world.models if (found := _waiter(world, model, attainable))}
    return {uid: _range(waiter, waiters) for uid, waiter in waiters.items()}


def _range(waiter: Waiter, waiters: Mapping[str, Waiter]) -> QueueRange:
    orders = sorted(other.order for other in waiters.values() if other.resource == waiter.resource)
    first = orders.index(waiter.order) + 1
    return QueueRange(first, first + orders.count(waiter.order) - 1, len(orders), waiter)


def _waiter(world: World, model: Object, attainable: Callable[[str], float]) -> Waiter | None:
    pods = [pod for pod in world.pods(model) if not objects.is_ending(pod)]
    short = {resource for pod in pods for resource in lacks(objects.refusal_of(pod) or "")}
    own = str((model["spec"].get("gpu") or {}).get("resourceName", "nvidia.com/gpu"))
    for resource in sorted(short, key=lambda name: (name != own, "/" not in name, name)):
        pending = [pod for pod in pods if resource in lacks(objects.refusal_of(pod) or "")]
        if "/" in resource:  # a pod that requests more than any node may have is in no queue
            pending = [pod for pod in pending if objects.requests(pod, resource) <= attainable(resource)]
        if not pending:
            return None
        first = min(pending, key=lambda pod: (-_priority(pod), pod["metadata"]["creationTimestamp"]))
        total = sum((objects.requests(pod, resource) for pod in pending), start=Decimal())
        return Waiter(resource, total, _priority(first), first["metadata"]["creationTimestamp"])
    return None


def _priority(pod: Object) -> int:
    return int(pod["spec"].get("priority") or 0)
