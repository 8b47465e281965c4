"""The memory of our operator with thousands of models, each with a Deployment, a Service and a pod.

Controllers and scheduler are frozen meanwhile: on two cores they would take longer for so many pods than the whole rest
of the benchmark. The operator makes the children, the benchmark makes the pods, and nobody runs them.
"""

import copy
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from hack.bench._kube import request
from hack.bench._operator_load import DEPLOYMENTS, PODS, Load, several
from hack.bench._operator_sides import Side, rss_mb_of, wait_until_idle
from hack.cluster.api import Cluster
from moorage_common.labels import MODEL_LABEL, MODEL_UID_LABEL

FROZEN = ("kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class Memory:
    """MB (10⁶ bytes) with all models: as they came, and after a restart that finds them all there."""

    grown: float
    restarted: float

    @property
    def worst(self) -> float:
        """What the operator must be given."""
        return max(self.grown, self.restarted)


async def memory_of(side: Side, load: Load, cluster: Cluster, http: aiohttp.ClientSession, models: int) -> Memory:
    """Bring the cluster to so many models and look."""
    with frozen(cluster):
        names = [f"more-{number}" for number in range(models - len(load.models.objects))]
        await load.create_many(names)
        await load.deployments.until("every Deployment", lambda: len(load.deployments.objects) >= models, 600)
        await _create_pods(http, load, names)
        await wait_until_idle(side)
        grown = rss_mb_of(side)
        side.stop()
        side.start()
        await wait_until_idle(side)
        return Memory(grown, rss_mb_of(side))


@contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """Stop the controllers and the scheduler for a while."""
    for component in FROZEN:
        cluster.signal(component, signal.SIGSTOP)
    try:
        yield
    finally:
        for component in FROZEN:
            cluster.signal(component, signal.SIGCONT)


async def _create_pods(http: aiohttp.ClientSession, load: Load, names: list[str]) -> None:
    if not names:
        return
    deployment = msgspec.json.decode(await request(http, "GET", f"{DEPLOYMENTS}/{names[0]}"))

    async def create(name: str) -> None:
        pod = pod_of(deployment["spec"]["template"], name, load.models.objects[name].metadata.uid)
        await request(http, "POST", PODS, json=pod)

    await several(create, names)


def pod_of(template: dict[str, Any], model: str, uid: str) -> dict[str, Any]:
    """The pod that a ReplicaSet would make for a model, from the template of another one's Deployment."""
    pod = copy.deepcopy(template)
    metadata = pod["metadata"]
    metadata["name"] = f"{model}-pod"
    metadata["labels"] |= {"app.kubernetes.io/instance": model, MODEL_LABEL: model, MODEL_UID_LABEL: uid}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": model, "uid": uid, "controller": True}
    metadata["ownerReferences"] = [owner]
    return {"apiVersion": "v1", "kind": "Pod", **pod}
