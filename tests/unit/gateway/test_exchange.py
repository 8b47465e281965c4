"""A request on its way to a pod and back: passed on as it comes, tried elsewhere while nothing was answered."""

import asyncio

import pytest

from tests.unit.common.support import post
from tests.unit.gateway.support import CHAT, KEY, OK, Pod, answers, running

BODY = b'{"model":"chat","messages":[]}'
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AUTH = f"Authorization: Bearer {KEY}"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def ask(body: bytes = BODY, *headers: str, version: str = "1.1") -> bytes:
    return post(body, AUTH, *headers, path=CHAT, version=version)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_a_request_reaches_the_pod_as_it_is_and_its_answer_the_client() -> None:
    async with running(answers()) as (bed, [pod]):
        reply = await bed.gateway.ask(ask(BODY, f"traceparent: {TRACE}", "X-User: root", "Cookie: a=b"))

        assert (reply.status, reply.body) == (200, b"{}")
        (request,) = pod.requests
        assert request.endswith(b"\r\n\r\n" + BODY)
        head = request.lower()
        assert f"traceparent: {TRACE}".encode() in head
        assert f"host: 127.0.0.1:{pod.port}".encode() in head
        # Who asks is our word, not the client's; and nobody else learns of a credential.
        for secret in (b"authorization", b"x-user", b"cookie", KEY.encode()):
            assert secret not in head


async def test_connections_to_the_pod_are_kept() -> None:
    async with running(answers()) as (bed, [pod]), bed.gateway.client() as client:
        for _ in range(5):
            await client.send(ask())
            assert (await client.reply()).status == 200
        assert pod.connections == 1
        assert len(pod.requests) == 5


async def test_events_come_one_by_one_as_the_pod_sends_them() -> None:
    step = asyncio.Queue[bytes]()

    def stream(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        async def write() -> None:
            writer.write(CHUNKED)
            while piece := await step.get():
                writer.write(piece)

        pod.task = asyncio.ensure_future(write())  # type: ignore[attr-defined]

    async with running(stream) as (bed, _), bed.gateway.client() as client:
        await client.send(ask())
        head = await client.head()
        assert head.headers["content-type"] == "text/event-stream"
        assert head.headers["transfer-encoding"] == "chunked"
        for number in range(3):
            event = chunk(b"data: %d\n\n" % number)
            step.put_nowait(event)
            assert await client.reader.readexactly(len(event)) == event
        step.put_nowait(b"0\r\n\r\n")
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"
        assert len(bed.ended) == 1
        step.put_nowait(b"")


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    async with running(answers(CHUNKED + chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + b"0\r\n\r\n")) as (bed, _):
        reply = await bed.gateway.ask(ask(version="1.0"))

        assert reply.body == b"data: 1\n\ndata: 2\n\n"
        assert "transfer-encoding" not in reply.headers


async def test_a_kept_connection_that_the_pod_has_dropped_costs_nothing() -> None:
    def once(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        if len(pod.requests) % 2:
            writer.write(OK)
        else:
            writer.transport.abort()

    def first_of_each(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        # The second request of a connection finds it dropped; the third comes on a fresh one.
        once(pod, request, writer)

    async with running(first_of_each) as (bed, [pod]), bed.gateway.client() as client:
        for _ in range(2):
            await client.send(ask())
            assert (await client.reply()).status == 200
        assert len(pod.requests) == 3
        assert pod.connections == 2


async def test_a_pod_that_is_not_there_is_passed_over() -> None:
    async with running(answers(), answers()) as (bed, pods):
        gone = await asyncio.start_server(pods[0].serve, "127.0.0.1", 0)
        port = gone.sockets[0].getsockname()[1]
        gone.close()
        await gone.wait_closed()
        bed.table.backends(next(iter(bed.table)).key).update([("127.0.0.1", port), ("127.0.0.1", pods[1].port)])

        replies = [await bed.gateway.ask(ask()) for _ in range(10)]

        assert [reply.status for reply in replies] == [200] * 10
        assert len(pods[1].requests) == 10


async def test_a_pod_that_drains_is_passed_over() -> None:
    busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with running(answers(busy), answers()) as (bed, pods):
        assert {(await bed.gateway.ask(ask())).status for _ in range(10)} == {200}
        assert len(pods[1].requests) == 10


async def test_a_pod_killed_before_it_answers_loses_nothing() -> None:
    async with running(lambda _pod, _request, writer: writer.transport.abort(), answers()) as (bed, _):
        assert {(await bed.gateway.ask(ask())).status for _ in range(10)} == {200}


async def test_when_no_pod_can_be_reached_it_says_so() -> None:
    async with running(lambda _pod, _request, writer: writer.transport.abort()) as (bed, _):
        reply = await bed.gateway.ask(ask())

        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.error["code"] == "model_not_ready"


async def test_fault_29_a_pod_that_goes_in_the_middle_of_a_stream_ends_it_with_an_error() -> None:
    def half(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + chunk(b"data: 1\n\n"))
        writer.close()

    async with running(half) as (bed, _):
        reply = await bed.gateway.ask(ask())

        assert not reply.complete
        assert b'"code":"backend_gone"' in reply.body
        assert reply.body.startswith(b"data: 1\n\n")


async def test_fault_29_a_pod_that_goes_in_the_middle_of_a_chunk_ends_the_connection() -> None:
    def half(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"64\r\ndata: 1")
        writer.close()

    async with running(half) as (bed, _):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            async with bed.gateway.client() as client:
                await client.send(ask())
                await client.head()
                await client.reader.readexactly(1000)


async def test_fault_29_a_pod_that_goes_in_the_middle_of_a_body_ends_the_connection() -> None:
    def half(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK[:-1])
        writer.close()

    async with running(half) as (bed, _), bed.gateway.client() as client:
        await client.send(ask())
        await client.head()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.reader.readexactly(2)


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"nonsense\r\n\r\n",
        OK + OK,
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
async def test_an_answer_that_is_not_valid_is_never_passed_on(content: bytes) -> None:
    async with running(answers(content)) as (bed, _):
        try:
            reply = await bed.gateway.ask(ask())
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        assert reply.status in {502, 503} or not reply.complete or "backend_gone" in reply.body.decode()


async def test_bad_input_53_a_client_that_leaves_takes_its_request_along() -> None:
    async with running(lambda _pod, _request, writer: writer.write(CHUNKED)) as (bed, [pod]):
        async with bed.gateway.client() as client:
            await client.send(ask())
            await client.head()
        async with asyncio.timeout(1):
            await pod.gone.wait()
        assert [exchange.error for exchange in bed.ended] == ["client"]
        assert [endpoint.in_flight for endpoint in next(iter(bed.table)).backends] == [0]


async def test_bad_input_52_a_client_that_does_not_read_holds_the_pod_back() -> None:
    sent = 0

    def flood(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        async def write() -> None:
            nonlocal sent
            writer.write(CHUNKED)
            for _ in range(2000):
                writer.write(chunk(b"x" * 65536))
                await writer.drain()
                sent += 65536

        pod.task = asyncio.ensure_future(write())  # type: ignore[attr-defined]

    async with running(flood) as (bed, _), bed.gateway.client() as client:
        await client.send(ask())
        last = -1
        while last != sent:
            last = sent
            await asyncio.sleep(0.3)  # nothing tells that nothing more comes
        assert sent < 60 * 1024 * 1024
        (exchange,) = [connection for connection in bed.gateway.connections if not connection.idle]
        assert exchange.write_paused
