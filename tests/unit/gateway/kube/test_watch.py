"""The watches, on a small API server that fails: each begins again, soon, and misses nothing."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Set
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from moorage_gateway.kube.client import Kube
from moorage_gateway.kube.credentials import Connection
from moorage_gateway.kube.resources import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    INFERENCE_MODELS,
    MODEL_ALIASES,
    NODES,
    PODS,
    SECRETS,
    Resource,
)
from moorage_gateway.kube.watch import REFUSED_SECONDS, SHORT_SECONDS, Returned, watch_all
from moorage_gateway.kube.watch_health import Watched, WatchHealth
from tests.unit.common.support import until

KINDS = (INFERENCE_MODELS, MODEL_ALIASES, ENDPOINT_SLICES, PODS, SECRETS, CONFIG_MAPS, NODES)
WATCHED = [Watched(resource, None) for resource in KINDS]
SELECTORS = {PODS: {"labelSelector": "mine=yes"}}
LISTED_AGAIN_SECONDS = 10


class Server:
    """Lists nothing, and keeps watches open until a test says otherwise."""

    def __init__(self) -> None:
        self.lists: Counter[str] = Counter()
        self.open: dict[asyncio.Future[bytes], str] = {}
        self.refusals: Iterator[int] = iter(())
        self.denied: dict[str, int] = {}
        """What every list and watch of a path is answered with."""
        self.denials: Counter[str] = Counter()
        self.lists_only: set[str] = set()
        """Paths whose lists are answered even so."""
        self.items: list[dict[str, Any]] = []
        self.since: dict[str, list[str]] = defaultdict(list)
        self.selected: dict[str, set[str | None]] = defaultdict(set)
        self.changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        path = request.path
        self.selected[path].add(request.query.get("labelSelector"))
        if path in self.denied and ("watch" in request.query or path not in self.lists_only):
            self.denials[path] += 1
            self.changed.set()
            return web.json_response({"reason": "Forbidden", "message": "no"}, status=self.denied[path])
        if "watch" not in request.query:
            self.lists[path] += 1
            self.changed.set()
            items = self.items if path == PODS.path(None) else []
            return web.json_response({"kind": "List", "metadata": {"resourceVersion": "5"}, "items": items})
        self.since[path].append(request.query["resourceVersion"])
        if status := next(self.refusals, 0):
            return web.json_response({"kind": "Status", "code": status}, status=status)
        return await self.stream(request)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """A watch: silent, until a test gives it a last line."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        last: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.open[last] = request.path
        self.changed.set()
        try:
            await response.write(await last)
        finally:
            self.open.pop(last, None)
        return response

    def end_watches(self, count: int, last: bytes) -> None:
        """Some of the watches that are open end now."""
        for ending in list(self.open)[:count]:
            ending.set_result(last)

    def end(self, resource: Resource, last: bytes) -> None:
        """The watch of a kind ends now."""
        (ending,) = [ending for ending, path in self.open.items() if path == resource.path(None)]
        ending.set_result(last)

    async def until(
        self, count: int, lists: int, *, all_lists: int = 0, watches_of: tuple[Resource, int] = (PODS, 0)
    ) -> None:
        """Every kind has been listed so often, and is watched."""
        path, begun = watches_of[0].path(None), watches_of[1]

        def is_so() -> bool:
            listed = min(self.lists.values(), default=0) >= lists and self.lists.total() >= all_lists
            return len(self.open) >= count and listed and len(self.since[path]) >= begun

        await self.when(is_so)

    async def when(self, is_so: Callable[[], bool]) -> None:
        """Something is so."""
        async with asyncio.timeout(LISTED_AGAIN_SECONDS):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()


class Taken:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, str]] = []
        self.lists: list[list[str]] = []
        self.refusals: list[tuple[Watched, float]] = []

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """An event."""
        if obj["metadata"]["name"] == "poison":
            raise ValueError("a bug")
        self.events.append((kind, obj["metadata"]["name"]))

    def listed(self, one: Watched, found: Set[str]) -> None:
        """A list."""
        if one.resource is PODS:
            self.lists.append(sorted(found))

    def refused(self, one: Watched, seconds: float) -> None:
        """A refusal."""
        self.refusals.append((one, seconds))


