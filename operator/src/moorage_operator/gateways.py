"""Follows what each gateway tells of the use of models: `GET /demand` at every address of the gateways' Service."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp
import msgspec

from moorage_common.demand import HEARTBEAT_SECONDS, LINE_BYTES, decode
from moorage_operator.store import Key
from moorage_operator.usage import Address, Usage

log = logging.getLogger(__name__)

PORT_NAME: Final = "admin"
SILENT_SECONDS: Final = 3 * HEARTBEAT_SECONDS
LAST_PAUSE: Final = 2.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=SILENT_SECONDS)


class Gateways:
    """The gateways of one Service; `changed` is given the models whose use has changed, None being all."""

    def __init__(self, usage: Usage, changed: Callable[[Iterable[Key] | None], None]) -> None:
        self._usage = usage
        self._changed = changed
        self._slices: dict[str, set[Address]] = {}
        self._followed: dict[Address, asyncio.Task[None]] = {}
        self._moved = asyncio.Event()

    def event(self, kind: str | None, obj: Mapping[str, Any]) -> None:
        """Takes in an EndpointSlice of the Service."""
        uid = obj["metadata"]["uid"]
        if kind == "DELETED":
            self._slices.pop(uid, None)
        else:
            self._slices[uid] = set(_addresses(obj))
        self._know()

    def listed(self, uids: Iterable[str]) -> None:
        """Takes in that a list of the slices is complete."""
        there = set(uids)
        self._slices = {uid: addresses for uid, addresses in self._slices.items() if uid in there}
        self._know()

    @property
    def addresses(self) -> set[Address]:
        """Where the gateways are."""
        return set().union(*self._slices.values())

    async def run(self) -> None:
        """Follows them until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session, asyncio.TaskGroup() as group:
            while True:
                self._moved.clear()
                self._follow_these(session, group)
                await self._moved.wait()

    def _know(self) -> None:
        concerned = self._usage.exist(self.addresses)
        self._moved.set()
        log.debug("gateways", extra={"gateways": sorted(f"{host}:{port}" for host, port in self.addresses)})
        # Whether anybody wakes those that sleep may be another matter now.
        self._changed(None)
        self._changed(concerned)

    def _follow_these(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        there = self.addresses
        for address in self._followed.keys() - there:
            self._followed.pop(address).cancel()
        for address in there - self._followed.keys():
            self._followed[address] = group.create_task(self._follow(session, address))

    async def _follow(self, session: aiohttp.ClientSession, address: Address) -> None:
        extra = {"gateway": f"{address[0]}:{address[1]}"}
        pause, told = 0.1, False
        while True:
            try:
                async for line in self._lines(session, address):
                    pause, told = 0.1, False
                    news = decode(line)
                    concerned = self._usage.told(address, news)
                    # With the first line of one that was away, more may be known of all models.
                    self._changed(None if news.gateway else concerned)
                why = "it ended"
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, msgspec.MsgspecError) as error:
                why = f"{type(error).__name__}: {error}"
            if (lost := self._usage.lost(address)) or not told:
                # Once for each time that it is away: what it does not tell keeps models from being put to sleep.
                log.info("a gateway does not tell the use of models", extra={**extra, "why": why[:300]})
                told = True
            self._changed(lost)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter is no secret
            pause = min(LAST_PAUSE, pause * 2)

    async def _lines(self, session: aiohttp.ClientSession, address: Address) -> AsyncIterator[bytes]:
        host, port = address
        url = f"http://[{host}]:{port}/demand" if ":" in host else f"http://{host}:{port}/demand"
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"it answers {response.status}")
            rest = b""
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > LINE_BYTES:
                    raise ValueError("a line is too long")
                for line in lines:
                    yield line


def _addresses(obj: Mapping[str, Any]) -> list[Address]:
    """All addresses of a slice, ready or not: one that ends still has requests, and one that begins will."""
    ports = [port.get("port") for port in obj.get("ports") or () if port.get("name") == PORT_NAME]
    return [
        (address, port)
        for endpoint in obj.get("endpoints") or ()
        for address in endpoint["addresses"][:1]
        for port in ports
        if port
    ]
