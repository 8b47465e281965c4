"""Requests that wait for a pod: bounded, in order, told that they wait, and answered whatever comes of it."""

import asyncio
import json
from typing import Any

import openai
import pytest

from moorage_gateway.hold import PATIENCE_SECONDS, HoldLimits, Room, State
from moorage_gateway.keys import ApiKey, new_key
from moorage_gateway.metrics import Metrics
from moorage_gateway.routing import ModelKey
from tests.unit.common.support import Client, Reply, post, until
from tests.unit.gateway.support import CHAT, DIGEST, KEY, MODEL, OK, SECRET, Bed, Pod, answers, running

QUEUE = "waiting for 2 nvidia.com/gpu, position 3 of 5"
SLEEPS = State(waits=True)
BODY = b'{"model":"chat","messages":[]}'
STREAM = b'{"model":"chat","messages":[],"stream":true}'
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)
QUICK = HoldLimits(seconds=30.0, heartbeat_seconds=0.05)


def ask(body: bytes = BODY, key: str = KEY, path: str = CHAT, version: str = "1.1") -> bytes:
    return post(body, f"Authorization: Bearer {key}", path=path, version=version)


def room(bed: Bed) -> Room:
    model = bed.table.get(MODEL)
    assert model is not None
    assert model.room is not None
    return model.room


def state(bed: Bed, **fields: Any) -> None:
    """The cluster says something of the model."""
    bed.table.put(MODEL, "chat", state=State(**fields))


def ready(bed: Bed, *pods: Pod) -> None:
    """These pods are ready."""
    bed.table.move(MODEL, [("127.0.0.1", pod.port) for pod in pods])


async def held(bed: Bed, number: int = 1) -> None:
    """So many wait."""
    await until(lambda: len(room(bed)) == number)


def content_of(request: bytes) -> str:
    return str(json.loads(request.partition(b"\r\n\r\n")[2]).get("user"))


async def test_a_request_waits_until_a_pod_is_ready_and_is_then_answered() -> None:
    async with running(answers(), hold=HoldLimits()) as (bed, [pod]), bed.gateway.client() as client:
        state(bed, waits=True)
        await client.send(ask())
        await held(bed)
        assert not pod.requests
        ready(bed, pod)
        assert (await client.reply()).status == 200
        assert (len(room(bed)), room(bed).in_flight) == (0, 0)
        assert bed.lobby is not None
        assert (bed.lobby.requests, bed.lobby.body_bytes) == (0, 0)


async def test_what_has_ended_says_why_with_a_time_to_come_again_and_never_404() -> None:
    async with running(hold=HoldLimits(seconds=0.2)) as (bed, _):
        state(bed, waits=True, why_not=QUEUE)
        reply = await bed.gateway.ask(ask())
        assert reply.status == 503
        assert int(reply.headers["retry-after"]) > 0
        assert QUEUE in reply.error["message"]
        assert reply.error["code"] == "model_not_ready"


@pytest.mark.parametrize("why", ["Stopped: spec.suspend is true", "ModelNotFound: there is no such file"])
async def test_a_model_that_is_stopped_or_has_failed_is_refused_at_once_also_for_those_that_wait(why: str) -> None:
    async with running(hold=HoldLimits()) as (bed, _), bed.gateway.client() as client:
        state(bed, waits=True)
        await client.send(ask())
        await held(bed)
        state(bed, waits=False, why_not=why)
        for reply in (await client.reply(), await bed.gateway.ask(ask())):
            assert reply.status == 503
            assert why in reply.error["message"]


async def test_a_model_that_is_deleted_answers_those_that_wait() -> None:
    async with running(hold=HoldLimits()) as (bed, _), bed.gateway.client() as client:
        state(bed, waits=True)
        await client.send(ask())
        await held(bed)
        bed.table.remove(MODEL)
        reply = await client.reply()
        assert (reply.status, "deleted" in reply.error["message"]) == (503, True)
        assert (await bed.gateway.ask(ask())).status == 404


async def test_the_metrics_tell_how_many_wait() -> None:
    async with running(hold=HoldLimits()) as (bed, _):
        state(bed, waits=True)
        assert bed.lobby is not None
        metrics = Metrics()
        metrics.watch(bed.lobby)
        for number in (1, 2):
            await bed.start(ask())
            await held(bed, number)
        assert b'moorage_gateway_held_requests{model="team-a/chat"} 2.0' in metrics.page().body


