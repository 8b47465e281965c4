"""A thin way to the API server for the operator's benchmark: as little as can be, so that it hardly disturbs.

`connect` speaks with a kubeconfig, `list_and_watch` hands over raw objects, and `Follower` keeps the last state of the
objects of a namespace and wakes whoever waits for one.
"""

import asyncio
import base64
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

MODELS = "/apis/moorage.dev/v1alpha1/namespaces/{}/inferencemodels"
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=60)
_LONGEST_LINE = 2**20


class RefusedError(Exception):
    """The API server said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def connect(kubeconfig: Path) -> aiohttp.ClientSession:
    """A session with the server of a kubeconfig as the base of its paths."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
    headers = {}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        with tempfile.NamedTemporaryFile("w") as pair:
            # The ssl module loads a client's key from a file only.
            pair.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
            pair.flush()
            context.load_cert_chain(pair.name)
    connector = aiohttp.TCPConnector(limit=64, ssl=context)
    return aiohttp.ClientSession(
        cluster["server"], connector=connector, headers=headers, timeout=_TIMEOUT, read_bufsize=_LONGEST_LINE
    )


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()


async def list_and_watch(
    http: aiohttp.ClientSession, path: str, see: Callable[[str, dict[str, Any]], None], selector: str = ""
) -> asyncio.Task[None]:
    """Call `see` with ADDED for all objects of a list, then with every event of a watch, which is the task returned."""
    selected = {"labelSelector": selector} if selector else {}
    async with http.get(path, params=selected) as answer:
        page = msgspec.json.decode(await answer.read())
    for item in page["items"]:
        see("ADDED", item)
    decoder = msgspec.json.Decoder(dict[str, Any])

    async def watch(version: str) -> None:
        params = {"watch": "true", "resourceVersion": version, **selected}
        async with http.get(path, params=params) as stream:
            async for line in stream.content:
                event = decoder.decode(line)
                see(event["type"], event["object"])

    return asyncio.create_task(watch(page["metadata"]["resourceVersion"]))


class Condition(msgspec.Struct):
    """A condition of a status."""

    type: str
    status: str


class Status(msgspec.Struct):
    """The part of a status that is waited for."""

    conditions: list[Condition] = []

    def is_true(self, kind: str) -> bool:
        """Whether the condition holds."""
        return any(condition.type == kind and condition.status == "True" for condition in self.conditions)


class Metadata(msgspec.Struct):
    """The part of an object's metadata that is needed."""

    name: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815 - the API's name


class Object(msgspec.Struct):
    """An object as far as it is looked at; its status stays raw, so that a change of it is seen."""

    metadata: Metadata
    status: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def state(self) -> Status:
        """The status, read."""
        return msgspec.json.decode(self.status, type=Status)


class _Event(msgspec.Struct):
    type: str
    object: Object


class _List(msgspec.Struct):
    metadata: Metadata
    items: list[Object]


class Follower:
    """Watches one kind in one namespace: `objects` by name, and when each was first seen."""

    def __init__(self, http: aiohttp.ClientSession, path: str) -> None:
        self._http, self._path = http, path
        self.objects: dict[str, Object] = {}
        self.seen_at: dict[str, float] = {}
        self.ready: set[str] = set()
        self.status_changes = 0
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[float]]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> "Follower":
        """List, then watch in the background."""
        page = await self._list()
        for item in page.items:
            self._take("ADDED", item)
        self._task = asyncio.create_task(self._watch(page.metadata.resourceVersion))
        return self

    async def _list(self) -> _List:
        while True:
            try:
                return msgspec.json.decode(await request(self._http, "GET", self._path), type=_List)
            except RefusedError as refusal:
                # The API server says so for a moment after a CustomResourceDefinition was made.
                if refusal.status != 429:
                    raise
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        """End the watch."""
        if self._task:
            self._task.cancel()

    async def _watch(self, version: str) -> None:
        decoder = msgspec.json.Decoder(_Event)
        while True:
            params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600"}
            async with self._http.get(self._path, params=params) as stream:
                async for line in stream.content:
                    event = decoder.decode(line)
                    self._take(event.type, event.object)
            # The API server ends the watches of a kind when its CustomResourceDefinition changes.
            page = await self._list()
            for item in page.items:
                self._take("MODIFIED", item)
            version = page.metadata.resourceVersion

    def _take(self, kind: str, obj: Object) -> None:
        now, name = time.perf_counter(), obj.metadata.name
        if kind == "DELETED":
            self.objects.pop(name, None)
            self.seen_at.pop(name, None)
            self.ready.discard(name)
        else:
            before = self.objects.get(name)
            if kind == "MODIFIED" and before and bytes(before.status) != bytes(obj.status):
                self.status_changes += 1
            self.objects[name] = obj
            self.seen_at.setdefault(name, now)
            (self.ready.add if obj.state.is_true("Ready") else self.ready.discard)(name)
        for entry in [entry for entry in self._waiting if entry[0]()]:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(now)

    async def until(self, what: str, holds: Callable[[], bool], seconds: float = 120) -> float:
        """Return, once `holds`, the time of the event that made it so."""
        if holds():
            return time.perf_counter()
        assert self._task, "not started"
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((holds, future))
        either: set[asyncio.Future[Any]] = {future, self._task}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if self._task.done():
            raise RuntimeError(f"the watch of {self._path} has ended") from self._task.exception()
        raise TimeoutError(f"after {seconds:.0f} s still not: {what}")


async def request(http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> bytes:
    """The body of the answer; raises RefusedError for one that is no success."""
    async with http.request(method, path, **options) as answer:
        body = await answer.read()
        if answer.status >= 400:
            raise RefusedError(answer.status, body[:300].decode(errors="replace"))
        return body
