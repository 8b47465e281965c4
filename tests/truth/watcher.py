"""Watches everything that the truth is made from, in a thread of its own, and tells of each new moment."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import load_kube_config
from kubernetes.aio.dynamic import DynamicClient

from tests.support.api import Api
from tests.truth.objects import Object, uid
from tests.truth.world import PATHS, SELECTED, World

GATHER_SECONDS: Final = 0.02
"""One change is many events; those that come together are looked at together."""

SHARE: Final = 0.25
"""The share of a core that looking may take: with very many models it is done less often."""

AGAIN_SECONDS: Final = 0.2
CLOSING_SECONDS: Final = 0.1
NEVER: Final = aiohttp.ClientTimeout(total=None, sock_connect=30)


class _ExpiredError(Exception):
    """The server does not know any more what has happened since."""


class Watcher:
    """`seen` is called in the watcher's thread with each new moment, and with None when it cannot be seen any more."""

    def __init__(self, api: Api, seen: Callable[[World | None], None]) -> None:
        self._api, self._seen = api, seen
        self._found: dict[str, dict[str, Object]] = {}
        self._complete = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="truth", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Returns when everything has been listed once."""
        self._thread.start()
        assert self._complete.wait(30), "not everything can be watched"

    def stop(self) -> None:
        """Ends the watches; raises what ended them before, if something did."""
        if self._loop and self._task and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)
        if self._failure:
            raise self._failure

    async def _run(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._changed = asyncio.Event()
        try:
            with suppress(asyncio.CancelledError):
                configuration = Configuration(proxy="")
                await load_kube_config(
                    str(self._api.kubeconfig), client_configuration=configuration, persist_config=False
                )
                async with ApiClient(configuration) as transport, asyncio.TaskGroup() as group:
                    for kind in PATHS:
                        group.create_task(self._follow(DynamicClient(transport), kind))
                    group.create_task(self._tell())
        except BaseException as failure:  # noqa: BLE001 - it is raised again by stop(), in the test's thread
            self._failure = failure
        finally:
            # The connections are closed by the loop's next rounds, and asyncio.run gives it none.
            await asyncio.sleep(CLOSING_SECONDS)

    async def _tell(self) -> None:
        took = 0.0
        while True:
            await self._changed.wait()
            await asyncio.sleep(max(GATHER_SECONDS, took / SHARE))
            self._changed.clear()
            began = time.thread_time()
            if len(self._found) == len(PATHS):
                self._seen(World.of({kind: list(found.values()) for kind, found in self._found.items()}))
                self._complete.set()
            took = time.thread_time() - began

    async def _follow(self, client: DynamicClient, kind: str) -> None:
        while True:
            try:
                version = await self._list(client, kind)
                await self._watch(client, kind, version)
            except (ApiException, aiohttp.ClientError, OSError, msgspec.DecodeError, _ExpiredError):
                # The API server is away: what happens meanwhile can be judged by nobody.
                self._found.pop(kind, None)
                self._seen(None)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _list(self, client: DynamicClient, kind: str) -> str:
        which = [*SELECTED.get(kind, {}).items()]
        answer = await client.request("GET", PATHS[kind], query_params=which, serialize=False, _request_timeout=30)
        page = msgspec.json.decode(await answer.read())
        self._found[kind] = {uid(obj): obj for obj in page["items"]}
        self._changed.set()
        return str(page["metadata"]["resourceVersion"])

    async def _watch(self, client: DynamicClient, kind: str, version: str) -> None:
        params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600", **SELECTED.get(kind, {})}
        options = {"query_params": [*params.items()], "serialize": False, "_request_timeout": NEVER}
        with closing(await client.request("GET", PATHS[kind], **options)) as stream:
            async for line in stream.content:
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    raise _ExpiredError(str(event["object"]))
                found = self._found[kind]
                if event["type"] == "DELETED":
                    found.pop(uid(event["object"]), None)
                else:
                    found[uid(event["object"])] = event["object"]
                self._changed.set()
