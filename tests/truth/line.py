"""Who waits for the same resource, in which order: by priority, then by how long (docs/conditions.md). Pure."""

from collections.abc import Mapping
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
        """Waiters stand in the order of this; those of the same second in any."""
        return -self.priority, self.since


@dataclass(frozen=True)
class Spot:
    """The places from `first` to `last`, of `of`: more than one where several have come in the same second."""

    first: int
    last: int
    of: int
    waiter: Waiter

    def __str__(self) -> str:
        places = str(self.first) if self.first == self.last else f"{self.first} to {self.last}"
        return f"place {places} of {self.of}, for {self.waiter.amount.normalize():f} {self.waiter.resource}"


def line(world: World) -> Mapping[str, Spot]:
    """The places of all that wait, by the uid of the model."""
    waiters = {objects.uid(model): found for model in world.models if (found := _waiter(world, model))}
    return {uid: _spot(waiter, waiters) for uid, waiter in waiters.items()}


def _spot(waiter: Waiter, waiters: Mapping[str, Waiter]) -> Spot:
    orders = sorted(other.order for other in waiters.values() if other.resource == waiter.resource)
    first = orders.index(waiter.order) + 1
    return Spot(first, first + orders.count(waiter.order) - 1, len(orders), waiter)


def _waiter(world: World, model: Object) -> Waiter | None:
    pods = [pod for pod in world.pods(model) if not objects.is_ending(pod)]
    short = {resource for pod in pods for resource in lacks(objects.refusal_of(pod) or "")}
    own = str((model["spec"].get("gpu") or {}).get("resourceName", "nvidia.com/gpu"))
    for resource in sorted(short, key=lambda name: (name != own, "/" not in name, name)):
        pending = [pod for pod in pods if resource in lacks(objects.refusal_of(pod) or "")]
        if "/" in resource:  # who asks for more than any node has waits in vain, and says so
            pending = [pod for pod in pending if objects.requests(pod, resource) <= world.most(resource)]
        if not pending:
            return None
        first = min(pending, key=lambda pod: (-_priority(pod), pod["metadata"]["creationTimestamp"]))
        total = sum((objects.requests(pod, resource) for pod in pending), start=Decimal())
        return Waiter(resource, total, _priority(first), first["metadata"]["creationTimestamp"])
    return None


def _priority(pod: Object) -> int:
    return int(pod["spec"].get("priority") or 0)
