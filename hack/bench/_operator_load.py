"""What the operator's benchmark does to the cluster, and how long until the cluster shows it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from hack.bench._kube import MODELS, Follower, request
from moorage_common.labels import MODEL_LABEL
from tests.support.models import model

NAMESPACE = "bench"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
# In the order of their owners, so that a controller brings nothing back that was deleted.
KINDS = (
    MODELS.format(NAMESPACE),
    DEPLOYMENTS,
    f"/apis/apps/v1/namespaces/{NAMESPACE}/replicasets",
    PODS,
    f"/api/v1/namespaces/{NAMESPACE}/services",
    f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices",
)
POSTS_AT_A_TIME = 16
SETTLED_SECONDS = 2.0
_MERGE = {"Content-Type": "application/strategic-merge-patch+json"}


async def several(work: Callable[[str], Awaitable[None]], names: Iterable[str]) -> None:
    """Do the work for each name, several at a time."""
    left = iter(names)

    async def worker() -> None:
        for name in left:
            await work(name)

    await asyncio.gather(*(worker() for _ in range(POSTS_AT_A_TIME)))


@dataclass(frozen=True)
class Burst:
    """When N models were asked for at once."""

    children_seconds: float
    ready_seconds: float


class Load:
    """A user who creates and deletes InferenceModels in a namespace of the benchmark's own, and watches."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.models = Follower(http, MODELS.format(NAMESPACE))
        self.deployments = Follower(http, DEPLOYMENTS)

    async def start(self) -> None:
        """Make the namespace and watch it."""
        await request(self._http, "POST", "/api/v1/namespaces", json={"metadata": {"name": NAMESPACE}})
        await self.models.start()
        await self.deployments.start()

    def stop(self) -> None:
        """End the watches."""
        self.models.stop()
        self.deployments.stop()

    async def create(self, name: str) -> None:
        """POST one small model."""
        body = model(name, resources={"cpu": "10m", "memory": "16Mi"})
        await request(self._http, "POST", MODELS.format(NAMESPACE), json=body)

    async def child_seconds(self, name: str) -> float:
        """Seconds from the POST of a model until a watch shows its Deployment; returns when the model is Ready."""
        began = time.perf_counter()
        await self.create(name)
        await self.deployments.until(f"Deployment {name}", lambda: name in self.deployments.seen_at)
        seen = self.deployments.seen_at[name] - began
        await self.models.until(f"{name} Ready", lambda: name in self.models.ready)
        return seen

    async def create_many(self, names: Sequence[str]) -> None:
        """POST many models, several at a time."""
        await several(self.create, names)

    async def burst(self, names: Sequence[str], *, seconds: float) -> Burst:
        """POST many models and wait until all of them are Ready."""
        children = len(self.deployments.objects) + len(names)
        ready = len(self.models.ready) + len(names)
        began = time.perf_counter()
        posting = asyncio.create_task(self.create_many(names))
        all_children = asyncio.create_task(
            self.deployments.until("every Deployment", lambda: len(self.deployments.objects) >= children, seconds)
        )
        try:
            all_ready = await self.models.until("all Ready", lambda: len(self.models.ready) >= ready, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._unready()}") from error
        await posting
        return Burst(await all_children - began, all_ready - began)

    def _unready(self) -> str:
        unready = [obj for name, obj in self.models.objects.items() if name not in self.models.ready]
        examples = [f"{obj.metadata.name}: {bytes(obj.status).decode()}" for obj in unready[:3]]
        return "\n".join([f"{len(unready)} of {len(self.models.objects)} models are not Ready:", *examples])

    async def pods(self) -> dict[str, str]:
        """The name of a pod of each model."""
        page = msgspec.json.decode(await request(self._http, "GET", PODS))
        return {item["metadata"]["labels"][MODEL_LABEL]: item["metadata"]["name"] for item in page["items"]}

    async def told_seconds(self, name: str, pod: str, *, ready: bool) -> float:
        """Seconds from the API server's answer to a change of a pod's readiness until a watch shows it in the status.

        The answer and the pod's event leave the API server together, so this is what the operator takes, and the
        API server for the write.
        """
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        shown = asyncio.create_task(
            self.models.until(f"status of {name}", lambda: (name in self.models.ready) == ready, 30)
        )
        path = f"{PODS}/{pod}/status"
        body = msgspec.json.encode({"status": {"conditions": [condition]}})
        await request(self._http, "PATCH", path, data=body, headers=_MERGE)
        changed = time.perf_counter()
        return max(0.0, await shown - changed)

    async def settle(self, quiet: float = SETTLED_SECONDS) -> None:
        """Return once no Deployment and no model has changed for a while."""
        while True:
            before = self._versions()
            await asyncio.sleep(quiet)
            if self._versions() == before:
                return

    def _versions(self) -> list[str]:
        followers = (self.models, self.deployments)
        return [obj.metadata.resourceVersion for follower in followers for obj in follower.objects.values()]

    async def clear(self, *, seconds: float = 180) -> None:
        """Delete everything, and return when it is gone."""
        deadline = time.monotonic() + seconds
        while left := [path for path in KINDS if await self._count(path)]:
            assert time.monotonic() < deadline, f"not gone after {seconds:.0f} s: {left}"
            for path in left:
                await request(self._http, "DELETE", path, params={"gracePeriodSeconds": "0"})
            await asyncio.sleep(0.5)
        await self.models.until("no model", lambda: not self.models.objects)
        await self.deployments.until("no Deployment", lambda: not self.deployments.objects)

    async def _count(self, path: str) -> int:
        page = msgspec.json.decode(await request(self._http, "GET", path, params={"limit": "1"}))
        return len(page["items"])
