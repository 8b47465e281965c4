"""The two sides of the benchmark of preemption: InferenceModels, and bare Deployments with the same PriorityClasses.

Each fills GPUs of its own on the same nodes (a resource of its own name), so that both are there all the time and take
turns without being filled again; the scheduler has the same pods to think about for either.
"""

import time
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import msgspec

from hack.bench._kube import MODELS, request
from hack.bench._operator_load import several
from hack.bench._preemption_watch import Seen, condition, wait_until_served
from moorage_common.labels import MODEL_LABEL
from tests.support.models import model

LOW, HIGH = 3, 10
OUR_GPU, BARE_GPU = "nvidia.com/gpu", "example.org/gpu"
SMALL = {"cpu": "10m", "memory": "16Mi"}
DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"
MERGE = {"Content-Type": "application/merge-patch+json"}


STUCK_SECONDS = 20.0
"""A pod that does not run by then has been forgotten by the scheduler until it looks at all again, after five minutes:
a victim that is gone at once, as those of fake nodes are, may come too early for it (kubernetes/kubernetes#141694)."""


class StuckError(Exception):
    """What has the high priority does not run, though its victims are gone."""


@dataclass(frozen=True)
class Arrival:
    """Seconds from the POST of what has the high priority.

    Until its pod was created, until the first preemption, until the pod was ready, and until the model was Ready.
    `told`: for each preempted pod, from when that was seen until its model showed the preemptor.
    """

    made: float
    lost: float
    running: float
    ready: float
    told: tuple[float, ...] = ()


class Side(Protocol):
    """One of the two; `fill` fills all GPUs, `arrive` brings what takes some of them, `leave` brings all back."""

    name: str

    async def fill(self) -> None: ...
    async def arrive(self, number: int) -> Arrival: ...
    async def leave(self, number: int) -> None: ...
    def stop(self) -> None: ...


class Models:
    """InferenceModels of one GPU each; the operator runs."""

    name = "ours"

    def __init__(self, http: aiohttp.ClientSession, gpus: int, taken: int) -> None:
        self._http, self._gpus, self._taken = http, gpus, taken
        self._path = MODELS.format(self.name)
        self._seen = Seen()

    async def fill(self) -> None:
        await _namespace(self._http, self.name)
        await wait_until_served(self._http, self._path)
        await self._seen.start(self._http, self.name)
        await several(self._create_low, [f"low-{number}" for number in range(self._gpus)])
        await self._seen.until("every model Ready", self._all_back)

    async def _create_low(self, name: str) -> None:
        gpu = {"count": 1, "resourceName": OUR_GPU}
        await _post(self._http, self._path, model(name, gpu=gpu, priority=LOW, resources=SMALL))

    def _all_back(self) -> bool:
        low = [one for name, one in self._seen.models.items() if name.startswith("low-")]
        fine = [one for one in low if condition(one, "Ready") == "True" and condition(one, "Preempted") == "False"]
        return len(fine) == self._gpus and len(self._seen.models) == self._gpus

    async def arrive(self, number: int) -> Arrival:
        name, seen = f"high-{number}", self._seen
        gpu = {"count": self._taken, "resourceName": OUR_GPU}
        began = time.perf_counter()
        await _post(self._http, self._path, model(name, gpu=gpu, priority=HIGH, resources=SMALL))
        ran = await _running(seen, MODEL_LABEL, name)
        ready = await seen.until(f"{name} Ready", lambda: condition(seen.models.get(name, {}), "Ready") == "True")
        by = f"{self.name}/{name}"
        await seen.until("every victim tells", lambda: len(_told(seen, by)) == len(_lost(seen, began)) >= self._taken)
        lost = _lost(seen, began)
        told = tuple(max(0.0, at - lost[victim]) for victim, at in _told(seen, by).items())
        made = min(seen.made_at[pod] for pod in seen.ready_pods(MODEL_LABEL, name))
        return Arrival(made - began, min(lost.values()) - began, ran - began, ready - began, told)

    async def leave(self, number: int) -> None:
        await request(self._http, "DELETE", f"{self._path}/high-{number}")
        await self._seen.until("all are back", self._all_back)

    def stop(self) -> None:
        self._seen.stop()


async def _running(seen: Seen, label: str, name: str) -> float:
    try:
        return await seen.until(f"{name} runs", lambda: bool(seen.ready_pods(label, name)), STUCK_SECONDS)
    except TimeoutError as error:
        raise StuckError(name) from error


def _lost(seen: Seen, since: float) -> dict[str, float]:
    """Who of low priority has lost a pod since then, and when that was seen."""
    return {name.rsplit("-", 2)[0]: at for name, at in seen.lost_at.items() if at >= since and name.startswith("low-")}


def _told(seen: Seen, by: str) -> dict[str, float]:
    return {name: at for (name, taker), at in seen.told_at.items() if taker == by}


class Deployments:
    """One Deployment of low priority with a pod for each GPU, and one of high priority; nobody but the scheduler."""

    name = "bare"

    def __init__(self, http: aiohttp.ClientSession, gpus: int, taken: int) -> None:
        self._http, self._gpus, self._taken = http, gpus, taken
        self._path = DEPLOYMENTS.format(self.name)
        self._seen = Seen()

    async def fill(self) -> None:
        await _namespace(self._http, self.name)
        await self._seen.start(self._http, self.name)
        await _post(self._http, self._path, deployment("low", LOW, self._gpus, 1))
        await self._seen.until("every pod ready", self._all_back)

    def _all_back(self) -> bool:
        ready = len(self._seen.ready_pods("app", "low")) == self._gpus
        return ready and len(self._seen.pods) == self._gpus

    async def arrive(self, number: int) -> Arrival:
        name = f"high-{number}"
        began = time.perf_counter()
        await _post(self._http, self._path, deployment(name, HIGH, 1, self._taken))
        ran = await _running(self._seen, "app", name)
        made = min(self._seen.made_at[pod] for pod in self._seen.ready_pods("app", name))
        lost = min(_lost(self._seen, began).values())
        return Arrival(made - began, lost - began, ran - began, ran - began)

    async def leave(self, number: int) -> None:
        await request(self._http, "DELETE", f"{self._path}/high-{number}")
        await self._seen.until("all are back", self._all_back)

    def stop(self) -> None:
        self._seen.stop()


def deployment(name: str, priority: int, replicas: int, gpus: int) -> dict[str, Any]:
    """A bare Deployment whose pods ask for what those of a model ask for."""
    resources = {**SMALL, BARE_GPU: str(gpus)}
    container = {"name": "runtime", "image": "none", "resources": {"requests": resources, "limits": resources}}
    spec = {
        "containers": [container],
        "priorityClassName": f"moorage-{priority}",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 40,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }


async def offer_gpus(http: aiohttp.ClientSession, each: int) -> None:
    """Every node offers as many GPUs to the bare side as it has for ours."""
    nodes = msgspec.json.decode(await request(http, "GET", "/api/v1/nodes"))["items"]
    amount = {BARE_GPU: str(each)}
    patch = msgspec.json.encode({"status": {"capacity": amount, "allocatable": amount}})
    for node in nodes:
        path = f"/api/v1/nodes/{node['metadata']['name']}/status"
        await request(http, "PATCH", path, data=patch, headers=MERGE)


async def _namespace(http: aiohttp.ClientSession, name: str) -> None:
    await _post(http, "/api/v1/namespaces", {"metadata": {"name": name}})


async def _post(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
    await request(http, "POST", path, json=body)