async def test_a_client_that_leaves_waits_no_more() -> None:
    async with running(hold=HoldLimits()) as (bed, _):
        state(bed, waits=True)
        async with bed.gateway.client() as client:
            await client.send(ask())
            await held(bed)
        await held(bed, 0)
        assert bed.lobby is not None
        assert bed.lobby.requests == 0
        assert not bed.lobby.rooms
        assert bed.ended[0].error == "client"


async def test_they_leave_by_priority_then_by_age_and_nobody_overtakes_them() -> None:
    waiting = asyncio.Queue[asyncio.StreamWriter]()
    script = lambda _pod, _request, writer: waiting.put_nowait(writer)  # noqa: E731
    async with running(script, hold=HoldLimits()) as (bed, [pod]):
        state(bed, waits=True, takes=1)
        important = key_of(bed, "important", priority=9)
        clients = []
        for number, key in enumerate([KEY, KEY, important, important], start=1):
            clients.append(await bed.start(ask(user(f"{number}"), key)))
            await held(bed, number)
        ready(bed, pod)
        answered = []
        for number in range(5):
            writer = await asyncio.wait_for(waiting.get(), 5)
            answered.append(content_of(pod.requests[-1]))
            assert len(pod.requests) == number + 1, "one at a time, as the pod takes one"
            if number == 0:
                clients.append(await bed.start(ask(user("late"))))
                await held(bed, 4)
            writer.write(OK)
        assert answered == ["3", "4", "1", "2", "late"]
        for client in clients:
            assert (await client.reply()).status == 200
            client.writer.close()


def user(name: str) -> bytes:
    return json.dumps({"model": "chat", "messages": [], "user": name}).encode()


def key_of(bed: Bed, identity: str, priority: int) -> str:
    """A key of that priority."""
    text, digest = new_key(identity)
    bed.keys.put(identity, ApiKey(id=identity, digest=bytes.fromhex(digest), everything=True, priority=priority))
    return text


@pytest.mark.parametrize("takes", [0, 3])
async def test_as_many_go_at_a_time_as_the_pods_take(takes: int) -> None:
    async with running(lambda *_: None, lambda *_: None, hold=HoldLimits()) as (bed, pods):
        state(bed, waits=True, takes=takes)
        clients = [await bed.start(ask()) for _ in range(10)]
        await held(bed, 10)
        ready(bed, *pods)
        gone = 6 if takes else 10
        await until(lambda: sum(len(pod.requests) for pod in pods) == gone)
        assert (len(room(bed)), room(bed).in_flight) == (10 - gone, gone)
        for client in clients:
            client.writer.close()
        await until(lambda: room(bed).in_flight == 0)


@pytest.mark.parametrize(
    "limits",
    [
        HoldLimits(requests=2),
        HoldLimits(requests_per_model=2),
        HoldLimits(body_bytes=2 * len(BODY)),
    ],
    ids=["of all models", "of one model", "bytes"],
)
async def test_no_more_wait_than_may_but_who_is_more_important_takes_a_place(limits: HoldLimits) -> None:
    async with running(hold=limits) as (bed, _):
        state(bed, waits=True)
        first = await bed.start(ask())
        await held(bed, 1)
        second = await bed.start(ask())
        await held(bed, 2)
        refused = await bed.gateway.ask(ask())
        assert (refused.status, refused.error["code"]) == (503, "too_many_waiting")
        third = await bed.start(ask(key=key_of(bed, "important", priority=9)))
        assert (await second.reply()).error["code"] == "too_many_waiting"
        assert len(room(bed)) == 2
        for client in (first, second, third):
            client.writer.close()
        await held(bed, 0)


async def test_a_body_that_never_has_room_is_refused_without_sending_the_others_away() -> None:
    async with running(hold=HoldLimits(body_bytes=len(BODY) + 10)) as (bed, _):
        state(bed, waits=True)
        first = await bed.start(ask())
        await held(bed)
        large = await bed.gateway.ask(ask(BODY + b" " * 20, key_of(bed, "important", priority=9)))
        assert large.error["code"] == "too_many_waiting"
        assert len(room(bed)) == 1
        first.writer.close()


