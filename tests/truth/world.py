"""One moment of the whole cluster: which Deployment, ReplicaSets and pods belong to which InferenceModel. Pure.

Whose an object is follows from controller references alone, never from labels, which anybody may set.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tests.truth import objects
from tests.truth.objects import Object

PATHS: Final = {
    "InferenceModel": "/apis/moorage.dev/v1alpha1/inferencemodels",
    "Deployment": "/apis/apps/v1/deployments",
    "ReplicaSet": "/apis/apps/v1/replicasets",
    "Pod": "/api/v1/pods",
    "Event": "/api/v1/events",
    "FailedAttachVolume": "/api/v1/events",
    "FailedMount": "/api/v1/events",
    "Node": "/api/v1/nodes",
    "Service": "/api/v1/services",
    "PodDisruptionBudget": "/apis/policy/v1/poddisruptionbudgets",
    "PersistentVolumeClaim": "/api/v1/persistentvolumeclaims",
}
"""What the truth is made from, in all namespaces: the queue of models that wait for GPUs spans all of them."""

SELECTED: Final = {
    "Event": {"fieldSelector": "reason=Preempted"},
    "FailedAttachVolume": {"fieldSelector": "reason=FailedAttachVolume"},
    "FailedMount": {"fieldSelector": "reason=FailedMount"},
}
CHILDREN: Final = ("Deployment", "Service", "PodDisruptionBudget")


@dataclass(frozen=True)
class World:
    """All objects of `PATHS`, by kind."""

    found: Mapping[str, tuple[Object, ...]]

    @classmethod
    def of(cls, found: Mapping[str, Iterable[Object]]) -> "World":
        """From lists or watches; a kind that is not there has no objects."""
        return cls({kind: tuple(found.get(kind, ())) for kind in PATHS})

    @cached_property
    def models(self) -> tuple[Object, ...]:
        """The InferenceModels that are not being deleted: the others have nothing more to tell."""
        return tuple(model for model in self.found["InferenceModel"] if not objects.is_ending(model))

    @cached_property
    def _controlled(self) -> Mapping[tuple[str, str], list[Object]]:
        found = defaultdict(list)
        for kind in ("Deployment", "ReplicaSet", "Pod"):
            for obj in self.found[kind]:
                found[kind, objects.controller(obj)].append(obj)
        return found

    @cached_property
    def _named(self) -> Mapping[tuple[str, str], Object]:
        return {(kind, objects.name_of(obj)): obj for kind in CHILDREN for obj in self.found[kind]}

    def child(self, kind: str, model: Object) -> Object | None:
        """The object of that kind that has the model's name, whoever it belongs to."""
        return self._named.get((kind, objects.name_of(model)))

    def deployment(self, model: Object) -> Object | None:
        """The model's own Deployment."""
        found = self._controlled.get(("Deployment", objects.uid(model)), [])
        return next((one for one in found if one["metadata"]["name"] == model["metadata"]["name"]), None)

    def replica_sets(self, model: Object) -> list[Object]:
        """The ReplicaSets of its Deployment."""
        deployment = self.deployment(model)
        return list(self._controlled.get(("ReplicaSet", objects.uid(deployment)), [])) if deployment else []

    def newest(self, model: Object) -> Object | None:
        """The ReplicaSet of the Deployment's template as it is now, if it has been made."""
        uid = objects.uid(model)
        if uid not in self._newest:
            self._newest[uid] = self._find_newest(model)
        return self._newest[uid]

    @cached_property
    def _newest(self) -> dict[str, Object | None]:
        return {}  # whole templates are compared, and each pod of a model asks

    def _find_newest(self, model: Object) -> Object | None:
        deployment = self.deployment(model)
        if deployment is None:
            return None
        now = objects.template(deployment)
        return next((one for one in self.replica_sets(model) if objects.template(one) == now), None)

    def pods(self, model: Object) -> list[Object]:
        """The pods that are not finished."""
        owners = [objects.uid(one) for one in self.replica_sets(model)]
        pods = [pod for owner in owners for pod in self._controlled.get(("Pod", owner), [])]
        return [pod for pod in pods if not objects.is_finished(pod)]

    def failed_pods(self, model: Object) -> list[str]:
        """The names of those that failed, and have not been deleted."""
        owners = [objects.uid(one) for one in self.replica_sets(model)]
        pods = [pod for owner in owners for pod in self._controlled.get(("Pod", owner), [])]
        failed = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Failed"]
        return [str(pod["metadata"]["name"]) for pod in failed if not objects.is_ending(pod)]

    def strangers(self, model: Object) -> list[str]:
        """The kinds of objects that have the model's name and belong to nobody who ever had it."""
        found = {kind: self.child(kind, model) for kind in CHILDREN}
        return [kind for kind, obj in found.items() if obj and not _is_of(obj, model)]

    def volume_events(self, pod: Object) -> list[str]:
        """What Events on the pod say of volumes that could not be attached or mounted."""
        return self._volume_events.get(objects.uid(pod), [])

    @cached_property
    def _volume_events(self) -> Mapping[str, list[str]]:
        found = defaultdict(list)
        for event in (*self.found["FailedAttachVolume"], *self.found["FailedMount"]):
            found[str((event.get("involvedObject") or {}).get("uid"))].append(str(event.get("message")))
        return found

    @cached_property
    def claims(self) -> frozenset[str]:
        """The PersistentVolumeClaims, as NAMESPACE/NAME."""
        return frozenset(objects.name_of(claim) for claim in self.found["PersistentVolumeClaim"])

    def most(self, resource: str) -> int:
        """The most of a resource that one node has."""
        return max((int(objects.quantity(str(offer.get(resource, 0)))) for offer in self._offers), default=0)

    @property
    def resources(self) -> set[str]:
        """What nodes have beside CPU, memory and the like."""
        return {name for offer in self._offers for name in offer if "/" in name}

    @cached_property
    def _offers(self) -> list[Object]:
        return [(node.get("status") or {}).get("allocatable") or {} for node in self.found["Node"]]


def _is_of(obj: Object, model: Object) -> bool:
    """Whether it is the model's, or was left by a deleted model of its name, whose it then becomes."""
    if objects.controller(obj) == objects.uid(model):
        return True
    owners: list[Object] = obj["metadata"].get("ownerReferences") or []
    return any(
        owner.get("controller") and owner["kind"] == "InferenceModel" and owner["name"] == model["metadata"]["name"]
        for owner in owners
    )
