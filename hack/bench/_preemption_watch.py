"""Watches one namespace for the benchmark of preemption, and keeps when each thing was first seen."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from hack.bench._kube import MODELS, RefusedError, list_and_watch, request

PODS = "/api/v1/namespaces/{}/pods"
EVENTS = "/api/v1/namespaces/{}/events"
SECONDS = 120.0

Object = dict[str, Any]


def condition(obj: Object, kind: str) -> str:
    """The status of a condition; empty when it is not there."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((str(entry["status"]) for entry in conditions if entry["type"] == kind), "")


def victim_of(event: Object) -> str:
    """The pod that an Event reports as preempted; empty for any other Event."""
    about = event.get("involvedObject") or {}
    return str(about["name"]) if event.get("reason") == "Preempted" and about.get("kind") == "Pod" else ""


async def wait_until_served(http: aiohttp.ClientSession, path: str) -> None:
    """Return when the kind can be listed: just after its definition was made, the API server asks for patience."""
    while True:
        try:
            await request(http, "GET", path)
        except RefusedError as refusal:
            if refusal.status != 429:
                raise
            await asyncio.sleep(0.1)
        else:
            return


class Seen:
    """What the watches of a namespace have shown; times are of `time.perf_counter`."""

    def __init__(self) -> None:
        self.pods: dict[str, Object] = {}
        self.models: dict[str, Object] = {}
        self.made_at: dict[str, float] = {}
        """When each pod was first seen."""

        self.lost_at: dict[str, float] = {}
        """When it was first seen that a pod is preempted: it is being deleted, or an Event reports it."""

        self.told_at: dict[tuple[str, str], float] = {}
        """When each model was first seen to say to whom it has lost a place."""

        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[float]]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, http: aiohttp.ClientSession, namespace: str) -> "Seen":
        """Watch in the background."""
        for path, see in ((PODS, self.see_pod), (EVENTS, self.see_event), (MODELS, self.see_model)):
            follow = self._follow(http, path.format(namespace), self._woken(see))
            self._tasks.append(asyncio.create_task(follow))
        return self

    async def _follow(self, http: aiohttp.ClientSession, path: str, take: Callable[[str, Object], None]) -> None:
        while True:
            # The API server ends watches of a kind whose definition has just been made or changed.
            await wait_until_served(http, path)
            await (await list_and_watch(http, path, take))

    def stop(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()

    def _woken(self, see: Callable[[str, Object, float], None]) -> Callable[[str, Object], None]:
        def take(kind: str, obj: Object) -> None:
            now = time.perf_counter()
            see(kind, obj, now)
            for entry in [entry for entry in self._waiting if entry[0]()]:
                self._waiting.remove(entry)
                if not entry[1].done():
                    entry[1].set_result(now)

        return take

    def see_pod(self, kind: str, pod: Object, now: float) -> None:
        """Take in an event of a pod."""
        name = pod["metadata"]["name"]
        if kind == "DELETED" or "deletionTimestamp" in pod["metadata"]:
            self.lost_at.setdefault(name, now)
        if kind == "DELETED":
            self.pods.pop(name, None)
            return
        self.pods[name] = pod
        self.made_at.setdefault(name, now)

    def see_event(self, _kind: str, event: Object, now: float) -> None:
        """Take in an Event."""
        if pod := victim_of(event):
            self.lost_at.setdefault(pod, now)

    def see_model(self, kind: str, model: Object, now: float) -> None:
        """Take in an event of an InferenceModel."""
        name = model["metadata"]["name"]
        if kind == "DELETED":
            self.models.pop(name, None)
            return
        self.models[name] = model
        by = (model.get("status") or {}).get("preemptedBy")
        if by and condition(model, "Preempted") == "True":
            self.told_at.setdefault((name, by), now)

    def ready_pods(self, label: str, value: str) -> list[str]:
        """The pods with that label that are ready and not ending."""
        return [
            name
            for name, pod in self.pods.items()
            if pod["metadata"].get("labels", {}).get(label) == value
            and condition(pod, "Ready") == "True"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    async def until(self, what: str, holds: Callable[[], bool], seconds: float = SECONDS) -> float:
        """Return, once `holds`, the time of the event that made it so."""
        if holds():
            return time.perf_counter()
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((holds, future))
        either: set[asyncio.Future[Any]] = {future, *self._tasks}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if ended := next((task for task in self._tasks if task.done()), None):
            raise RuntimeError("a watch has ended") from ended.exception()
        raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
