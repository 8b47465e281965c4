"""An API server on the loopback that answers what a test tells it to, for the operator's real HTTP clients."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

Answer = Callable[[web.Request], web.StreamResponse]


def status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    """A refusal, as the API server words it."""
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(
        body, status=code, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


class ApiServer:
    """Answers with the first of `answers`, the last one again and again; `requests` are those that came."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[web.Request] = []
        self.bodies: list[Any] = []
        self.url = ""

    def answer(self, *bodies: dict[str, Any] | web.Response) -> None:
        """Answer with these from now on."""
        self.answers = [_answer(body) for body in bodies]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(request)


def _answer(body: dict[str, Any] | web.Response) -> Answer:
    if isinstance(body, web.Response):
        text, code, headers = body.body, body.status, dict(body.headers)
        return lambda _request: web.Response(body=text, status=code, headers=headers)
    return lambda _request: web.json_response(body)


@asynccontextmanager
async def api_server() -> AsyncIterator[ApiServer]:
    """The server, for as long as the block lasts."""
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server._handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield server
    finally:
        await runner.cleanup()


def kubeconfig(path: Path, url: str, **user: Any) -> Path:
    """A kubeconfig for `url` with one user."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path
