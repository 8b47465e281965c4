"""The management API as a server, against an API server that says what a test wants."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from aiohttp import web

from moorage_gateway.kube.credentials import Connection, CredentialsError
from moorage_gateway.manage.app import build_app
from tests.unit.common.support import until

ONE = "/api/models/team-a/tiny"
MODEL: dict[str, Any] = {
    "metadata": {
        "name": "tiny",
        "namespace": "team-a",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {"framework": "llamacpp"},
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """An API server: what it is asked for in `paths` it answers so, reviews with yes."""

    paths: dict[str, Answer] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    allowed: bool = True
    name: str = "jane"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path, dict(request.headers)))
        if request.path.endswith("/selfsubjectreviews"):
            return web.json_response({"status": {"userInfo": {"username": self.name}}}, status=201)
        if request.path.endswith("/selfsubjectaccessreviews"):
            return web.json_response({"status": {"allowed": self.allowed}}, status=201)
        for end, answer in self.paths.items():
            if request.path.endswith(end):
                return await answer(request)
        return web.json_response({"reason": "NotFound", "message": f"{request.path} not found"}, status=404)


def nobody() -> Connection:
    raise CredentialsError("none")


@asynccontextmanager
async def api(
    folder: Path, server: Server, own: Callable[[], Connection] = nobody, namespaces: tuple[str | None, ...] = (None,)
) -> AsyncIterator[httpx.AsyncClient]:
    """The management API at a unix socket, and somebody who has a token."""
    backend = web.Application()
    backend.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(backend, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = "http://{}:{}".format(*runner.addresses[0])
    app = build_app(lambda: Connection(address), own, namespaces)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "s"))
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, log_config=None, http="httptools", ws="none"))
    with listener:
        task = asyncio.create_task(uvicorn_server._serve(sockets=[listener]))  # without its signal handlers
        await until(lambda: uvicorn_server.started)
        transport = httpx.AsyncHTTPTransport(uds=str(folder / "s"))
        headers = {"Authorization": "Bearer theirs"}
        async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
            yield client
        uvicorn_server.should_exit = True
        await task
    await runner.cleanup()


async def tell(content: Any, status: int = 200) -> web.Response:
    return web.json_response(content, status=status)


async def test_a_log_is_followed_while_it_is_silent_and_let_go_with_the_client(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def log(request: web.Request) -> web.StreamResponse:
        assert dict(request.query) == {"container": "runtime", "tailLines": "100", "follow": "true"}
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one\n")
        try:
            # That its client has left, aiohttp tells in no other way.
            while not request.transport.is_closing():  # type: ignore[union-attr]  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            gone.set()
        return response

    pod = {"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}}
    server = Server({"/tiny": lambda _: tell(MODEL), "/pods": lambda _: tell({"items": [pod]}), "/log": log})
    async with api(tmp_path, server) as client:
        async with client.stream("GET", f"{ONE}/logs?follow=true") as answer:
            assert answer.status_code == 200
            assert await anext(answer.aiter_lines()) == "one"
        async with asyncio.timeout(10):
            await gone.wait()


async def test_bad_input_58_no_name_of_a_user_is_an_order_to_the_data_plane(tmp_path: Path) -> None:
    server = Server(name="jane\r\nX-Moorage-Go-On: team-b/secret\u2028")
    async with api(tmp_path, server) as client:
        order = await client.post(f"{ONE}/generate", json={"prompt": "Hi"})
        assert order.headers.get_list("x-moorage-go-on") == ["team-a/tiny"]
        assert order.headers["x-moorage-caller"] == "jane??X-Moorage-Go-On:?team-b/secret?"


async def test_what_may_be_generated_is_an_order_to_the_data_plane(tmp_path: Path) -> None:
    server = Server()
    body = {"prompt": "Hi", "max_tokens": 4, "temperature": 0}
    async with api(tmp_path, server) as client:
        order = await client.post(f"{ONE}/generate", json=body)
        assert order.status_code == 200
        assert (order.headers["x-moorage-go-on"], order.headers["x-moorage-caller"]) == ("team-a/tiny", "jane")
        assert order.json() == body
        server.allowed = False
        refused = await client.post(f"{ONE}/generate", json=body)
        assert (refused.status_code, "x-moorage-go-on" in refused.headers) == (403, False)
        for wrong in ({}, {"prompt": 1}, {**body, "n": 3}, {**body, "max_tokens": 0}, {**body, "temperature": 3}):
            assert (await client.post(f"{ONE}/generate", json=wrong)).status_code == 422


async def test_the_callers_token_is_used_for_all_and_nothing_else_of_them_goes_on(tmp_path: Path) -> None:
    server = Server({"/tiny": lambda _: tell(MODEL)})
    async with api(tmp_path, server) as client:
        await client.get(ONE, headers={"Impersonate-User": "admin", "Cookie": "a=b"})
        await client.post(f"{ONE}/stop")
    assert {headers["Authorization"] for _, _, headers in server.seen} == {"Bearer theirs"}
    assert not [headers for _, _, headers in server.seen if "Impersonate-User" in headers or "Cookie" in headers]
    assert ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews") in {(seen[0], seen[1]) for seen in server.seen}


async def test_the_holder_of_a_key_is_impersonated_with_our_token(tmp_path: Path) -> None:
    server = Server({"/tiny": lambda _: tell(MODEL)})

    def own() -> Connection:
        return Connection("http://x", token="ours")

    async with api(tmp_path, server, own) as client:
        assert (await client.get(ONE, headers={"X-Moorage-Key": "ci"})).status_code == 200
    ((_, _, headers),) = server.seen
    told = (headers["Authorization"], headers["Impersonate-User"], headers["Impersonate-Group"])
    assert told == ("Bearer ours", "moorage:key:ci", "moorage:keys")


@pytest.mark.parametrize("own", [nobody, lambda: Connection("http://x")])
async def test_without_a_token_of_ours_no_key_manages(tmp_path: Path, own: Callable[[], Connection]) -> None:
    server = Server()
    async with api(tmp_path, server, own) as client:
        assert (await client.get(ONE, headers={"X-Moorage-Key": "ci"})).status_code == 503
    assert server.seen == []


@pytest.mark.parametrize(
    ("status", "content", "told", "code"),
    [
        (403, {"reason": "Forbidden", "message": "jane may not"}, 403, "forbidden"),
        (401, {"reason": "Unauthorized", "message": "x"}, 401, "invalid_token"),
        (429, {"reason": "TooManyRequests", "message": "slowly"}, 429, "toomanyrequests"),
        (500, {"reason": "InternalError", "message": "etcd at 10 dot 0"}, 503, "api_unavailable"),
        (418, {}, 418, "refused"),
    ],
)
async def test_what_the_api_server_refuses_is_told_with_its_status(
    tmp_path: Path, status: int, content: dict[str, str], told: int, code: str
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response(content, status=status, headers={"Retry-After": "7"})

    async with api(tmp_path, Server({"/tiny": refuse})) as client:
        answer = await client.get(ONE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (told, code)
    # Where it says when to come back, that is told; what is inside of it is nobody's business.
    assert answer.headers.get("retry-after") == ("7" if told in {429, 503} else None)
    assert "etcd" not in answer.text


async def test_a_fault_of_ours_shows_nothing_of_us(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with api(tmp_path, Server({"/tiny": lambda _: tell({"kind": "nonsense"})})) as client:
        answer = await client.get(ONE)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "The server failed to handle the request."
    assert "Traceback" not in answer.text
    assert "KeyError" in caplog.text


async def test_namespaces_that_are_not_served_are_not_there(tmp_path: Path) -> None:
    server = Server({"/tiny": lambda _: tell(MODEL)})
    async with api(tmp_path, server, namespaces=("team-a",)) as client:
        assert (await client.get(ONE)).status_code == 200
        for method, path in (("GET", "/api/models/kube-system/x"), ("GET", "/api/models?namespace=kube-system")):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "namespace_not_served")
        body = {"name": "x", "namespace": "kube-system", "spec": {}}
        assert (await client.post("/api/models", json=body)).status_code == 404
    assert [path for _, path, _ in server.seen if "kube-system" in path] == []


async def test_cluster_01_a_namespace_that_is_refused_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    async def models(request: web.Request) -> web.Response:
        if "/namespaces/team-b/" in request.path:
            return web.json_response({"reason": "Forbidden", "message": "no"}, status=403)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [MODEL]})

    async def none(request: web.Request) -> web.Response:
        answer = await models(request)
        return answer if answer.status == 403 else web.json_response({"metadata": {}, "items": []})

    async def one(_: web.Request) -> web.Response:
        return web.json_response(MODEL)

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"gitVersion": "v1.36"})

    paths: dict[str, Answer] = {"/inferencemodels": models, "/modelaliases": none, "/tiny": one, "/version": version}
    async with api(tmp_path, Server(paths), namespaces=("team-a", "team-b")) as client:
        assert [found["id"] for found in (await client.get("/api/models")).json()["models"]] == ["team-a/tiny"]
        assert (await client.get("/api/models/tiny")).json()["id"] == "team-a/tiny"
        status = (await client.get("/api/system/status")).json()
        assert (status["models"]["total"], len(status["refused"])) == (1, 1)
        export = await client.get("/api/export")
        # A backup says what it lacks.
        assert export.text.startswith("# inferencemodels of namespace team-b are missing: 403 Forbidden\n")
        assert [found["metadata"]["name"] for found in yaml.safe_load_all(export.text) if found] == ["tiny"]
        assert (await client.get("/api/export?namespace=team-b")).status_code == 403
