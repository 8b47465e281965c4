"""Tells the pods of a model's Deployment from those that only bear its labels, which anybody may set."""

from typing import Final

from moorage_operator.api.key import Key
from moorage_operator.cluster.cache.store import Store
from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.errors import InvalidNameError, NotFoundError
from moorage_operator.cluster.kinds import REPLICA_SETS
from moorage_operator.status.observe import PodState, controller_of

MOST_READ: Final = 10
"""ReplicaSets that are read at a time, those of the newest pods first: pods with forged owners may name thousands."""


async def own_pods(kube: Kube, store: Store, key: Key, model_uid: str) -> tuple[PodState, ...]:
    """The pods whose ReplicaSet belongs to the model's Deployment; ReplicaSets that `store` does not know are read."""
    deployment = store.child(key, "Deployment")
    if deployment is None:
        return ()
    candidates = [pod for pod in store.pods(key) if pod.model_uid == model_uid]
    named = {pod.replica_set_uid: pod.replica_set for pod in reversed(candidates)}
    unknown = [name for uid, name in named.items() if store.owner_of_replica_set(key, uid) != deployment.uid]
    for name in unknown[:MOST_READ]:
        await _look_up(kube, store, key, name)
    return tuple(pod for pod in candidates if store.owner_of_replica_set(key, pod.replica_set_uid) == deployment.uid)


async def _look_up(kube: Kube, store: Store, key: Key, name: str) -> None:
    try:
        live = await kube.get(REPLICA_SETS, key.namespace, name)
    except (NotFoundError, InvalidNameError):
        return  # an ownerReference may say anything
    owner = controller_of(live)
    if owner.get("kind") == "Deployment":
        store.note_replica_set(key, live["metadata"]["uid"], owner["uid"])
