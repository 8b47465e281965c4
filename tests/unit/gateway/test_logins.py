"""Failed logins: soon 429, before the API server hears of them; a good credential of the same address always works."""

import asyncio
import json
import logging
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_gateway.access import Access, ReviewError, User, claimed_key
from moorage_gateway.callers import TokenCaller
from moorage_gateway.desk import Attempt, Desk
from moorage_gateway.gcra import PERIOD
from moorage_gateway.keys import Keys
from moorage_gateway.logins import FAILURES_A_MINUTE, Failures
from moorage_gateway.routing import ModelKey
from moorage_gateway.tokens import AT_A_TIME, GOOD_SECONDS, MOST_REMEMBERED, WAITING, YES_SECONDS, Tokens
from tests.unit.common.support import get, until
from tests.unit.gateway.support import DIGEST, KEY, MODEL, Bed, Nobody, answers, running

SOON = FAILURES_A_MINUTE


class Clock:
    """Stands until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Counted:
    """The address of a test: how often it failed, and whether it may go on."""

    failures: int = 0
    most: int = 10**9

    def check(self) -> None:
        if self.failures >= self.most:
            raise ReviewError("too many")

    def failed(self) -> None:
        self.failures += 1

    def good(self) -> None:
        self.failures -= 1


@dataclass
class Slow:
    """An API server whose answers come when a test says so."""

    users: dict[str, User] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def who(self, token: str) -> User | None:
        self.asked.append(token)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.go.wait()
        self.at_once -= 1
        return self.users.get(token)


async def login(bed: Bed, credential: str, *headers: str) -> int:
    return (await bed.gateway.ask(get("/v1/models", f"Authorization: Bearer {credential}", *headers))).status


async def test_bad_input_41_too_many_bad_tokens_are_429_and_the_api_server_is_not_asked() -> None:
    clock = Clock()
    async with running(answers(), desk=Desk(clock)) as (bed, _):
        statuses = [await login(bed, f"random{number}") for number in range(SOON + 20)]

        assert statuses == [401] * SOON + [429] * 20
        assert len(bed.reviews.asked) == SOON
        clock.now += PERIOD / SOON
        assert [await login(bed, f"later{number}") for number in range(2)] == [401, 429]


async def test_bad_input_41_too_many_bad_keys_are_429_told_in_one_way_and_the_good_one_works() -> None:
    async with running(answers(), desk=Desk(Clock())) as (bed, _):
        bad = [get("/v1/models", f"Authorization: Bearer mrg_{name}_{name}") for name in ("tester", "absent")]
        replies = [await bed.gateway.ask(bad[number % 2]) for number in range(SOON + 10)]

        assert [reply.status for reply in replies] == [401] * SOON + [429] * 10
        last = replies[-2:]
        assert len({reply.body for reply in last}) == 1  # a key that is there looks like one that is not
        assert last[0].error["code"] == "too_many_failures"
        assert int(last[0].headers["retry-after"]) >= 1
        assert await login(bed, KEY) == 200
        assert bed.reviews.asked == []


async def test_a_good_token_works_on_while_its_address_fails() -> None:
    clock = Clock()
    async with running(answers(), desk=Desk(clock)) as (bed, _):
        bed.reviews.users["good"] = User("app")
        assert await login(bed, "good") == 200
        assert [await login(bed, f"random{number}") for number in range(SOON + 1)][-1] == 429
        # When what was said of it holds no more, it is asked again although the address has failed too often.
        assert await login(bed, "good") == 200
        assert await login(bed, "never-seen") == 429


async def test_a_key_that_is_guessed_from_everywhere_is_slowed_and_works() -> None:
    desk = Desk(Clock())
    for number in range(SOON):
        desk.logins.failed(f"10.0.0.{number}", "tester")
    async with running(answers(), desk=desk) as (bed, _):
        assert await login(bed, "mrg_tester_guessed") == 429
        assert await login(bed, "mrg_other_guessed") == 401
        assert await login(bed, KEY) == 200


async def test_no_credential_is_no_failure() -> None:
    async with running(answers(), desk=Desk(Clock())) as (bed, _):
        statuses = {(await bed.gateway.ask(get("/v1/models"))).status for _ in range(SOON + 5)}
        assert statuses == {401}


async def test_failed_logins_are_audited_without_the_credential(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "moorage.audit"):
        async with running(answers(), desk=Desk(Clock())) as (bed, _):
            for credential in (
                "mrg_tester_hunter2hunter2",
                "mrg_Not.An-ID_hunter2",
                "hunter2",
                f"mrg_{'a' * 41}_hunter2",
            ):
                await login(bed, credential, "x-request-id: R1")
            await bed.gateway.ask(get("/v1/models"))
    lines = [vars(record) for record in caplog.records]
    assert [line["message"] for line in lines] == ["login failed"] * 4
    assert [(line["kind"], line.get("key")) for line in lines] == [
        *[("key", "tester"), ("key", None), ("token", None), ("key", None)],
    ]
    assert {(line["client"], line["request_id"]) for line in lines} == {("127.0.0.1", "R1")}
    assert "hunter2" not in json.dumps(lines, default=str)
    assert "a" * 41 not in json.dumps(lines, default=str)


async def test_a_flood_leaves_few_audit_lines_and_their_count(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO, "moorage.audit"):
        desk = Desk(clock)
        for number in range(1000):
            desk.audit.tell(client="10.0.0.1", key=None, request_id=str(number), refused_early=True)
        clock.now += 1
        desk.audit.tell(client="10.0.0.1", key=None, request_id="last", refused_early=True)
    assert len(caplog.records) == 301
    assert vars(caplog.records[-1])["left_out"] == 700


@settings(deadline=None)
@given(names=st.lists(st.integers(0, 50).map(str), max_size=200))
def test_what_is_remembered_of_failures_is_bounded_and_never_makes_others_wait(names: list[str]) -> None:
    failures = Failures(per_minute=5, most=10)
    counts: dict[str, int] = {}
    for name in names:
        failures.count(name, 1000.0)
        counts[name] = counts.get(name, 0) + 1
        assert len(failures) <= 10
    for name in map(str, range(51)):
        seconds = failures.wait(name, 1000.0)
        assert seconds == 0 or counts[name] >= 5
        assert seconds <= PERIOD / 5 + 1e-6


async def test_tokens_are_reviewed_few_at_a_time_and_one_once() -> None:
    reviews, counted = Slow(), Counted()
    tokens = Tokens(reviews, Clock())
    asking = [asyncio.create_task(tokens.ask(b"%d" % (number % 100), counted)) for number in range(300)]
    while len(reviews.asked) < AT_A_TIME:
        await asyncio.wait(asking, timeout=0.001)
    reviews.go.set()
    assert await asyncio.gather(*asking) == [None] * 300
    assert sorted(map(int, reviews.asked)) == list(range(100))
    assert reviews.most_at_once == AT_A_TIME
    assert counted.failures == 100


async def test_a_burst_of_bad_tokens_stops_being_reviewed_when_some_have_failed() -> None:
    reviews, counted = Slow(), Counted(most=20)
    tokens = Tokens(reviews, Clock())
    asking = [asyncio.create_task(tokens.ask(b"%d" % number, counted)) for number in range(500)]
    reviews.go.set()
    await asyncio.gather(*asking, return_exceptions=True)
    assert len(reviews.asked) == 20


async def test_a_burst_of_good_tokens_from_one_address_is_no_failure() -> None:
    reviews, desk = Slow(), Desk(Clock())
    reviews.users.update({str(number): User(f"app{number}") for number in range(200)})
    reviews.go.set()
    tokens = Tokens(reviews, Clock())
    asking = [tokens.ask(b"%d" % number, Attempt(desk.logins, "10.0.0.1")) for number in range(200)]
    assert all(isinstance(caller, TokenCaller) for caller in await asyncio.gather(*asking))
    assert desk.logins.wait("10.0.0.1") == 0


async def test_when_nobody_can_say_it_is_no_failure() -> None:
    class Away:
        async def who(self, token: str) -> User | None:
            raise ReviewError("away")

    desk = Desk(Clock())
    tokens = Tokens(Away(), Clock())
    for number in range(2 * SOON):
        with pytest.raises(ReviewError):
            await tokens.ask(b"%d" % number, Attempt(desk.logins, "10.0.0.1"))
    assert desk.logins.wait("10.0.0.1") == 0


async def test_a_flood_of_all_the_world_has_a_rate_and_a_known_token_does_not_wait_behind_it() -> None:
    clock, reviews, counted = Clock(), Slow(), Counted()
    reviews.users["good"] = User("app")
    reviews.go.set()
    tokens = Tokens(reviews, clock, fresh_per_minute=60)
    assert isinstance(await tokens.ask(b"good", counted), TokenCaller)
    for number in range(200):
        if number < 59:
            assert await tokens.ask(b"%d" % number, counted) is None
        else:
            with pytest.raises(ReviewError):
                await tokens.ask(b"%d" % number, counted)
    assert len(reviews.asked) == 60
    clock.now += YES_SECONDS
    assert tokens.known(b"good") == (None, False)
    assert isinstance(await tokens.ask(b"good", counted), TokenCaller)
    # So it is for an hour; then it is as fresh as any.
    clock.now += GOOD_SECONDS + YES_SECONDS
    reviews.users.clear()
    assert await tokens.ask(b"good", counted) is None
    assert counted.failures == 60


async def test_reviews_that_wait_are_bounded() -> None:
    reviews, counted = Slow(), Counted()
    tokens = Tokens(reviews, Clock(), fresh_per_minute=10**6)
    asking = [asyncio.create_task(tokens.ask(b"%d" % number, counted)) for number in range(WAITING + 100)]
    done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert all(isinstance(task.exception(), ReviewError) for task in done)
    reviews.go.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(result, ReviewError) for result in results) == 100


async def test_bad_tokens_do_not_push_good_ones_out() -> None:
    clock, reviews, counted = Clock(), Slow(), Counted()
    reviews.users["good"] = User("app")
    reviews.go.set()
    tokens = Tokens(reviews, clock, fresh_per_minute=10**6)
    await tokens.ask(b"good", counted)
    for number in range(MOST_REMEMBERED + 10):
        await tokens.ask(b"%d" % number, counted)
    assert tokens.known(b"good")[1]


async def test_whoever_leaves_takes_no_review_from_others() -> None:
    reviews = Slow(users={"good": User("app")})
    tokens = Tokens(reviews, Clock())
    first, second = (asyncio.create_task(tokens.ask(b"good", Counted())) for _ in range(2))
    await asyncio.wait([first], timeout=0.001)
    first.cancel()
    reviews.go.set()
    assert isinstance(await second, TokenCaller)
    assert reviews.asked == ["good"]


@pytest.mark.parametrize(
    ("token", "claimed"),
    [
        (b"mrg_app_x", "app"),
        (b"mrg_app", "app"),
        (b"mrg_A_x", ""),
        (b"mrg__x", ""),
        (b"mrg_\xff_x", ""),
        (b"ey.x", None),
    ],
)
def test_the_id_that_a_key_claims(token: bytes, claimed: str | None) -> None:
    assert claimed_key(token) == claimed


def test_priorities_and_limits_of_callers() -> None:
    token_caller = TokenCaller(User("app"), lambda: 0.0)
    assert (token_caller.priority, token_caller.limited) == (5, False)
    assert DIGEST  # the key of the tests has neither


async def listing(reviews: Nobody, names: list[ModelKey]) -> tuple[set[ModelKey], list[str], Clock]:
    """Whose list has which models, and what was asked."""
    clock = Clock()
    access = Access(Keys(lambda: 0.0), reviews, clock)
    caller = TokenCaller(User("app"), clock)
    await access.decide(caller, names)
    return {name for name in names if caller.may_use(name)}, reviews.asked, clock


MANY = [ModelKey(f"team-{number % 10}", f"m{number}") for number in range(200)]


async def test_a_list_of_models_asks_by_namespace_first() -> None:
    reviews = Nobody(allowed={("app", ModelKey(f"team-{number}", "")) for number in range(10)})
    seen, asked, _ = await listing(reviews, MANY)
    assert seen == set(MANY)
    assert len(asked) == 11  # all namespaces at once was denied, then one by one


async def test_who_may_everything_is_asked_about_once() -> None:
    seen, asked, _ = await listing(Nobody(allowed={("app", ModelKey("", ""))}), MANY)
    assert (seen, len(asked)) == (set(MANY), 1)


async def test_only_what_was_denied_for_all_is_asked_by_name() -> None:
    allowed = {("app", ModelKey("team-1", "")), ("app", ModelKey("team-2", "m2"))}
    names = [name for name in MANY if name.namespace in {"team-1", "team-2"}]
    seen, asked, _ = await listing(Nobody(allowed=allowed), names)
    assert seen == {name for name in names if name.namespace == "team-1"} | {ModelKey("team-2", "m2")}
    assert len(asked) == 2 + 20


async def test_one_model_is_asked_about_by_its_name() -> None:
    seen, asked, _ = await listing(Nobody(allowed={("app", MODEL)}), [MODEL])
    assert (seen, asked) == ({MODEL}, [f"app {MODEL}"])


async def test_lists_that_come_together_ask_once_and_a_long_list_of_noes_holds_longer() -> None:
    clock, reviews = Clock(), Nobody()
    access = Access(Keys(lambda: 0.0), reviews, clock)
    caller = TokenCaller(User("app"), clock)
    await asyncio.gather(*(access.decide(caller, MANY) for _ in range(20)))
    once = len(reviews.asked)
    assert once == 1 + 10 + 200
    clock.now += 9
    await access.decide(caller, MANY)
    assert len(reviews.asked) < once + 20
    clock.now += 2
    await access.decide(caller, [MODEL])
    assert reviews.asked[-1] == f"app {MODEL}"


async def test_bad_input_41_tokens_of_an_address_that_are_not_asked_about_take_no_turn_of_others() -> None:
    """All of a flood come before the first has failed: what is left out of it was counted against everybody."""
    reviews = Slow({"good": User("somebody")})
    tokens = Tokens(reviews, Clock(), fresh_per_minute=100)
    flood = Counted(most=SOON)
    asked = [asyncio.ensure_future(tokens.ask(b"random-%d" % number, flood)) for number in range(100)]
    await until(lambda: len(reviews.asked) == AT_A_TIME)
    reviews.go.set()
    await asyncio.gather(*asked, return_exceptions=True)
    assert len(reviews.asked) == flood.failures == SOON
    caller = await tokens.ask(b"good", Counted())
    assert caller is not None