@asynccontextmanager
async def watching(sink: Taken | None = None, health: WatchHealth | None = None) -> AsyncIterator[Server]:
    """The watches on a server of ours."""
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kube = Kube(lambda: Connection("http://{}:{}".format(*runner.addresses[0])), "tests")
    task = asyncio.create_task(watch_all(kube, WATCHED, sink or Taken(), health or WatchHealth(WATCHED), SELECTORS))
    try:
        await server.until(len(KINDS), lists=1)
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kube.close()
        await runner.cleanup()


def pod(name: str, version: int = 6) -> dict[str, Any]:
    """A pod."""
    metadata = {"name": name, "namespace": "team-a", "uid": name, "resourceVersion": str(version)}
    return {"metadata": metadata}


def line(kind: str, obj: dict[str, Any]) -> bytes:
    """An event of a watch."""
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


ERROR = b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "reason": "InternalError"}}\n'


@pytest.mark.parametrize("failing", [1, 3, len(KINDS)])
async def test_fault_06_an_error_in_a_watch_makes_it_list_again(failing: int) -> None:
    async with watching() as server:
        server.end_watches(failing, ERROR)
        await server.until(len(KINDS), lists=1, all_lists=len(KINDS) + failing)


@pytest.mark.parametrize("refusals", [[410], [410, 410, 503, 503], [503, 503, 503, 410]])
async def test_fault_07_a_watch_that_is_refused_lists_again(refusals: list[int]) -> None:
    async with watching() as server:
        server.refusals = iter(refusals)
        server.end_watches(len(KINDS), b"")
        await server.until(len(KINDS), lists=1, all_lists=len(KINDS) + len(refusals))


@pytest.mark.parametrize("told", ["status", "event"])
async def test_a_version_that_is_too_old_is_listed_again_at_once_and_after_that_with_pauses(
    told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A watch that ends so soon would wait before it goes on.
    monkeypatch.setattr("moorage_gateway.kube.watch.SHORT_SECONDS", 0.0)
    async with watching() as server:
        if told == "event":
            server.end(PODS, b"")
            await server.until(len(KINDS), lists=1, watches_of=(PODS, 2))
        server.refusals = iter([410, 410] if told == "event" else [410, 410, 410])
        server.end(PODS, ERROR if told == "event" else b"")
        await server.until(len(KINDS), lists=1, all_lists=len(KINDS) + 3)
    waits = [vars(record)["in_seconds"] for record in caplog.records if record.msg.startswith("a watch ended")]
    assert waits[0] == 0.0
    assert len(waits) == 3
    assert min(waits[1:]) > 0.1


async def test_a_watch_that_ends_goes_on_where_it_was_without_a_list() -> None:
    taken = Taken()
    async with watching(taken) as server:
        server.end(PODS, line("ADDED", pod("one", 6)) + line("BOOKMARK", {"metadata": {"resourceVersion": "9"}}))
        await server.until(len(KINDS), lists=1, watches_of=(PODS, 2))
        assert server.since[PODS.path(None)] == ["5", "9"]
        assert server.lists[PODS.path(None)] == 1
        assert taken.events == [("ADDED", "one")]


async def test_lists_and_watches_ask_for_what_is_selected_and_other_kinds_for_all() -> None:
    async with watching() as server:
        assert {path: seen for path, seen in server.selected.items() if seen != {None}} == {
            PODS.path(None): {"mine=yes"}
        }
        assert len(server.selected) == len(KINDS)


async def test_a_connection_that_breaks_in_a_line_loses_nothing() -> None:
    taken = Taken()
    async with watching(taken) as server:
        server.end(PODS, line("ADDED", pod("one", 6)) + line("ADDED", pod("two", 7))[:20])
        await server.until(len(KINDS), lists=1, watches_of=(PODS, 2))
        assert server.since[PODS.path(None)] == ["5", "6"]
        assert taken.events == [("ADDED", "one")]


async def test_a_line_that_is_none_begins_the_watch_again() -> None:
    async with watching() as server:
        server.end(PODS, b"<html>\n")
        await server.until(len(KINDS), lists=1, watches_of=(PODS, 2))
        assert server.since[PODS.path(None)] == ["5", "5"]


async def test_a_list_says_what_is_there() -> None:
    taken = Taken()
    async with watching(taken) as server:
        server.items = [pod("one"), pod("two")]
        server.end(PODS, ERROR)
        await server.until(len(KINDS), lists=1, watches_of=(PODS, 2))
        assert taken.lists == [[], ["one", "two"]]
        assert taken.events == [(None, "one"), (None, "two")]


async def test_a_bug_in_what_takes_events_in_is_told_and_does_not_end_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watching() as server:
        server.end(PODS, line("ADDED", pod("poison")))
        await server.until(len(KINDS), lists=1, watches_of=(PODS, 2))
    assert "ValueError: a bug" in caplog.text


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_end() -> None:
    async with watching() as server:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < SHORT_SECONDS:
            server.end(PODS, b"")
            asked = len(server.since[PODS.path(None)])
            await server.until(len(KINDS), lists=1, watches_of=(PODS, asked + 1))
        assert len(server.since[PODS.path(None)]) < 8


async def test_when_one_watch_gets_through_the_others_do_not_wait_any_longer() -> None:
    returned = Returned()
    waiting = [asyncio.create_task(returned.within(60)) for _ in range(3)]
    await asyncio.sleep(0)
    returned.tell()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)
    late = asyncio.create_task(returned.within(0.01))
    await late  # what was told before is no news


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """The kinds about which this was logged."""
    return [vars(record)["kind"] for record in caplog.records if record.getMessage() == text]


