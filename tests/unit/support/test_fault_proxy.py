"""The fault proxy, before a small server: what goes through, and what becomes of what does not."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.fault_proxy import (
    WRITES,
    Action,
    FaultProxy,
    Rule,
    answer,
    black_hole,
    call_of,
    delay,
    drop,
    forward,
    lose_answer,
    stale_list,
    truncate,
)

PODS = "/api/v1/namespaces/team-a/pods"
BODY = "x" * 1000


class Bed:
    """A server that knows what reached it, the proxy before it, and a client."""

    def __init__(self, proxy: FaultProxy, http: aiohttp.ClientSession) -> None:
        self.proxy, self.http = proxy, http
        self.reached: list[web.BaseRequest] = []
        self.events: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer at once, or pass events on."""
        self.reached.append(request)
        if "watch" not in request.query:
            return web.json_response({"content": BODY})
        response = web.StreamResponse()
        await response.prepare(request)
        while line := await self.events.get():
            await response.write(line)
        return response

    async def patch(self, name: str = "tiny") -> int:
        """The status of a write's answer."""
        async with self.http.patch(f"{self.proxy.url}{PODS}/{name}", data=b"{}") as response:
            await response.read()
            return response.status

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[aiohttp.StreamReader]:
        """The lines of a watch that has said its first."""
        async with self.http.get(f"{self.proxy.url}{PODS}", params={"watch": "true"}) as response:
            self.events.put_nowait(b'{"type":"ADDED"}\n')
            assert await response.content.readline() == b'{"type":"ADDED"}\n'
            yield response.content


@asynccontextmanager
async def running() -> AsyncIterator[Bed]:
    beds: list[Bed] = []
    server = web.Server(lambda request: beds[0].serve(request), handler_cancellation=True)  # noqa: PLW0108 - made later
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream = "http://{}:{}".format(*runner.addresses[0])
    try:
        async with aiohttp.ClientSession() as http:
            with FaultProxy(upstream, ssl.create_default_context()) as proxy:
                beds.append(Bed(proxy, http))
                yield beds[0]
                beds[0].events.put_nowait(b"")
    finally:
        await runner.cleanup()


def test_a_request_is_read_in_the_words_of_the_api() -> None:
    said = [
        str(call_of("GET", PODS)),
        str(call_of("GET", f"{PODS}/a")),
        str(call_of("GET", "/apis/apps/v1/deployments", watch=True)),
        str(call_of("PUT", "/apis/coordination.k8s.io/v1/namespaces/x/leases/y")),
        str(call_of("PATCH", "/apis/moorage.dev/v1alpha1/namespaces/x/inferencemodels/y/status")),
        str(call_of("DELETE", "/api/v1/namespaces/x")),
        str(call_of("GET", "/version")),
    ]
    assert said == [
        "list team-a/pods",
        "get team-a/pods/a",
        "watch deployments",
        "update x/leases/y",
        "patch x/inferencemodels/y/status",
        "delete namespaces/x",
        "list ",
    ]


async def test_without_a_rule_everything_goes_through_with_its_credentials() -> None:
    async with running() as bed:
        headers = {"Authorization": "Bearer secret"}
        async with bed.http.get(f"{bed.proxy.url}{PODS}?a=b%20c", headers=headers) as response:
            assert await response.json() == {"content": BODY}
        (request,) = bed.reached
        assert (request.headers["Authorization"], dict(request.query)) == ("Bearer secret", {"a": "b c"})
        assert [(call.verb, call.token) for call in bed.proxy.calls()] == [("list", "secret")]


async def test_an_answer_of_its_own_says_when_to_come_again() -> None:
    async with running() as bed:
        bed.proxy.add(Rule(answer(429, "TooManyRequests", retry_after=7), verbs=WRITES))
        async with bed.http.patch(f"{bed.proxy.url}{PODS}/tiny", data=b"{}") as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "7")
            assert (await response.json())["reason"] == "TooManyRequests"
        assert bed.reached == []


@pytest.mark.parametrize(("action", "reached"), [(drop, 0), (lose_answer, 1)])
async def test_a_connection_breaks_before_or_after_the_deed(action: Any, reached: int) -> None:
    called: list[bool] = []
    async with running() as bed:
        bed.proxy.add(Rule(action(then=lambda: called.append(True))))
        with pytest.raises(aiohttp.ClientConnectionError):
            await bed.patch()
        assert len(bed.reached) == reached
        assert called == [True]


async def test_an_answer_that_is_cut_off() -> None:
    async with running() as bed:
        bed.proxy.add(Rule(truncate(20)))
        async with bed.http.get(f"{bed.proxy.url}{PODS}") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_rules_choose_by_name_and_number_and_the_first_acts() -> None:
    async with running() as bed:
        second = bed.proxy.add(Rule(answer(500, "x"), verbs=["patch"], name="tiny", nth=2))
        bed.proxy.add(Rule(answer(409, "x"), resources=["pods"], name="other", times=1))
        assert [await bed.patch() for _ in range(3)] == [200, 500, 200]
        assert [await bed.patch("other") for _ in range(2)] == [409, 200]
        assert second.hit.is_set()
        assert [str(call) for call in second.calls] == ["patch team-a/pods/tiny"]
        bed.proxy.clear()
        assert await bed.patch() == 200


@pytest.mark.parametrize("action", [forward(), delay(0.01)])
async def test_a_rule_may_only_count_or_wait(action: Action) -> None:
    async with running() as bed:
        counted = bed.proxy.add(Rule(action))
        assert await bed.patch() == 200
        assert len(counted.calls) == len(bed.reached) == 1


async def test_a_list_of_the_past_is_asked_for() -> None:
    async with running() as bed:
        bed.proxy.add(Rule(stale_list("42"), verbs=["list"]))
        async with bed.http.get(f"{bed.proxy.url}{PODS}?limit=5") as response:
            assert response.status == 200
        asked = {"limit": "5", "resourceVersion": "42", "resourceVersionMatch": "Exact"}
        assert dict(bed.reached[0].query) == asked


async def test_a_watch_falls_silent_with_its_connection_open() -> None:
    async with running() as bed, bed.watch() as lines:
        assert bed.proxy.silence("deployments") == 0
        assert bed.proxy.silence("pods") == 1
        bed.events.put_nowait(b'{"type":"MODIFIED"}\n')
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await lines.readline()


async def test_a_watch_ends_with_an_error() -> None:
    async with running() as bed, bed.watch() as lines:
        assert bed.proxy.fail_watches(410, "Expired") == 1
        event = json.loads(await lines.readline())
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert await lines.readline() == b""
        assert bed.proxy.expired == 0, "the server itself has not said so"


async def test_a_watch_is_cut() -> None:
    async with running() as bed, bed.watch() as lines:
        assert bed.proxy.cut() == 1
        with pytest.raises(aiohttp.ClientError):
            await lines.readline()


async def test_a_watch_that_is_never_answered() -> None:
    async with running() as bed:
        bed.proxy.add(Rule(black_hole(), verbs=["watch"]))
        async with bed.http.get(f"{bed.proxy.url}{PODS}", params={"watch": "true"}) as response:
            assert response.status == 200
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await response.content.readline()


async def test_a_server_that_is_away_looks_so() -> None:
    with FaultProxy("http://127.0.0.1:1", ssl.create_default_context()) as proxy:
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientConnectionError):
                await http.get(f"{proxy.url}{PODS}")
