"""The whole gateway on a small API server that refuses namespaces: what probes and metrics say, and who is served."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from moorage_gateway.kube.credentials import Connection
from moorage_gateway.server import Gateway
from moorage_gateway.settings import Settings
from tests.unit.common.support import Reply, get, until
from tests.unit.gateway.support import begun

SETTINGS = Settings(host="127.0.0.1", port=0, admin_port=0, namespaces="team-a,team-b", key_namespace="keys")


class ApiServer:
    """Lists nothing, keeps watches open until `end`, and refuses what is in `refused`."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.everything = False
        self.ending = asyncio.Event()

    def end(self) -> None:
        """All open watches end: what comes next is asked for anew."""
        self.ending.set()
        self.ending = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        namespace = request.path.partition("/namespaces/")[2].partition("/")[0]
        if self.everything or namespace in self.refused:
            return web.json_response({"reason": "Forbidden", "message": "no"}, status=403)
        if "watch" not in request.query:
            return web.json_response({"kind": "List", "metadata": {"resourceVersion": "5"}, "items": []})
        response = web.StreamResponse()
        await response.prepare(request)
        await self.ending.wait()
        return response


@asynccontextmanager
async def running(*refused: str, everything: bool = False) -> AsyncIterator[tuple[Gateway, ApiServer]]:
    """A gateway that listens."""
    server, app = ApiServer(), web.Application()
    server.refused, server.everything = set(refused), everything
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway = Gateway(SETTINGS, lambda: Connection("http://{}:{}".format(*runner.addresses[0])))
    task = asyncio.create_task(gateway.run())
    try:
        await gateway.listening.wait()
        yield gateway, server
    finally:
        gateway.stop()
        await task
        await runner.cleanup()


async def ask(gateway: Gateway, path: str) -> Reply:
    """Ask at the administrative port."""
    async with begun(gateway.admin_port, get(path)) as client:
        return await client.reply()


async def probe(gateway: Gateway, path: str = "/readyz") -> tuple[int, Any]:
    """What a probe says."""
    reply = await ask(gateway, path)
    return reply.status, json.loads(reply.body)


async def becomes(gateway: Gateway, status: int, unwatched: int) -> Any:
    """What `/readyz` says once it has this status and so many entries."""
    async with asyncio.timeout(10):
        while True:
            found, told = await probe(gateway)
            if (found, len(told["unwatched"])) == (status, unwatched):
                return told
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    # The watches that go on are ended sooner than any API server does.
    monkeypatch.setattr("moorage_gateway.kube.watch.SHORT_SECONDS", 0.0)
    monkeypatch.setattr("moorage_gateway.kube.watch.REFUSED_SECONDS", 0.1)
    monkeypatch.setattr("moorage_gateway.view.REFUSED_SECONDS", 0.3)
    monkeypatch.setattr("moorage_gateway.server.DEAF_SECONDS", 1.0)


async def test_cluster_01_02_what_is_lost_is_told_and_nothing_else_happens() -> None:
    async with running() as (gateway, server):
        assert await becomes(gateway, 200, 0) == {"ok": True, "reasons": [], "unwatched": []}
        server.refused |= {"team-b", "keys"}
        server.end()
        told = await becomes(gateway, 200, 4)
        assert "InferenceModel in namespace team-b: 403 Forbidden" in told["unwatched"]
        metrics = (await ask(gateway, "/metrics")).body.decode()
        assert 'moorage_gateway_unwatched{kind="InferenceModel",namespace="team-b"} 1.0' in metrics
        assert 'moorage_gateway_unwatched{kind="InferenceModel",namespace="team-a"} 0.0' in metrics
        # Longer than a watch may be silent: those that go on are renewed, as the API server does.
        for _ in range(15):
            await asyncio.sleep(0.1)
            server.end()
            assert (await probe(gateway, "/livez"))[0] == 200
            assert (await probe(gateway))[0] == 200
        server.refused.clear()
        await becomes(gateway, 200, 0)


async def test_cluster_01_a_gateway_that_starts_without_a_namespace_becomes_ready() -> None:
    async with running("team-b") as (gateway, _):
        status, told = await probe(gateway)
        assert (status, told["ok"]) == (503, False)
        assert any("not listed yet" in reason for reason in told["reasons"])
        await becomes(gateway, 200, 3)


async def test_where_everything_is_refused_it_is_not_ready_until_something_is_not() -> None:
    async with running(everything=True) as (gateway, server):
        await until(lambda: gateway._view.blind)
        status, told = await probe(gateway)
        assert (status, told["reasons"], len(told["unwatched"])) == (503, ["nothing can be watched"], 7)
        assert (await probe(gateway, "/livez"))[0] == 200
        server.everything = False
        server.refused = {"team-b"}
        await becomes(gateway, 200, 3)


async def test_a_watch_that_hears_nothing_at_all_fails_liveness() -> None:
    async with running() as (gateway, _):
        await becomes(gateway, 200, 0)
        async with asyncio.timeout(10):
            while (await probe(gateway, "/livez"))[0] == 200:  # noqa: ASYNC110 - it is asked, as the kubelet does
                await asyncio.sleep(0.05)
        assert "has not answered a watch" in (await probe(gateway, "/livez"))[1]["reasons"][0]
