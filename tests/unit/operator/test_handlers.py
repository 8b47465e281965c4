"""The watches, by the real kopf on a small API server that fails: they are started again, and soon."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import kopf
import pytest
from aiohttp import web

from moorage_operator import handlers
from moorage_operator.handlers import EVERYWHERE, WatchHealth
from moorage_operator.kube import Resource

KINDS = [resource for resource, _ in handlers.watches(EVERYWHERE)]
DISCOVERED = [*KINDS, Resource("", "v1", "namespaces", "Namespace")]
"""kopf waits until it has heard of namespaces."""

LISTED_AGAIN_SECONDS = 10


class Server:
    """Lists nothing, and keeps watches open until a test says otherwise."""

    def __init__(self) -> None:
        self.lists: Counter[str] = Counter()
        self.open: set[asyncio.Future[bytes]] = set()
        self.refusals: Iterator[int] = iter(())
        self.changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        path = request.path
        if (found := discovery(path)) is not None:
            return web.json_response(found)
        if "watch" not in request.query:
            self.lists[path] += 1
            self.changed.set()
            return web.json_response({"kind": "List", "metadata": {"resourceVersion": "5"}, "items": []})
        if status := next(self.refusals, 0):
            return web.json_response({"kind": "Status", "code": status}, status=status)
        return await self.stream(request)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """A watch: silent, until a test gives it a last line."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        last: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.open.add(last)
        self.changed.set()
        try:
            await response.write(await last)
        finally:
            self.open.discard(last)
        return response

    def end_watches(self, count: int, last: bytes) -> None:
        """Some of the watches that are open end now."""
        for watch in list(self.open)[:count]:
            watch.set_result(last)

    async def until(self, count: int, lists: int) -> None:
        """Every kind has been listed so often, and is watched."""
        async with asyncio.timeout(LISTED_AGAIN_SECONDS):
            while len(self.open) < count or min(self.lists.values(), default=0) < lists:
                self.changed.clear()
                await self.changed.wait()


def discovery(path: str) -> dict[str, Any] | None:
    """What the API server says of its groups, and of the kinds in one; None for other paths."""
    groups = {resource.group: resource.version for resource in KINDS if resource.group}
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        versions = {name: {"groupVersion": f"{name}/{version}", "version": version} for name, version in groups.items()}
        return {"groups": [{"name": n, "versions": [v], "preferredVersion": v} for n, v in versions.items()]}
    kinds = [resource for resource in DISCOVERED if resource.path(None).rsplit("/", 1)[0] == path]
    verbs = ["list", "watch", "patch"]
    resources = [
        {"name": r.plural, "singularName": r.kind.lower(), "kind": r.kind, "namespaced": True, "verbs": verbs}
        for r in kinds
    ]
    return {"resources": resources} if kinds else None


class NoSink:
    """Takes in nothing."""

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """An event."""

    def listed(self, resource: Resource, namespace: str | None) -> None:
        """A list."""


@asynccontextmanager
async def watching() -> AsyncIterator[Server]:
    """The watches on a server of ours."""
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection = kopf.ConnectionInfo(server="http://{}:{}".format(*runner.addresses[0]))
    health = WatchHealth(EVERYWHERE)
    task = asyncio.create_task(handlers.watch(lambda: connection, EVERYWHERE, NoSink(), health))
    try:
        await server.until(len(KINDS), lists=1)
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()
        # What kopf leaves behind speaks up now, and not in the middle of another test.
        gc.collect()


ERROR = b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "reason": "InternalError"}}\n'


@pytest.mark.parametrize("failing", [1, 3, len(KINDS)])
async def test_fault_06_an_error_in_some_watches_starts_all_again(failing: int) -> None:
    async with watching() as server:
        server.end_watches(failing, ERROR)
        await server.until(len(KINDS), lists=2)


@pytest.mark.parametrize("refusals", [[410], [410, 410, 503, 503], [503, 503, 503, 410]])
async def test_fault_07_a_watch_that_is_refused_starts_all_again(refusals: list[int]) -> None:
    async with watching() as server:
        # Those that are told to try again are between two attempts when kopf ends.
        server.refusals = iter(refusals)
        server.end_watches(len(KINDS), b"")
        await server.until(len(KINDS), lists=2)
