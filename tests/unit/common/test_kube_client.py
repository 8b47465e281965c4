"""The requests of the client: where they go, and under which name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from moorage_common.kube.client import Kube
from moorage_common.kube.credentials import Connection
from moorage_common.kube.resources import PODS, Resource

REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Kube, list[tuple[str, str, str | None]]]]:
    """A client, and the method, path and user agent of each request that it makes; the server says what it is told."""
    seen: list[tuple[str, str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, request.headers.get("User-Agent")))
        return web.Response(body=await request.read(), content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kube = Kube(lambda: Connection("http://{}:{}".format(*runner.addresses[0])), "somebody")
    try:
        yield kube, seen
    finally:
        await kube.close()
        await runner.cleanup()


def pod(**fields: Any) -> dict[str, Any]:
    """A pod."""
    return {"kind": "Pod", "metadata": {"name": "one", "namespace": "team-a"}, **fields}


async def test_objects_are_written_where_their_namespace_and_name_say() -> None:
    async with echoing() as (kube, seen):
        assert await kube.create(PODS, pod()) == pod()
        assert await kube.replace(PODS, pod(spec={})) == pod(spec={})
        await kube.apply(PODS, pod(), force=True)
        await kube.apply(PODS, pod(), force=False, subresource="status")
    pods, one = "/api/v1/namespaces/team-a/pods", "/api/v1/namespaces/team-a/pods/one"
    assert seen == [
        ("POST", pods, "somebody"),
        ("PUT", one, "somebody"),
        ("PATCH", f"{one}?fieldManager=somebody&force=true", "somebody"),
        ("PATCH", f"{one}/status?fieldManager=somebody&force=false", "somebody"),
    ]


async def test_what_has_no_namespace_is_created_without_metadata() -> None:
    async with echoing() as (kube, seen):
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "secret"}}
        assert await kube.create(REVIEWS, review) == review
    assert seen == [("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "somebody")]
