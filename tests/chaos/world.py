"""What is true of a namespace, computed from its Deployments, ReplicaSets and pods without any of the operator's code.

`orphans` and `lies` are the first and the third of the four invariants; each returns sentences, none if it holds.
"""

from collections import Counter
from collections.abc import Callable, Iterator
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

    def pods_of(self, model: Object, *, current: bool = False) -> list[Object]:
        """The pods that are not finished of a model's Deployment; or those of its last template only."""
        pods = []
        for deployment in self.owned_by(model, "Deployment"):
            for replica_set in self.owned_by(deployment, "ReplicaSet"):
                if not current or _revision(replica_set) == _revision(deployment):
                    pods += self.owned_by(replica_set, "Pod")
        return [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]


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
    """What has no owner, the wrong one, or a twin."""
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
    for kind in ("ReplicaSet", "Pod"):
        found += [
            f"{kind} {obj['metadata']['name']} has no owner any more"
            for obj in world.below[kind]
            if _controller(obj) not in alive
        ]
    return found


def lies(world: World) -> list[str]:
    """Where a status, or a child, is not as the spec and the pods say it must be."""
    return [f"{model['metadata']['name']}: {lie}" for model in world.models for lie in _lies(world, model)]


def _lies(world: World, model: Object) -> Iterator[str]:
    status, generation = model.get("status") or {}, model["metadata"]["generation"]
    if status.get("observedGeneration") != generation:
        yield f"observedGeneration is {status.get('observedGeneration')}, generation {generation}"
        return
    for entry in status["conditions"]:
        if entry["observedGeneration"] != generation:
            yield f"{entry['type']} is about generation {entry['observedGeneration']}, not {generation}"
    for kind in OWNED:
        if len(world.owned_by(model, kind)) != 1:
            yield f"it has {len(world.owned_by(model, kind))} {kind}s"
            return
    (deployment,) = world.owned_by(model, "Deployment")
    if deployment["spec"]["replicas"] != wanted(model):
        yield f"its Deployment has {deployment['spec']['replicas']} replicas, not {wanted(model)}"
    yield from _pod_lies(world, model)
    progress = condition(model, "Progressing")["reason"]
    if (progress == "Complete") != rolled_out(deployment):
        yield f"Progressing is {progress} with the Deployment at {deployment['status']}"


def _pod_lies(world: World, model: Object) -> Iterator[str]:
    status = model["status"]
    pods = [pod for pod in world.pods_of(model) if "deletionTimestamp" not in pod["metadata"]]
    ready = [pod for pod in pods if condition(pod, "Ready").get("status") == "True"]
    for field, true in (("replicas", len(pods)), ("readyReplicas", len(ready))):
        if status[field] != true:
            yield f"status.{field} is {status[field]}, but {true} in truth"
    placed = [pod for pod in world.pods_of(model, current=True) if pod in pods and pod["spec"].get("nodeName")]
    for kind, true in (("Ready", bool(ready)), ("Scheduled", 0 < wanted(model) <= len(placed))):
        if (condition(model, kind)["status"] == "True") != true:
            yield f"{kind} is {condition(model, kind)['status']}, but {true} in truth"
    if (status["phase"] == "Running") != bool(ready):
        yield f"phase is {status['phase']} with {len(ready)} ready pods"


def rolled_out(deployment: Object) -> bool:
    """Whether all pods of a Deployment are of its last template and available."""
    status, replicas = deployment.get("status", {}), deployment["spec"]["replicas"]
    counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
    return status.get("observedGeneration") == deployment["metadata"]["generation"] and counts == {replicas}


def _controller(obj: Object) -> str:
    owners = [owner for owner in obj["metadata"].get("ownerReferences", ()) if owner.get("controller")]
    return owners[0]["uid"] if owners else ""


def _revision(obj: Object) -> str:
    return str(obj["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision", ""))
