"""Who is let in to follow the use of models, who is refused, and that the refused take no place."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from moorage_common.http.message import Request
from moorage_common.http.responder import Responder
from moorage_gateway import demand_access
from moorage_gateway.callers import ReviewError, User
from moorage_gateway.decisions import NO_SECONDS, YES_SECONDS
from moorage_gateway.demand import MOST_FOLLOWERS, Demand
from moorage_gateway.demand_access import DemandAccess
from moorage_gateway.logins import FAILURES_A_MINUTE
from tests.unit.common.support import Client, Listening, Reply, get, listening, post, until
from tests.unit.gateway.support import KEY, begun


@dataclass
class Reviews:
    """An API server that knows the operator, and somebody else."""

    users: dict[str, User] = field(default_factory=lambda: {"good": User("operator"), "other": User("somebody")})
    allowed: set[str] = field(default_factory=lambda: {"operator"})
    asked: list[str] = field(default_factory=list)
    away: bool = False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def who(self, token: str) -> User | None:
        self._note(f"who {token}")
        await self.may_answer.wait()
        return self.users.get(token)

    async def may_get(self, user: User, path: str) -> bool:
        self._note(f"{user.name} {path}")
        await asyncio.sleep(0)
        return user.name in self.allowed

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise ReviewError("away")


@dataclass
class Bed:
    """An administrative port, and what is behind it."""

    server: Listening
    reviews: Reviews
    demand: Demand
    stack: AsyncExitStack
    now: float = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    @property
    def followers(self) -> int:
        return len(self.demand._followers)

    async def ask(self, *headers: str) -> Reply:
        return await self.server.ask(get("/demand", *headers))

    async def follow(self, whose: str = "good") -> Client:
        """Somebody who is let in."""
        client = await self.stack.enter_async_context(begun(self.server.port, get("/demand", bearer(whose))))
        assert (await client.head()).status == 200
        return client


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


@asynccontextmanager
async def running() -> AsyncIterator[Bed]:
    demand, reviews = Demand(), Reviews()
    reviews.may_answer.set()

    async def serve(request: Request, responder: Responder) -> None:
        await access.serve(request, responder, demand.follow)

    async with AsyncExitStack() as stack, listening(serve) as server:
        bed = Bed(server, reviews, demand, stack)
        access = DemandAccess(reviews, bed)
        yield bed
        demand.end()


REFUSED = [
    ((), 401),
    ((bearer("wrong"),), 401),
    (("Authorization: Basic Z29vZA==",), 401),
    ((bearer("good") + " good",), 401),
    ((bearer("good"), bearer("good")), 401),
    ((bearer(KEY),), 401),
    ((bearer("other"),), 403),
]


@pytest.mark.parametrize(("headers", "status"), REFUSED)
async def test_strangers_are_told_nothing_and_hold_no_place(headers: tuple[str, ...], status: int) -> None:
    async with running() as bed:
        answer = await bed.ask(*headers)
        assert answer.status == status
        assert answer.body == b""
        assert bed.followers == 0
        assert not [asked for asked in bed.reviews.asked if KEY in asked], "a key is shown to nobody"


async def test_refusals_in_any_number_leave_all_places_to_those_who_may() -> None:
    async with running() as bed:
        for _ in range(MOST_FOLLOWERS):
            assert (await bed.ask(bearer("other"))).status == 403
            assert (await bed.ask()).status == 401
        for _ in range(MOST_FOLLOWERS):
            await bed.follow()
        assert bed.followers == MOST_FOLLOWERS
        assert (await bed.ask(bearer("good"))).status == 503


async def test_who_is_let_in_is_told_and_leaves_a_free_place() -> None:
    async with running() as bed:
        client = await bed.follow()
        assert b'"gateway"' in await client.reader.readline() + await client.reader.readline()
        assert bed.reviews.asked == ["who good", "operator /demand"]
        client.writer.close()
        await until(lambda: bed.followers == 0)


async def test_who_leaves_before_the_answer_is_known_gets_no_place() -> None:
    async with running() as bed:
        bed.reviews.may_answer.clear()
        async with begun(bed.server.port, get("/demand", bearer("good"))):
            await until(lambda: bed.reviews.asked == ["who good"])
        await until(lambda: not bed.server.connections)
        bed.reviews.may_answer.set()
        await bed.follow()
        assert bed.followers == 1


async def test_what_the_api_server_said_holds_for_a_while() -> None:
    async with running() as bed:
        for _ in range(3):
            assert (await bed.ask(bearer("other"))).status == 403
        assert bed.reviews.asked == ["who other", "somebody /demand"]
        bed.now += NO_SECONDS + 0.1
        bed.reviews.allowed.add("somebody")
        await bed.follow("other")
        assert bed.reviews.asked[2:] == ["somebody /demand"]
        bed.now += YES_SECONDS + 0.1
        bed.reviews.allowed.clear()
        assert (await bed.ask(bearer("other"))).status == 403


async def test_many_failures_are_429_and_reach_nobody_but_a_token_that_was_good_passes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "moorage.audit")
    async with running() as bed:
        await bed.follow()
        answers = [await bed.ask(bearer(f"secret{number}")) for number in range(FAILURES_A_MINUTE + 5)]
        assert [answer.status for answer in answers] == [401] * FAILURES_A_MINUTE + [429] * 5
        assert answers[-1].headers["retry-after"]
        assert answers[-1].body == b""
        assert len(bed.reviews.asked) == 2 + FAILURES_A_MINUTE
        bed.now += YES_SECONDS + 0.1
        await bed.follow()
    told = [record for record in caplog.records if record.getMessage() == "login failed"]
    assert len(told) == FAILURES_A_MINUTE + 5
    assert {record.__dict__["path"] for record in told} == {"/demand"}
    assert "secret" not in "".join(str(record.__dict__) for record in told)


async def test_when_nobody_says_who_it_is_nobody_is_let_in() -> None:
    async with running() as bed:
        bed.reviews.away = True
        answer = await bed.ask(bearer("good"))
        assert (answer.status, answer.body, answer.headers["retry-after"]) == (503, b"", "2")
        assert bed.followers == 0
        bed.reviews.away = False
        await bed.follow()


async def test_it_is_for_get_only() -> None:
    async with running() as bed:
        answer = await bed.server.ask(post(b"", bearer("good"), path="/demand"))
        assert (answer.status, answer.headers["allow"]) == (405, "get")
        assert bed.reviews.asked == []


@pytest.mark.parametrize("what", ["expired", "no right"])
async def test_who_may_no_longer_is_cut_off_and_its_stream_does_not_look_complete(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand_access, "AGAIN_SECONDS", 0.02)
    async with running() as bed:
        client = await bed.follow()
        bed.now += YES_SECONDS + 0.1
        asked = len(bed.reviews.asked)
        await until(lambda: len(bed.reviews.asked) > asked)
        bed.reviews.away = True
        bed.now += YES_SECONDS + 0.1
        asked = len(bed.reviews.asked)
        await until(lambda: len(bed.reviews.asked) > asked + 2)
        assert bed.followers == 1, "only a no ends it"
        if what == "expired":
            bed.reviews.users.clear()
        else:
            bed.reviews.allowed.clear()
        bed.reviews.away = False
        await until(lambda: bed.followers == 0)
        async with asyncio.timeout(5):
            rest = await client.reader.read()
        assert not rest.endswith(b"0\r\n\r\n")


async def test_the_end_of_the_gateway_is_told_to_who_follows() -> None:
    async with running() as bed:
        client = await bed.follow()
        bed.demand.end()
        async with asyncio.timeout(5):
            assert b'"end":true' in await client.reader.readuntil(b"0\r\n\r\n")
        assert bed.followers == 0
