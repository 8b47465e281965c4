"""The requests of the client: where they go, and under which name."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
from aiohttp import web

from moorage_gateway.kube.client import STRICT, Kube
from moorage_gateway.kube.credentials import Connection
from moorage_gateway.kube.errors import ApiError, InvalidError, UnauthorizedError
from moorage_gateway.kube.resources import PODS, Resource

REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Kube, list[tuple[str, str, str | None]]]]:
    """A client, and the method, path and user agent of each request that it makes; the server says what it is told."""
    seen: list[tuple[str, str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, request.headers.get("User-Agent")))
        return web.Response(body=await request.read(), content_type="application/json")

    async with serving(answer) as address:
        kube = Kube(lambda: Connection(address), "somebody")
        try:
            yield kube, seen
        finally:
            await kube.close()


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """An API server that answers so; its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


def pod(**fields: Any) -> dict[str, Any]:
    """A pod."""
    return {"kind": "Pod", "metadata": {"name": "one", "namespace": "team-a"}, **fields}


async def test_objects_are_written_where_their_namespace_and_name_say() -> None:
    async with echoing() as (kube, seen):
        assert await kube.create(PODS, pod()) == pod()
        assert await kube.replace(PODS, pod(spec={})) == pod(spec={})
    pods, one = "/api/v1/namespaces/team-a/pods", "/api/v1/namespaces/team-a/pods/one"
    assert seen == [
        ("POST", pods, "somebody"),
        ("PUT", one, "somebody"),
    ]


async def test_what_has_no_namespace_is_created_without_metadata() -> None:
    async with echoing() as (kube, seen):
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "secret"}}
        assert await kube.create(REVIEWS, review) == review
    assert seen == [("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "somebody")]


async def test_whoever_acts_for_somebody_else_has_their_credentials_and_never_ours() -> None:
    seen: list[tuple[str | None, str | None]] = []
    logins: list[None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Authorization"), request.headers.get("Impersonate-User")))
        status = 401 if request.headers.get("Authorization") == "Bearer theirs" else 200
        response = web.json_response({"reason": "Unauthorized", "message": "no"}, status=status)
        response.set_cookie("session", "of-the-first")
        assert not request.cookies
        return response

    async with serving(answer) as address:

        def login() -> Connection:
            logins.append(None)
            return Connection(address, token="ours")

        kube = Kube(login, "somebody")
        theirs = kube.acting({"Authorization": "Bearer theirs"})
        with pytest.raises(UnauthorizedError):
            await theirs.get(PODS, "a", "b")
        await kube.acting({"Impersonate-User": "u"}).get(PODS, "a", "b")
        await kube.get(PODS, "a", "b")
        await kube.close()
    assert seen == [("Bearer theirs", None), (None, "u"), ("Bearer ours", None)]
    # That their token is none is no reason to read ours again.
    assert len(logins) == 1


async def test_a_refusal_says_which_fields_are_wrong() -> None:
    causes = [{"field": "spec.priority", "message": "too much"}, {}]

    async def answer(_: web.Request) -> web.Response:
        told = {"reason": "Invalid", "message": "is invalid", "details": {"causes": causes}}
        return web.json_response(told, status=422)

    async with serving(answer) as address:
        kube = Kube(lambda: Connection(address), "somebody")
        with pytest.raises(InvalidError) as error:
            await kube.get(PODS, "a", "b")
        await kube.close()
    assert error.value.causes == (("spec.priority", "too much"), ("", ""))


async def test_deletes_patches_and_pages_say_what_they_mean() -> None:
    async with echoing() as (kube, seen):
        body = await kube.delete(PODS, "team-a", "one", version="7")
        assert body == {"propagationPolicy": "Background", "preconditions": {"resourceVersion": "7"}}
        assert await kube.delete(PODS, "team-a", "one") == {"propagationPolicy": "Background"}
        assert await kube.merge(PODS, "team-a", "one", {"spec": {"x": None}}) == {"spec": {"x": None}}
        await kube.create(PODS, pod(), STRICT)
        with suppress(msgspec.DecodeError):
            await kube.page(PODS, "team-a", limit=2, token="t")
    pods, one = "/api/v1/namespaces/team-a/pods", "/api/v1/namespaces/team-a/pods/one"
    assert [(method, path) for method, path, _ in seen] == [
        ("DELETE", one),
        ("DELETE", one),
        ("PATCH", f"{one}?fieldManager=somebody&fieldValidation=Strict"),
        ("POST", f"{pods}?fieldValidation=Strict"),
        ("GET", f"{pods}?limit=2&continue=t"),
    ]


async def test_a_log_comes_as_it_is_made_and_its_refusal_is_an_error() -> None:
    more = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "previous" in request.query:
            return web.json_response({"reason": "BadRequest", "message": "no previous container"}, status=400)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one\n")
        await more.wait()
        await response.write(b"two\n")
        return response

    async with serving(answer) as address:
        kube = Kube(lambda: Connection(address), "somebody")
        log = kube.logs("team-a", "one", {"follow": "true"})
        assert await anext(log) == b"one\n"
        more.set()
        assert [piece async for piece in log] == [b"two\n"]
        with pytest.raises(ApiError, match="no previous"):
            await anext(kube.logs("team-a", "one", {"previous": "true"}))
        await kube.close()