async def test_a_stream_is_told_that_it_waits_and_goes_on_with_the_events_of_the_pod() -> None:
    async with running(answers(EVENTS), hold=QUICK) as (bed, [pod]), bed.gateway.client() as client:
        state(bed, waits=True, why_not=QUEUE)
        await client.send(ask(STREAM))
        head = await client.head()
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
        assert await piece(client) == f": waiting: {QUEUE}\n\n"
        assert await piece(client) == f": waiting: {QUEUE}\n\n"
        ready(bed, pod)
        rest = await pieces(client)
        assert "".join(rest).replace(f": waiting: {QUEUE}\n\n", "") == "data: 1\n\ndata: [DONE]\n\n"
        # The connection is as good as before.
        await client.send(ask(STREAM))
        assert (await client.reply()).body.endswith(b"data: [DONE]\n\n")


async def piece(client: Client) -> str:
    """The next chunk."""
    async with asyncio.timeout(5):
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        return (await client.reader.readexactly(size + 2))[:-2].decode()


async def pieces(client: Client) -> list[str]:
    """All chunks to the end."""
    found = []
    while text := await piece(client):
        found.append(text)
    return found


def last_event(reply: Reply) -> dict[str, Any]:
    """What the last event of an answer says."""
    *_, event, end = reply.body.decode().split("\n\n")
    assert end == ""
    found: dict[str, Any] = json.loads(event.removeprefix("data: "))
    return found


async def test_once_the_head_is_out_an_error_is_an_event() -> None:
    async with running(hold=QUICK._replace(seconds=0.3)) as (bed, _):
        state(bed, waits=True, why_not=QUEUE)
        reply = await bed.gateway.ask(ask(STREAM))
        assert (reply.status, reply.complete) == (200, True)
        assert QUEUE in last_event(reply)["error"]["message"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n"
        b'{"error":\n{"code":"bad"}}',
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'a\r\n{"error":\n\r\ne\r\n{"code":"bad"}\r\n1\r\n}\r\n0\r\n\r\n',
    ],
    ids=["length", "chunks"],
)
async def test_once_the_head_is_out_a_pods_error_is_an_event_too(answer: bytes) -> None:
    async with running(answers(answer), hold=QUICK) as (bed, [pod]), bed.gateway.client() as client:
        state(bed, waits=True)
        await client.send(ask(STREAM))
        await client.head()
        await piece(client)
        ready(bed, pod)
        assert json.loads((await pieces(client))[-1].removeprefix("data: ")) == {"error": {"code": "bad"}}


async def test_a_pod_that_goes_before_it_has_answered_is_not_the_end_of_a_held_stream() -> None:
    def drops(_pod: Pod, _request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with running(drops, answers(EVENTS), hold=QUICK) as (bed, pods), bed.gateway.client() as client:
        state(bed, waits=True)
        await client.send(ask(STREAM))
        await client.head()
        ready(bed, pods[0])
        await until(lambda: len(pods[0].requests) > 0)
        ready(bed, pods[1])
        assert (await pieces(client))[-1] == "data: [DONE]\n\n"


async def test_openais_client_does_not_mind_the_comments() -> None:
    chunk = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "chat",
        "choices": [{"index": 0, "delta": {"content": "hello"}}],
    }
    data = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode()
    answer = EVENTS.partition(b"\r\n\r\n")[0] + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    async with running(answers(answer), hold=QUICK) as (bed, [pod]):
        state(bed, waits=True)
        address = f"http://127.0.0.1:{bed.gateway.port}/v1"
        async with openai.AsyncOpenAI(base_url=address, api_key=KEY, max_retries=0) as client:
            opened = await client.chat.completions.create(model="chat", messages=[], stream=True)
            ready(bed, pod)
            text = [choice.delta.content async for part in opened for choice in part.choices]
            assert text == ["hello"]
            ready(bed)
            state(bed, waits=True, why_not=QUEUE)
            opened = await client.chat.completions.create(model="chat", messages=[], stream=True)
            state(bed, waits=False, why_not="OutOfMemory: 1 MiB")
            with pytest.raises(openai.APIError, match="OutOfMemory: 1 MiB"):
                await anext(aiter(opened))


async def test_who_asks_for_no_stream_gets_no_comments_and_a_client_of_http_1_0_its_events() -> None:
    async with running(answers(EVENTS), hold=QUICK) as (bed, [pod]):
        state(bed, waits=True)
        plain = await bed.start(ask())
        old = await bed.start(ask(STREAM, version="1.0"))
        assert (await old.reader.readuntil(b": waiting: \n\n")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.2)
        assert not plain.reader._buffer  # type: ignore[attr-defined]
        ready(bed, pod)
        assert (await plain.reply()).status == 200
        assert (await old.reader.read()).replace(b": waiting: \n\n", b"") == b"data: 1\n\ndata: [DONE]\n\n"
        for client in (plain, old):
            client.writer.close()


