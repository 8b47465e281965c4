"""Random clients and random pods: whatever they send, nobody gets what is another's, nothing hangs, nothing raises.

`make fuzz SECONDS=600`; 20 s by itself. It is not part of `make test` yet: see docs/critique.md.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import h11
import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from moorage_common.http.message import Limits
from tests.unit.common.support import Client, until
from tests.unit.gateway.odd_requests import AUTH, HOST, STREAMS, request
from tests.unit.gateway.strict_servers import by_h11
from tests.unit.gateway.support import CHAT, Bed, Pod, Script, faults, running

SECONDS = float(os.environ.get("MOORAGE_FUZZ_SECONDS", "20"))
SHARE = SECONDS / 3
LONGEST = 10.0
"""Whatever takes longer hangs."""
HASTY = Limits(head_seconds=0.2, body_idle_seconds=0.05, keep_alive_seconds=0.02, linger_seconds=0.02)
pytestmark = pytest.mark.timeout(2 * SHARE + 60)


def fuzz(
    bed: Callable[[], Any], strategy: st.SearchStrategy[Any], check: Callable[..., Coroutine[Any, Any, None]]
) -> int:
    """Try `check(bed, pod, example)` on random examples for the time of one test; gives how many were tried."""
    tried = 0
    end = time.monotonic() + SHARE
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        context = bed()
        found, pods = runner.run(context.__aenter__())

        @settings(
            max_examples=100,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(example=strategy)
        def one(example: Any) -> None:
            nonlocal tried
            tried += 1
            runner.run(asyncio.wait_for(check(found, pods[0], example), LONGEST))

        while time.monotonic() < end:
            one()
        runner.run(_settled(found))
        runner.run(context.__aexit__(None, None, None))
    return tried


async def _settled(bed: Bed) -> None:
    """Nothing is left of what was: no request in flight, no connection, no byte of a body."""
    await until(lambda: not bed.gateway.connections)
    await until(lambda: not any(endpoint.in_flight for model in bed.table for endpoint in model.backends))
    assert bed.gateway.connections.buffered == bed.gateway.connections.of_strangers == 0


def asks(word: str, *, chunked: bool = False, pieces: int = 1) -> bytes:
    """A request whose answer says its word."""
    body = json.dumps({"model": "chat", "user": word}).encode()
    if not chunked:
        return request(b"Content-Length: %d" % len(body), body=body)
    step = max(len(body) // pieces, 1)
    parts = [body[begin : begin + step] for begin in range(0, len(body), step)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return request(b"Transfer-Encoding: chunked", body=chunks + b"0\r\n\r\n")


def echo(body: bytes) -> bytes:
    """A pod's answer that says the word of a request."""
    word = json.loads(body).get("user", "")
    answer = json.dumps({"echo": word}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)


def echoes(pod: Pod, content: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer with the word of the request."""
    (seen,) = by_h11(content)
    writer.write(echo(seen.body))


async def everything(client: Client) -> bytes:
    """All bytes up to the end of the connection."""
    told = b""
    with suppress(ConnectionError):
        while data := await client.reader.read(65536):
            told += data
    return told


async def honest(bed: Bed, word: str) -> None:
    """Somebody else, who asks meanwhile and gets their answer."""
    for _ in range(5):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            reply = await bed.gateway.ask(asks(word))
            if reply.status != 408:
                break
        # On a busy machine the gateway, which is hasty here, may have found this one too slow.
    assert (reply.status, reply.body) == (200, json.dumps({"echo": word}).encode())


def answers_in(told: bytes, count: int) -> list[tuple[int, bytes]]:
    """The answers that a strict client reads in what it was sent, up to where they are broken off."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
    found: list[tuple[int, bytes]] = []
    connection.receive_data(told)
    connection.receive_data(b"")
    with suppress(h11.RemoteProtocolError):
        for _ in range(count):
            connection.send(h11.Request(method="POST", target=CHAT, headers=[("Host", "a"), ("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            status, body = 0, b""
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.ConnectionClosed):
                    return found
            found.append((status, body))
            if connection.their_state is not h11.DONE:
                return found
            connection.start_next_cycle()
    return found


# -- requests in pieces -----------------------------------------------------------------------------------------------

WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)
ASKED = st.builds(
    lambda word, chunked, pieces: (word, asks(word, chunked=chunked, pieces=pieces)),
    WORDS,
    st.booleans(),
    st.integers(1, 9),
)


def test_requests_that_come_in_any_pieces_get_the_same_answers() -> None:
    async def check(bed: Bed, pod: Pod, example: tuple[list[tuple[str, bytes]], list[int]]) -> None:
        asked, cuts = example
        content = b"".join(text for _, text in asked)
        cuts = sorted({cut % len(content) for cut in cuts} - {0})
        async with bed.gateway.client() as client:
            for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
                client.writer.write(content[begin:end])
                await asyncio.sleep(0)
            told = [await client.reply() for _ in asked]
        assert [reply.body for reply in told] == [json.dumps({"echo": word}).encode() for word, _ in asked]

    example = st.tuples(st.lists(ASKED, min_size=1, max_size=4), st.lists(st.integers(0, 2000), max_size=12))
    patient = Limits(pipelined=8)
    assert fuzz(lambda: running(echoes, limits=patient), example, check) > 50


# -- random requests --------------------------------------------------------------------------------------------------

SEEDS = st.sampled_from([*STREAMS.values(), asks("seed"), asks("seed", chunked=True, pieces=3) * 3])
BITS = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b"\t",
            b":",
            b",",
            b";",
            b"0",
            b"\r\n\r\n",
            b"\xff",
            b"chunked",
            b"-",
            b"+",
        ),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", AUTH, HOST),
        *(b"Connection: close\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"HTTP/1.0", b"0\r\n\r\n", b"a" * 300),
    ]
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["insert", "delete", "replace", "double", "cut"]), st.integers(0, 10**6), BITS),
    max_size=6,
)


