"""Limits of keys: counted, told in OpenAI's headers, tokens reserved and settled, and none of others' business."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_common.http.message import Refusal
from moorage_common.tasks import WAITING_PER_RUNNING
from moorage_gateway.desk import Desk
from moorage_gateway.hold import State
from moorage_gateway.keys import ApiKey
from moorage_gateway.limits import SWEEP_OVER, Limiter, Meters
from moorage_gateway.usage import Tokens, Wish, wish_of
from tests.unit.common.support import Reply, get, post
from tests.unit.gateway.support import CHAT, DIGEST, MODEL, SECRET, Bed, Pod, Script, answers, running

KEY = f"mrg_small_{SECRET}"


class Clock:
    """Stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(requests: int | None = None, tokens: int | None = None, identity: str = "small") -> ApiKey:
    return ApiKey(
        id=identity,
        digest=DIGEST,
        models=frozenset({MODEL}),
        requests_per_minute=requests,
        tokens_per_minute=tokens,
    )


def used(prompt: int, completion: int) -> Script:
    """Answer so, with that usage."""
    content = json.dumps({"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}).encode()
    return answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))


async def ask(bed: Bed, credential: str = KEY, path: str = CHAT, **fields: Any) -> Reply:
    body = json.dumps({"model": "chat", **fields}).encode()
    return await bed.gateway.ask(post(body, f"Authorization: Bearer {credential}", path=path))


async def test_bad_input_54_more_requests_than_a_key_may_are_429_with_openais_headers() -> None:
    clock = Clock()
    async with running(answers(), desk=Desk(clock)) as (bed, [pod]):
        bed.keys.put("small", key(requests=2))
        first, second, third = [await ask(bed) for _ in range(3)]

        assert [first.status, second.status, third.status] == [200, 200, 429]
        told = {name: value for name, value in first.headers.items() if name.startswith("x-ratelimit")}
        assert told == {
            "x-ratelimit-limit-requests": "2",
            "x-ratelimit-remaining-requests": "1",
            "x-ratelimit-reset-requests": "30s",
        }
        assert (third.headers["retry-after"], third.headers["retry-after-ms"]) == ("30", "30000")
        assert third.headers["x-ratelimit-remaining-requests"] == "0"
        assert third.headers["x-ratelimit-reset-requests"] == "1m0s"
        assert (third.error["code"], third.error["type"]) == ("rate_limit_exceeded", "requests")
        assert len(pod.requests) == 2

        clock.now += 30
        assert (await ask(bed)).status == 200
        assert (await ask(bed)).status == 429


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/models/team-a/absent/v1/completions"])
async def test_every_answer_of_a_limited_key_counts_and_tells(path: str) -> None:
    async with running(answers(), desk=Desk(Clock())) as (bed, _):
        bed.keys.put("small", key(requests=2, tokens=100))
        request = get if path == "/v1/models" else post
        content = request(path, f"Authorization: Bearer {KEY}") if request is get else post(
            b"{}", f"Authorization: Bearer {KEY}", path=path
        )  # fmt: skip
        replies = [await bed.gateway.ask(content) for _ in range(3)]

        assert replies[2].status == 429
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["1", "0", "0"]
        assert {reply.headers["x-ratelimit-remaining-tokens"] for reply in replies} == {"100"}


async def test_a_key_without_limits_and_another_key_are_not_concerned() -> None:
    async with running(answers(), desk=Desk(Clock())) as (bed, _):
        bed.keys.put("small", key(requests=1))
        bed.keys.put("other", key(requests=1, identity="other"))
        assert (await ask(bed)).status == 200
        assert (await ask(bed)).status == 429
        assert (await ask(bed, f"mrg_other_{SECRET}")).status == 200
        for _ in range(3):
            reply = await ask(bed, f"mrg_tester_{SECRET}")
            assert reply.status == 200
            assert not [name for name in reply.headers if name.startswith("x-ratelimit")]


async def test_a_limit_that_is_changed_holds_at_once() -> None:
    async with running(answers(), desk=Desk(Clock())) as (bed, _):
        bed.keys.put("small", key(requests=1))
        assert [(await ask(bed)).status for _ in range(2)] == [200, 429]
        bed.keys.put("small", key(requests=4))
        # What was spent is the same part of the larger bucket.
        assert (await ask(bed)).status == 429
        bed.keys.put("small", key())
        assert (await ask(bed)).status == 200


async def test_tokens_are_settled_by_the_usage_of_the_answer() -> None:
    clock = Clock()
    async with running(used(30, 40), desk=Desk(clock)) as (bed, _):
        bed.keys.put("small", key(tokens=100))
        first = await ask(bed, max_tokens=20)
        assert first.status == 200
        # 28 bytes are 8 tokens or so, and 20 may come; that much was reserved when the head was written.
        assert 65 <= int(first.headers["x-ratelimit-remaining-tokens"]) <= 75
        assert bed.desk.limiter.headers(key(tokens=100)).count(b"remaining-tokens: 30\r\n") == 1

        refused = await ask(bed, max_tokens=60)
        assert (refused.status, refused.error["type"]) == (429, "tokens")
        assert refused.headers["x-ratelimit-remaining-tokens"] == "30"
        clock.now += float(refused.headers["retry-after-ms"]) / 1000
        assert (await ask(bed, max_tokens=60)).status == 200


async def test_what_is_over_what_was_reserved_is_owed() -> None:
    clock = Clock()
    async with running(used(100, 200), desk=Desk(clock)) as (bed, _):
        bed.keys.put("small", key(tokens=100))
        assert (await ask(bed, max_tokens=1)).status == 200
        refused = await ask(bed, max_tokens=1)
        # 300 were used of 100 a minute: for two minutes nothing is there.
        assert refused.status == 429
        assert 120 <= int(refused.headers["retry-after"]) <= 130
        clock.now += int(refused.headers["retry-after"])
        assert (await ask(bed, max_tokens=1)).status == 200


