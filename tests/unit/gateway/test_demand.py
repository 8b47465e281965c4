"""What operators are told of the use of models: everything first, then what changes, soon and seldom."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from moorage_common.demand import News, Use, decode
from moorage_common.http.connections import Connections
from moorage_common.http.handler import Running
from moorage_common.http.message import Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection
from moorage_gateway.demand import MOST_FOLLOWERS, Demand
from moorage_gateway.hold import HoldLimits, Lobby, Room, State
from moorage_gateway.routing import ModelKey, Table
from tests.unit.common.support import Client, get, until
from tests.unit.gateway.support import begun

TINY = ModelKey("team-a", "tiny")
SCALED = State(waits=True, scaled=True)


class Waiter:
    """A request that waits."""

    priority = 5
    size = 10
    begun = 0.0

    def __init__(self) -> None:
        self.begun = asyncio.get_running_loop().time()

    def release(self) -> None:
        """Go."""

    def refuse(self, answer: object) -> None:
        """Give up."""

    def comfort(self, why: str) -> None:
        """Wait on."""


@dataclass
class Bed:
    """A gateway's administrative port and its table."""

    port: int
    table: Table
    demand: Demand
    stack: AsyncExitStack

    def room(self, key: ModelKey = TINY) -> Room:
        model = self.table.get(key)
        assert model is not None
        assert model.room is not None
        return model.room

    async def follow(self) -> Client:
        client = await self.stack.enter_async_context(begun(self.port, get("/demand")))
        assert (await client.head()).headers["content-type"] == "application/x-ndjson"
        return client


@asynccontextmanager
async def running() -> AsyncIterator[Bed]:
    demand, connections = Demand(), Connections()
    table = Table(Lobby(HoldLimits(), demand.changed))
    table.put(TINY, "tiny", state=SCALED)

    def answer(request: Request, responder: Responder) -> Running | None:
        return demand.follow(responder)

    server = await asyncio.get_running_loop().create_server(
        lambda: ServerConnection(answer, limits=Limits(), connections=connections, is_draining=lambda: False),
        "127.0.0.1",
        0,
    )
    async with AsyncExitStack() as stack:
        yield Bed(server.sockets[0].getsockname()[1], table, demand, stack)
    server.close()
    demand.end()
    await connections.end()


async def line(client: Client, seconds: float = 5) -> News:
    """The next line."""
    async with asyncio.timeout(seconds):
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        return decode((await client.reader.readexactly(size + 2))[:-2])


async def told(client: Client, name: str = "team-a/tiny") -> Use | None:
    """What is said of a model next."""
    while True:
        news = await line(client)
        if name in news.models:
            return news.models[name]


async def test_the_first_line_has_everything_that_may_be_scaled_and_nothing_else() -> None:
    async with running() as bed:
        bed.table.put(ModelKey("team-a", "fixed"), "fixed", state=State(waits=True))
        bed.room().began(0.0)
        first = await line(await bed.follow())
        assert first.gateway
        assert [*first.models] == ["team-a/tiny"]
        use = first.models["team-a/tiny"]
        assert use is not None
        assert (use.in_flight, use.held) == (1, 0)
        assert use.idle is not None
        assert (await line(await bed.follow())).gateway == first.gateway


async def test_a_model_that_was_never_used_says_so() -> None:
    async with running() as bed:
        assert (await line(await bed.follow())).models == {"team-a/tiny": Use()}


async def test_that_somebody_waits_is_told_at_once_and_the_rest_soon() -> None:
    async with running() as bed:
        client, loop = await bed.follow(), asyncio.get_running_loop()
        await line(client)
        await asyncio.sleep(0.2)
        began = loop.time()
        bed.room().admit(Waiter())
        use = await told(client)
        assert use is not None
        assert (use.in_flight, use.held) == (0, 1)
        assert loop.time() - began < 0.05
        began = loop.time()
        bed.room().began(began)
        use = await told(client)
        assert use is not None
        assert (use.in_flight, use.held) == (1, 1)
        assert loop.time() - began < 0.5


async def test_many_changes_are_one_line() -> None:
    async with running() as bed:
        client = await bed.follow()
        await line(client)
        loop = asyncio.get_running_loop()
        until_then = loop.time() + 0.5
        changes = 0
        while loop.time() < until_then:
            bed.room().began(loop.time())
            bed.room().ended(loop.time())
            changes += 1
            await asyncio.sleep(0)
        lines = 0
        bed.room().began(loop.time())
        while (use := await told(client)) is not None and not use.in_flight:
            lines += 1
        assert changes > 100
        assert lines <= 6


async def test_silence_is_broken_every_few_seconds() -> None:
    async with running() as bed:
        client = await bed.follow()
        await line(client)
        assert await line(client, seconds=4) == News()


async def test_models_that_come_and_go_are_told() -> None:
    async with running() as bed:
        client = await bed.follow()
        await line(client)
        bed.table.put(ModelKey("team-b", "new"), "new", state=SCALED)
        assert await told(client, "team-b/new") == Use()
        bed.table.put(TINY, "tiny", state=State(waits=True))
        assert await told(client) is None
        bed.table.remove(ModelKey("team-b", "new"))
        assert await told(client, "team-b/new") is None


async def test_the_last_line_says_that_it_is_the_last() -> None:
    async with running() as bed:
        client = await bed.follow()
        await line(client)
        bed.demand.end()
        assert (await line(client)).end


async def test_who_does_not_read_costs_no_memory_and_gets_the_last_state() -> None:
    async with running() as bed:
        client = await bed.follow()
        await line(client)
        (follower,) = bed.demand._followers
        follower.pause()
        for number in range(1000):
            bed.room().began(float(number))
            bed.demand._tell()
        assert len(follower._missed) == 1
        follower.resume()
        use = await told(client)
        assert use is not None
        assert use.in_flight == 1000


async def test_followers_are_bounded_and_one_that_leaves_is_forgotten() -> None:
    async with running() as bed:
        clients = [await bed.follow() for _ in range(MOST_FOLLOWERS)]
        extra = await bed.stack.enter_async_context(begun(bed.port, get("/demand")))
        assert (await extra.reply()).status == 503
        clients[0].writer.close()
        await until(lambda: len(bed.demand._followers) == MOST_FOLLOWERS - 1)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"models":[]}', b'{"models":{"a/b":{"held":"x"}}}'])
def test_lines_that_are_none_are_told_apart(content: bytes) -> None:
    with pytest.raises(Exception, match=r".+") as error:
        decode(content)
    assert type(error.value).__module__ == "msgspec"