@pytest.mark.parametrize("status", [403, 404])
async def test_cluster_01_what_is_refused_is_tried_again_for_ever_and_told_once(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("moorage_gateway.kube.watch.REFUSED_SECONDS", 0.05)
    caplog.set_level("INFO")
    taken, health, pods = Taken(), WatchHealth(WATCHED), PODS.path(None)
    async with watching(taken, health) as server:
        server.denied[pods] = status
        server.end(PODS, b"")
        await server.when(lambda: server.denials[pods] >= 5)
        assert health.unwatched() == {Watched(PODS, None): f"{status} Forbidden"}
        # The others are watched as before.
        assert len(server.open) == len(KINDS) - 1
        assert server.lists.total() == len(KINDS)

        del server.denied[pods]
        server.items = [pod("one")]
        await server.until(len(KINDS), lists=1)
        await until(lambda: not health.unwatched())
    assert taken.lists == [[], ["one"]]
    assert said(caplog, "a kind cannot be watched; retrying") == ["Pod"]
    assert said(caplog, "a kind can be watched again") == ["Pod"]
    assert {one for one, _ in taken.refusals} == {Watched(PODS, None)}
    seconds = [told for _, told in taken.refusals]
    assert seconds == sorted(seconds)


async def test_cluster_01_what_may_be_listed_and_not_watched_is_listed_again_and_again_and_is_true(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("moorage_gateway.kube.watch.REFUSED_SECONDS", 0.05)
    taken, health, pods = Taken(), WatchHealth(WATCHED), PODS.path(None)
    async with watching(taken, health) as server:
        server.denied[pods] = 403
        server.lists_only.add(pods)
        server.end(PODS, b"")
        server.items = [pod("one")]
        await server.when(lambda: server.lists[pods] >= 4)
    assert taken.lists[1:3] == [["one"], ["one"]]
    assert taken.refusals == []
    assert list(health.unwatched()) == [Watched(PODS, None)]
    assert said(caplog, "a kind cannot be watched; retrying") == ["Pod"]


def test_cluster_01_rights_that_are_given_back_are_noticed_within_ten_seconds() -> None:
    assert REFUSED_SECONDS * 1.25 < 10