async def test_a_burst_is_held_by_what_is_reserved_while_nothing_is_answered() -> None:
    waiting: list[asyncio.StreamWriter] = []
    everybody = asyncio.Event()

    def late(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)
        everybody.set()

    async with running(late, desk=Desk(Clock())) as (bed, [pod]):
        bed.keys.put("small", key(tokens=1000))
        burst = [asyncio.create_task(ask(bed, max_tokens=90)) for _ in range(50)]
        done: set[asyncio.Task[Reply]] = set()
        while len(done) + len(waiting) < 50:
            done, _ = await asyncio.wait(burst, timeout=0.01)
        assert {task.result().status for task in done} == {429}
        assert len(waiting) == 10
        for writer in waiting:
            used(5, 5)(pod, b"", writer)
        assert sorted({(await task).status for task in burst}) == [200, 429]
        # What was not used is given back.
        assert b"remaining-tokens: 900\r\n" in bed.desk.limiter.headers(key(tokens=1000))


@pytest.mark.parametrize("status", [b"400 Bad Request", b"503 Service Unavailable"])
async def test_an_error_of_the_pod_costs_no_tokens(status: bytes) -> None:
    error = b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\n{}" % status
    async with running(answers(error), desk=Desk(Clock())) as (bed, _):
        bed.keys.put("small", key(tokens=100))
        await ask(bed, max_tokens=90)
        assert b"remaining-tokens: 100\r\n" in bed.desk.limiter.headers(key(tokens=100))


async def test_a_stream_without_usage_is_estimated_by_its_events() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    event = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    async with running(answers(head + chunk * 40 + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"), desk=Desk(Clock())) as (
        bed,
        _,
    ):
        bed.keys.put("small", key(tokens=1000))
        assert (await ask(bed, stream=True)).complete
        left = int(bed.desk.limiter.headers(key(tokens=1000)).split(b"remaining-tokens: ")[1].split(b"\r")[0])
        assert 945 <= left <= 955


async def test_a_client_that_leaves_before_its_answer_pays_what_was_reserved() -> None:
    asked = asyncio.Event()
    async with running(lambda _pod, _request, _writer: asked.set(), desk=Desk(Clock())) as (bed, [pod]):
        bed.keys.put("small", key(tokens=1000))
        body = b'{"model":"chat","max_tokens":500}'
        async with bed.gateway.client() as client:
            await client.send(post(body, f"Authorization: Bearer {KEY}", path=CHAT))
            await asked.wait()
        await pod.gone.wait()
        left = int(bed.desk.limiter.headers(key(tokens=1000)).split(b"remaining-tokens: ")[1].split(b"\r")[0])
        assert 485 <= left <= 500


async def test_bad_input_54_a_model_whose_pods_are_full_is_429() -> None:
    waiting: list[asyncio.StreamWriter] = []
    async with running(lambda _pod, _request, writer: waiting.append(writer)) as (bed, [pod]):
        bed.table.put(MODEL, "chat", state=State(takes=1))
        most = 1 + WAITING_PER_RUNNING
        held = [asyncio.create_task(ask(bed, f"mrg_tester_{SECRET}")) for _ in range(most)]
        while len(waiting) < most:
            await asyncio.wait(held, timeout=0.01)
        refused = await ask(bed, f"mrg_tester_{SECRET}")
        assert (refused.status, refused.error["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) > 0
        for writer in waiting:
            answers()(pod, b"", writer)
        assert [(await task).status for task in held] == [200] * most


@settings(deadline=None)
@given(
    limit=st.integers(10, 10_000),
    requests=st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 400), st.floats(0, 20), st.booleans()), min_size=1, max_size=80
    ),
)
def test_what_goes_over_a_limit_is_never_more_than_what_ran_at_once(
    limit: int, requests: list[tuple[int, int, float, bool]]
) -> None:
    # One by one, or two at a time: what is used is within the bucket, what flows in, and what two of them surprise by.
    clock, mine, taken = Clock(), key(tokens=limit), 0
    limiter = Limiter(clock)
    running_bill: Any = None
    surprise = 0
    begin = clock.now
    for wished, used_tokens, pause, overlap in requests:
        clock.now += pause
        try:
            bill, _ = limiter.admit(mine, b"", wish_of(b'{"max_tokens":%d}' % wished))
        except Refusal:
            continue
        assert bill is not None
        taken += used_tokens
        surprise = max(surprise, used_tokens)
        if overlap and running_bill is None:
            running_bill = bill, used_tokens
            continue
        bill.settle(Tokens(0, used_tokens))
        if running_bill is not None:
            running_bill[0].settle(Tokens(0, running_bill[1]))
            running_bill = None
        assert taken <= limit * (1 + (clock.now - begin) / 60) + 2 * surprise + 1


def test_answers_of_unsaid_length_are_learned() -> None:
    limiter, mine = Limiter(Clock()), key(tokens=10**6)
    before, _ = limiter.admit(mine, b"", Wish())
    assert before is not None
    before.settle(Tokens(0, 2000))
    after, _ = limiter.admit(mine, b"", Wish())
    assert after is not None
    assert before.reserved < after.reserved < 2000


def test_meters_of_keys_that_are_quiet_are_dropped() -> None:
    clock, meters = Clock(), Meters()
    limiter = Limiter(clock, meters)
    for number in range(3 * SWEEP_OVER):
        limiter.count(key(requests=60, identity=f"k{number}"))
        clock.now += 1
    assert len(meters) <= SWEEP_OVER