async def test_a_pod_that_says_503_is_waited_for_until_it_is_gone_or_better() -> None:
    saying = [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", OK]
    script = lambda _pod, _request, writer: writer.write(saying.pop(0))  # noqa: E731
    async with running(script, hold=HoldLimits()) as (bed, [pod]):
        state(bed, waits=True)
        ready(bed, pod)
        assert (await bed.gateway.ask(ask())).status == 200
        assert len(pod.requests) == 2


async def test_a_pod_that_is_ready_by_name_only_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage_gateway.hold.PATIENCE_SECONDS", 0.6)
    assert PATIENCE_SECONDS > 0.6
    async with running(hold=HoldLimits()) as (bed, _):
        state(bed, waits=True)
        bed.table.move(MODEL, [("127.0.0.1", 9)])
        reply = await bed.gateway.ask(ask())
        assert reply.status == 503
        assert "none of its pods could be reached" in reply.error["message"]


async def test_at_the_end_of_the_process_all_who_wait_are_answered() -> None:
    async with running(answers(), hold=QUICK) as (bed, [pod]), bed.gateway.client() as plain:
        state(bed, waits=True)
        await plain.send(ask())
        stream = await bed.start(ask(STREAM))
        lucky = await bed.start(ask())
        await stream.head()
        await held(bed, 3)
        bed.gateway.draining = True
        assert bed.lobby is not None
        now = asyncio.get_running_loop().time()
        bed.lobby.end_by(now + 0.3)
        reply = await plain.reply()
        assert asyncio.get_running_loop().time() >= now + 0.3, "until then one may still be lucky"
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "try again" in json.loads((await pieces(stream))[-1].removeprefix("data: "))["error"]["message"]
        assert (await lucky.reply()).status == 503
        ready(bed, pod)
        for client in (stream, lucky):
            client.writer.close()


async def test_hold_and_wake_adds_less_than_100_ms_to_a_models_own_start() -> None:
    """From the moment at which the gateway sees a ready pod to the first byte of answers that were held for it."""
    figures = []
    for _ in range(20):
        async with running(answers(EVENTS), hold=HoldLimits()) as (bed, [pod]), bed.gateway.client() as client:
            state(bed, waits=True, takes=4)
            await client.send(ask(STREAM))
            await held(bed)
            began = asyncio.get_running_loop().time()
            ready(bed, pod)
            await client.reader.readexactly(1)
            figures.append(1000 * (asyncio.get_running_loop().time() - began))
    figures.sort()
    print(f"hold and wake: median {figures[10]:.2f} ms, most {figures[-1]:.2f} ms")
    assert figures[10] < 100


async def elsewhere(bed: Bed) -> Room:
    """A model of another namespace, which sleeps, too."""
    other = ModelKey("team-b", "asleep")
    bed.table.put(other, "asleep", state=SLEEPS)
    bed.keys.put("other", ApiKey(id="other", digest=DIGEST, models=frozenset({other})))
    model = bed.table.get(other)
    assert model is not None
    assert model.room is not None
    return model.room


@pytest.mark.parametrize("short", ["requests", "bytes"])
async def test_bad_input_60_one_namespace_cannot_take_all_places_of_the_others(short: str) -> None:
    body = b'{"model":"chat","pad":"%b"}' % (b"x" * 1000)
    limits = HoldLimits(requests=4) if short == "requests" else HoldLimits(body_bytes=4 * len(body) + 10)
    async with running(hold=limits) as (bed, _):
        state(bed, waits=True)
        mine = await elsewhere(bed)
        theirs = [await bed.start(ask(body)) for _ in range(4)]
        await held(bed, 4)
        assert (await bed.gateway.ask(ask(body))).error["code"] == "too_many_waiting"
        for number in (1, 2):
            await bed.start(ask(body.replace(b"chat", b"asleep"), f"mrg_other_{SECRET}"))
            await until(lambda number=number: len(mine) == number)  # type: ignore[misc]
            # The last that came had to go, and those before it wait on.
            assert (await theirs.pop().reply()).error["code"] == "too_many_waiting"
            await held(bed, len(theirs))
        # Both have as many now: neither gets more at the expense of the other.
        assert (await bed.gateway.ask(ask(body.replace(b"chat", b"asleep"), f"mrg_other_{SECRET}"))).status == 503
        assert (await bed.gateway.ask(ask(body))).status == 503
        assert (len(mine), len(room(bed))) == (2, 2)
