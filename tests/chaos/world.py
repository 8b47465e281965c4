"""A namespace's models and all that is below them, and whether each has what it owns: the first of the invariants."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tests.support.api import Api, Object, condition, settled

OWNED = ("Deployment", "Service", "PodDisruptionBudget")
"""What belongs to a model directly. ReplicaSets belong to Deployments, pods to ReplicaSets."""
LABEL = "app.kubernetes.io/managed-by=moorage"


@dataclass(frozen=True)
class World:
    """A namespace at about one moment."""

    models: list[Object]
    version: str
    api: Api

    @classmethod
    def of(cls, api: Api) -> "World":
        """Look at the models; what is below them is looked at when it is asked for, and then kept."""
        models = api.request("GET", api.path("InferenceModel"))
        return cls(models["items"], models["metadata"]["resourceVersion"], api)

    @cached_property
    def below(self) -> dict[str, list[Object]]:
        """All that bears our label, by kind."""
        return {kind: self.api.find(kind, LABEL) for kind in (*OWNED, "ReplicaSet", "Pod")}

    def owned_by(self, owner: Object | None, kind: str) -> list[Object]:
        """Objects of `kind` whose controller is `owner`."""
        uid = owner["metadata"]["uid"] if owner else None
        return [obj for obj in self.below[kind] if uid and _controller(obj) == uid]


Expectation = Callable[[Object], bool]
"""What a model must have come to."""


def serving(model: Object) -> bool:
    """All replicas answer, and the last change of the spec is done; a model of no replicas is stopped."""
    done = condition(model, "Progressing").get("reason") == "Complete"
    return settled(model) and done and model["status"]["readyReplicas"] == wanted(model)


def wanted(model: Object) -> int:
    """Pods that the spec asks for."""
    return 0 if model["spec"].get("suspend") else int(model["spec"]["replicas"])


def orphans(world: World) -> list[str]:
    """What has no owner, the wrong one, or a twin; and who lacks a child."""
    alive = {obj["metadata"]["uid"] for kind in ("Deployment", "ReplicaSet") for obj in world.below[kind]}
    models = {model["metadata"]["uid"]: model["metadata"]["name"] for model in world.models}
    found = []
    for kind in OWNED:
        owners = [_controller(obj) for obj in world.below[kind]]
        found += [
            f"{kind} {obj['metadata']['name']} belongs to no InferenceModel that exists"
            for obj in world.below[kind]
            if models.get(_controller(obj)) != obj["metadata"]["name"]
        ]
        found += [f"{models.get(uid, uid)} has {count} {kind}s" for uid, count in Counter(owners).items() if count > 1]
        found += [f"{name} has no {kind}" for uid, name in models.items() if uid not in owners]
    for kind in ("ReplicaSet", "Pod"):
        found += [
            f"{kind} {obj['metadata']['name']} has no owner any more"
            for obj in world.below[kind]
            if _controller(obj) not in alive
        ]
    return found


def _controller(obj: Object) -> str:
    owners = [owner for owner in obj["metadata"].get("ownerReferences", ()) if owner.get("controller")]
    return owners[0]["uid"] if owners else ""
