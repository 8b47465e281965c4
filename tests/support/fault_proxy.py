"""A proxy before the real API server that knows the API's words, and makes chosen requests fail in chosen ways.

    proxy.add(Rule(lose_answer(), verbs=WRITES, name="tiny", nth=3))

A rule says which requests it is about; its action says what happens to them: an answer of our own, a delay, a dropped
connection, a write whose answer is lost, half a body, a watch that says nothing, a list of the past. Watches that are
open already are silenced, cut or given an ERROR by methods. The client's Authorization goes through, so the API server
sees the client's own rights, and its audit log the client's own writes.

The proxy runs in a thread of its own; a test is plain code beside it.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

READS = frozenset({"get", "list", "watch"})
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Host", "Accept-Encoding")


@dataclass(frozen=True)
class Call:
    """One request in the API's words; `at` is the monotonic clock."""

    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    token: str
    at: float

    def __str__(self) -> str:
        return f"{self.verb} {'/'.join(filter(None, (self.namespace, self.resource, self.name, self.subresource)))}"


def call_of(method: str, path: str, *, watch: bool = False, token: str = "", at: float = 0.0) -> Call:
    """Read a request's verb and object.

    >>> str(call_of("PATCH", "/apis/apps/v1/namespaces/team-a/deployments/tiny/scale"))
    'patch team-a/deployments/tiny/scale'
    >>> str(call_of("GET", "/api/v1/pods", watch=True))
    'watch pods'
    """
    parts = [part for part in path.split("/") if part]
    parts = parts[{"api": 2, "apis": 3}.get(parts[0] if parts else "", len(parts)) :]
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource, *_ = (*parts, "", "", "")
    reading = "watch" if watch else "get" if name else "list"
    return Call(_VERBS.get(method, reading), resource, subresource, namespace, name, token, at)


class Exchange:
    """A request that waits for its fate."""

    def __init__(self, proxy: "FaultProxy", request: web.Request, call: Call, body: bytes) -> None:
        self.proxy, self.request, self.call, self.body = proxy, request, call, body

    async def forward(self, **query: str) -> web.StreamResponse:
        """Give the API server's answer; `query` replaces parameters of the request."""
        async with self._send(query) as upstream:
            if self.call.verb == "watch" and upstream.status == 200:
                return await self.proxy.relay(self, upstream)
            content = await upstream.read()
        return web.Response(status=upstream.status, headers=_passed(upstream.headers), body=content)

    async def fetch(self) -> tuple[CIMultiDict[str], bytes]:
        """Let the API server do it, and keep its answer."""
        async with self._send({}) as upstream:
            return _passed(upstream.headers), await upstream.read()

    def drop(self) -> web.StreamResponse:
        """Break the connection."""
        if self.request.transport:
            self.request.transport.abort()
        return web.Response(status=502)

    def _send(self, query: dict[str, str]) -> Any:
        url = self.request.rel_url.update_query(query) if query else self.request.rel_url
        return self.proxy.session.request(
            self.request.method,
            self.proxy.upstream + str(url),
            headers=_passed(self.request.headers),
            data=self.body or None,
        )


Action = Callable[[Exchange], Awaitable[web.StreamResponse]]


def answer(status: int, reason: str, *, retry_after: float | None = None) -> Action:
    """Answer `status` as the API server would; the request does not reach it."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        headers = {"Retry-After": f"{retry_after:g}"} if retry_after is not None else {}
        return web.json_response(_status(status, reason, f"{exchange.call} by order"), status=status, headers=headers)

    return act


def forward() -> Action:
    """Forward: the rule only counts."""
    return Exchange.forward


def delay(seconds: float) -> Action:
    """Forward after a while."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await exchange.forward()

    return act


def drop(then: Callable[[], None] = lambda: None) -> Action:
    """Break the connection before the API server gets the request; `then`, to kill the client say, is called first."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        then()
        return exchange.drop()

    return act


def lose_answer(then: Callable[[], None] = lambda: None) -> Action:
    """Let the API server do it, then break the connection instead of answering."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        await exchange.fetch()
        then()
        return exchange.drop()

    return act


def truncate(size: int) -> Action:
    """Send the first `size` bytes of the answer and break the connection."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        headers, content = await exchange.fetch()
        half = web.StreamResponse(headers={**headers, "Content-Length": str(len(content))})
        await half.prepare(exchange.request)
        await half.write(content[:size])
        exchange.drop()
        return half

    return act


def black_hole() -> Action:
    """Accept the request and say nothing, with the connection open."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        if exchange.call.verb == "watch":
            silent = web.StreamResponse(headers={"Content-Type": "application/json"})
            await silent.prepare(exchange.request)
        await asyncio.Event().wait()
        raise AssertionError

    return act


