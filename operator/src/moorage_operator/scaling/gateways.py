"""Follows the use of models that each gateway reports: `GET /demand` at every address of the gateways' Service.

A gateway requires a token for its audience and a permission. One that refuses is retried with a longer backoff than one
that is unreachable, since its configuration has to be corrected.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from moorage_common.demand import HEARTBEAT_SECONDS, LINE_BYTES, decode
from moorage_operator.api.key import Key
from moorage_operator.metrics import GATEWAYS
from moorage_operator.scaling.usage import Address, Usage

log = logging.getLogger(__name__)

PORT_NAME: Final = "admin"
SILENT_SECONDS: Final = 3 * HEARTBEAT_SECONDS
FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 2.0
LAST_REFUSED_PAUSE: Final = 10.0
CONNECTED: Final = "connected"
REFUSED: Final = "refused"
UNREACHABLE: Final = "unreachable"
_REFUSALS: Final = {
    401: "the token is not valid for its audience (MOORAGE_GATEWAY_TOKEN_FILE)",
    403: "RBAC does not allow the operator to `get` the non-resource URL /demand",
}
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=SILENT_SECONDS)


class _RefusedError(Exception):
    """A gateway refuses the operator."""


class Gateways:
    """The gateways of one Service; `changed` is called with the models whose use has changed, None being all.

    `token_file` has the token for them; empty: none.
    """

    def __init__(self, usage: Usage, changed: Callable[[Iterable[Key] | None], None], token_file: str = "") -> None:
        self._usage = usage
        self._changed = changed
        self._token_file = token_file
        self._states: dict[Address, str] = {}
        self._slices: dict[str, set[Address]] = {}
        self._followed: dict[Address, asyncio.Task[None]] = {}
        self._addresses_changed = asyncio.Event()

    def event(self, kind: str | None, obj: Mapping[str, Any]) -> None:
        """Takes in an EndpointSlice of the Service."""
        uid = obj["metadata"]["uid"]
        if kind == "DELETED":
            self._slices.pop(uid, None)
        else:
            self._slices[uid] = set(_addresses(obj))
        self._update_addresses()

    def listed(self, uids: Iterable[str]) -> None:
        """Takes in that a list of the slices is complete."""
        there = set(uids)
        self._slices = {uid: addresses for uid, addresses in self._slices.items() if uid in there}
        self._update_addresses()

    @property
    def addresses(self) -> set[Address]:
        """Where the gateways are."""
        return set().union(*self._slices.values())

    async def run(self) -> None:
        """Follows them until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session, asyncio.TaskGroup() as group:
            while True:
                self._addresses_changed.clear()
                self._follow_these(session, group)
                await self._addresses_changed.wait()

    def _update_addresses(self) -> None:
        concerned = self._usage.set_addresses(self.addresses)
        self._addresses_changed.set()
        log.debug("gateways", extra={"gateways": sorted(f"{host}:{port}" for host, port in self.addresses)})
        # Whether sleeping models can be woken may have changed.
        self._changed(None)
        self._changed(concerned)

    def _follow_these(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        there = self.addresses
        for address in self._followed.keys() - there:
            self._followed.pop(address).cancel()
            self._states.pop(address, None)
            self._count()
        for address in there - self._followed.keys():
            self._set_state(address, UNREACHABLE)
            self._followed[address] = group.create_task(self._follow(session, address))

    async def _follow(self, session: aiohttp.ClientSession, address: Address) -> None:
        extra = {"gateway": f"{address[0]}:{address[1]}"}
        pause, logged = FIRST_PAUSE, ""
        while True:
            state = UNREACHABLE
            try:
                async for line in self._lines(session, address):
                    pause, logged = FIRST_PAUSE, ""
                    self._set_state(address, CONNECTED)
                    news = decode(line)
                    concerned = self._usage.update(address, news)
                    # The first line after a reconnect may change what is known of all models.
                    self._changed(None if news.gateway else concerned)
                why = "connection closed"
            except _RefusedError as refusal:
                state, why = REFUSED, str(refusal)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, msgspec.MsgspecError) as error:
                why = f"{type(error).__name__}: {error}"
            self._set_state(address, state)
            if (lost := self._usage.lost(address)) or logged != state:
                # Once per interruption: what it does not report keeps models from being scaled to zero.
                level = logging.WARNING if state == REFUSED else logging.INFO
                log.log(level, "a gateway does not report the use of models", extra={**extra, "why": why[:300]})
                logged = state
            # A gateway that refuses cannot wake sleeping models.
            self._changed(None if state == REFUSED and self._usage.refused(address) else lost)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter is no secret
            pause = min(LAST_REFUSED_PAUSE if state == REFUSED else LAST_PAUSE, pause * 2)

    def _set_state(self, address: Address, state: str) -> None:
        if self._states.get(address) != state:
            self._states[address] = state
            self._count()

    def _count(self) -> None:
        states = list(self._states.values())
        for state in (CONNECTED, REFUSED, UNREACHABLE):
            GATEWAYS.labels(state).set(states.count(state))

    def _headers(self) -> dict[str, str]:
        if not self._token_file:
            return {}
        token = Path(self._token_file).read_text(encoding="ascii").strip()
        if not token:
            raise ValueError(f"{self._token_file} has no token")
        return {"Authorization": f"Bearer {token}"}

    async def _lines(self, session: aiohttp.ClientSession, address: Address) -> AsyncIterator[bytes]:
        host, port = address
        url = f"http://[{host}]:{port}/demand" if ":" in host else f"http://{host}:{port}/demand"
        async with session.get(url, headers=self._headers(), allow_redirects=False) as response:
            if response.status in _REFUSALS:
                raise _RefusedError(f"HTTP status {response.status}: {_REFUSALS[response.status]}")
            if response.status != 200:
                raise ValueError(f"HTTP status {response.status}")
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