def changed(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Apply random changes."""
    for how, where, bit in changes:
        place = where % (len(content) + 1)
        if how == "insert":
            content = content[:place] + bit + content[place:]
        elif how == "delete":
            content = content[:place] + content[place + len(bit) :]
        elif how == "replace":
            content = content[:place] + bit + content[place + len(bit) :]
        elif how == "double":
            content = content[:place] + content[max(place - len(bit) * 8, 0) :]
        else:
            content = content[:place]
    return content


MUTANTS = st.builds(changed, SEEDS, CHANGES) | st.binary(max_size=200)


def test_random_clients_end_and_disturb_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def attack(bed: Bed, content: bytes) -> None:
        async with bed.gateway.client() as client:
            await client.send(content)
            told = await everything(client)
        assert b"honest" not in told

    async def check(bed: Bed, pod: Pod, example: list[bytes]) -> None:
        pod.requests.clear()
        await asyncio.gather(honest(bed, "honest"), *(attack(bed, content) for content in example))
        # Whatever reached the pod is one request, whole.
        assert all(len(by_h11(content)) == 1 for content in pod.requests)

    tried = fuzz(lambda: running(echoes, limits=HASTY), st.lists(MUTANTS, min_size=1, max_size=16), check)
    assert tried > 50
    assert not faults(caplog)


# -- random pods ------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = HEAD.replace(b"application/json", b"text/event-stream")
ANSWERS = [
    echo(b'{"user":"pod"}'),
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\npod\r\n0\r\n\r\n",
    STREAM + b"Transfer-Encoding: chunked\r\n\r\n" + b"b\r\ndata: pod\n\n\r\n" * 3 + b"0\r\n\r\n",
    HEAD.replace(b"200", b"400") + b"Retry-After: 1\r\nContent-Length: 3\r\n\r\npod",
    HEAD.replace(b"200", b"503") + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
]
OWNED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nowned"
ANSWER = st.builds(changed, st.sampled_from([*ANSWERS, *(answer + OWNED for answer in ANSWERS)]), CHANGES)


def hostile(plans: dict[str, tuple[bytes, list[int], bool]]) -> Script:
    """Answer those who are in `plans` so, in pieces, and all others honestly."""

    def script(pod: Pod, content: bytes, writer: asyncio.StreamWriter) -> None:
        (seen,) = by_h11(content)
        plan = plans.get(json.loads(seen.body)["user"])
        if plan is None:
            writer.write(echo(seen.body))
            return

        async def write() -> None:
            answer, cuts, close = plan
            places = sorted({cut % (len(answer) + 1) for cut in cuts})
            for begin, end in zip([0, *places], [*places, len(answer)], strict=True):
                if writer.is_closing():
                    return
                writer.write(answer[begin:end])
                await asyncio.sleep(0.001)
            if close:
                writer.close()
            else:
                await asyncio.sleep(0.03)  # what it keeps open without a word; the client has given up then
                writer.transport.abort()

        pod.task = asyncio.ensure_future(write())  # type: ignore[attr-defined]

    return script


def test_random_pods_reach_nobody_but_their_own_client(caplog: pytest.LogCaptureFixture) -> None:
    plans: dict[str, tuple[bytes, list[int], bool]] = {}

    async def victim(bed: Bed, word: str) -> None:
        async with bed.gateway.client() as client:
            await client.send(asks(word))
            told = await everything(client)
        found = answers_in(told, 1)
        said = [body for status, body in answers_in(plans[word][0], 1) if status < 500]
        # A whole answer is what somebody strict reads in the pod's, or an error of ours; nothing comes behind it. What
        # the pod says behind an answer in a packet of its own may meet the next request on that connection: nobody
        # can tell it from an answer, and the pod may give its own clients any.
        late = [body for plan in plans.values() for _, body in answers_in(plan[0], 2)[1:]]
        assert all(body in (*said, *late) or b'"error"' in body for status, body in found if status < 500)
        assert len(answers_in(told, 2)) < 2

    async def check(bed: Bed, pod: Pod, example: list[tuple[bytes, list[int], bool]]) -> None:
        plans.clear()
        plans.update({f"victim-{number}": plan for number, plan in enumerate(example)})
        for endpoint in next(iter(bed.table)).backends:
            endpoint.succeeded()  # the last example has failed often enough for the pod to be passed over
        await asyncio.gather(*(victim(bed, word) for word in plans))
        for endpoint in next(iter(bed.table)).backends:
            endpoint.succeeded()
        await asyncio.gather(*(honest(bed, f"honest-{number}") for number in range(3)))

    plan = st.tuples(ANSWER, st.lists(st.integers(0, 10**6), max_size=4), st.booleans())
    tried = fuzz(lambda: running(hostile(plans), limits=HASTY), st.lists(plan, min_size=1, max_size=12), check)
    assert tried > 20
    assert not faults(caplog)