def stale_list(version: str) -> Action:
    """Answer a list as of an old resourceVersion, as an API server that lags behind does."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        if "continue" in exchange.request.query:
            return await exchange.forward()
        return await exchange.forward(resourceVersion=version, resourceVersionMatch="Exact")

    return act


@dataclass
class Rule:
    """What happens to which requests: empty fields match all, `nth` only the n-th match, `times` at most so many."""

    action: Action
    verbs: Iterable[str] = ()
    resources: Iterable[str] = ()
    namespace: str = ""
    name: str = ""
    token: str = ""
    nth: int | None = None
    times: int | None = None
    calls: list[Call] = field(default_factory=list)
    """The requests that met their fate."""
    hit: threading.Event = field(default_factory=threading.Event)
    """Set with the first of them."""
    _seen: int = 0

    def applies(self, call: Call) -> bool:
        """Whether it is for this request; counts it."""
        wanted = (
            (not self.verbs or call.verb in self.verbs)
            and (not self.resources or call.resource in self.resources)
            and all(not own or own == getattr(call, key) for key, own in self._exact().items())
        )
        if not wanted:
            return False
        self._seen += 1
        if (self.nth is not None and self._seen != self.nth) or (
            self.times is not None and len(self.calls) >= self.times
        ):
            return False
        self.calls.append(call)
        return True

    def _exact(self) -> dict[str, str]:
        return {"namespace": self.namespace, "name": self.name, "token": self.token}


class _Watch:
    """A watch that is open now."""

    def __init__(self, call: Call, request: web.Request, downstream: web.StreamResponse) -> None:
        self.call, self.request, self.downstream = call, request, downstream
        self.silent = False
        self.failure: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def relay(self, content: aiohttp.StreamReader) -> bool:
        """Pass whole lines on, so that one of ours can stand between any two; say whether the version was too old."""
        rest, expired = b"", False
        async for chunk in content.iter_any():
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            expired = expired or b'"code":410' in lines
            if newline and not self.silent:
                await self.downstream.write(lines + newline)
        if self.silent:
            await asyncio.Event().wait()
        return expired

    def cut(self) -> None:
        """Break the connection to the client."""
        if self.request.transport:
            self.request.transport.abort()

    def fail(self, code: int, reason: str) -> None:
        """Have it end with an ERROR event, as the API server ends a watch that it cannot go on with."""
        event = {"type": "ERROR", "object": _status(code, reason, f"{reason} by order")}
        self.failure.set_result(json.dumps(event).encode() + b"\n")


class FaultProxy:
    """Listens on the loopback in plain HTTP, and forwards to `upstream` by TLS; use it as a context manager."""

    def __init__(self, upstream: str, context: ssl.SSLContext) -> None:
        self.upstream = upstream.rstrip("/")
        self._context = context
        self._rules: tuple[Rule, ...] = ()
        self._watches: set[_Watch] = set()
        self._calls: list[Call] = []
        self.expired = 0
        """Watches that the API server itself ended with 410."""
        self._started: Future[str] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self.url = self._started.result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def add(self, rule: Rule) -> Rule:
        """Put a rule into force; of several that match, the one added first acts."""
        self._rules = (*self._rules, rule)
        return rule

    def clear(self) -> None:
        """Take all rules back."""
        self._rules = ()

    def calls(self, since: int = 0) -> list[Call]:
        """Every request since the `since`-th, whatever became of it."""
        return self._calls[since:]

    def position(self) -> int:
        """How many requests there have been."""
        return len(self._calls)

    def silence(self, *resources: str) -> int:
        """Let the open watches (of these resources) say nothing any more, their connections staying open."""
        return self._on_watches(resources, lambda watch: setattr(watch, "silent", True))

    def cut(self, *resources: str) -> int:
        """Break the connections of open watches."""
        return self._on_watches(resources, _Watch.cut)

    def fail_watches(self, code: int, reason: str, *resources: str) -> int:
        """Send an ERROR event into the open watches and end them."""
        return self._on_watches(resources, lambda watch: watch.fail(code, reason))

    def _on_watches(self, resources: tuple[str, ...], act: Callable[[_Watch], object]) -> int:
        async def apply() -> int:
            chosen = [watch for watch in self._watches if not resources or watch.call.resource in resources]
            for watch in chosen:
                act(watch)
            return len(chosen)

        return asyncio.run_coroutine_threadsafe(apply(), self._loop).result(10)

    async def relay(self, exchange: Exchange, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass a watch on until it ends, is ended, or the client leaves."""
        downstream = web.StreamResponse(headers=_passed(upstream.headers))
        await downstream.prepare(exchange.request)
        watch = _Watch(exchange.call, exchange.request, downstream)
        self._watches.add(watch)
        relaying = asyncio.create_task(watch.relay(upstream.content))
        try:
            ends: set[asyncio.Future[Any]] = {relaying, watch.failure}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if watch.failure.done():
                await downstream.write(watch.failure.result())
            else:
                self.expired += relaying.result()
        finally:
            self._watches.discard(watch)
            relaying.cancel()
            await asyncio.gather(relaying, return_exceptions=True)
        return downstream

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        watch = "watch" in request.query
        call = call_of(request.method, request.path, watch=watch, token=token, at=time.monotonic())
        self._calls.append(call)
        rule = next((rule for rule in self._rules if rule.applies(call)), None)
        exchange = Exchange(self, request, call, await request.read())
        try:
            if rule is None:
                return await exchange.forward()
            rule.hit.set()
            return await rule.action(exchange)
        except (aiohttp.ClientError, ConnectionError):
            # The API server is away, or has ended the connection: so does ours, at whichever end.
            return exchange.drop()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._context)
        self.session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._started.set_result("http://{}:{}".format(*runner.addresses[0][:2]))
        await self._stop.wait()
        await runner.cleanup()
        await connector.close(abort_ssl=True)
        await self.session.close()
        # asyncio takes its leave of TLS peers in the background, and tells nobody when it is done.
        await asyncio.sleep(0.1)


def _passed(headers: Any) -> CIMultiDict[str]:
    passed = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        passed.popall(name, None)
    return passed


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
