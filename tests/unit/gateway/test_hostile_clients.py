"""Clients that are slow, leave, flood or do not read: they keep nothing for long, and nobody else notices."""

import asyncio
import resource
import socket
import struct
from contextlib import AsyncExitStack, suppress

import pytest

from moorage_common.http.message import Limits
from tests.unit.common.support import Client, post, until
from tests.unit.gateway.support import CHAT, KEY, OK, Bed, Pod, answers, running

ASK = post(b'{"model":"chat"}', f"Authorization: Bearer {KEY}", path=CHAT)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
IDLE = 1500


def endless(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
    """Stream for ever, as fast as it is taken."""

    async def write() -> None:
        writer.write(STREAM)
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)

    pod.task = asyncio.ensure_future(write())  # type: ignore[attr-defined]


async def nothing_is_left(bed: Bed, pod: Pod, seconds: float = 1.0) -> None:
    """No request is in flight, and the pod has been told."""
    backends = next(iter(bed.table)).backends
    await until(lambda: not pod.open and not any(endpoint.in_flight for endpoint in backends), seconds)


def reset(client: Client) -> None:
    """End a connection by a reset."""
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
async def test_bad_input_53_however_a_client_leaves_its_stream_ends_within_a_second(how: str) -> None:
    async with running(endless) as (bed, [pod]), bed.gateway.client() as client:
        await client.send(ASK)
        await client.head()
        if how == "reset":
            reset(client)
        elif how == "close":
            client.writer.close()
        else:
            client.writer.write_eof()
        await nothing_is_left(bed, pod)
        assert [exchange.error for exchange in bed.ended] == ["client"]


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_bad_input_53_a_client_that_leaves_before_the_answer_takes_its_request_along(how: str) -> None:
    async with running(lambda _pod, _request, _writer: None) as (bed, [pod]), bed.gateway.client() as client:
        await client.send(ASK)
        await until(lambda: bool(pod.requests))
        reset(client) if how == "reset" else client.writer.close()
        await nothing_is_left(bed, pod)


async def test_bad_input_52_a_client_that_does_not_read_loses_its_place_and_others_do_not_notice() -> None:
    async with running(endless, limits=Limits(write_stall_seconds=0.5)) as (bed, [pod]), bed.gateway.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(ASK)
        await until(lambda: any(connection.write_paused for connection in bed.gateway.connections))
        begun = asyncio.get_running_loop().time()
        await nothing_is_left(bed, pod, 5)
        # From the moment when nothing more could be written; what the kernel holds before that is not its place.
        assert asyncio.get_running_loop().time() - begun < 1.5
        assert [exchange.error for exchange in bed.ended] == ["client"]


async def test_a_client_that_reads_slowly_but_reads_is_served() -> None:
    size = 3_000_000
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    async with (
        running(answers(whole), limits=Limits(write_stall_seconds=0.3)) as (bed, _),
        bed.gateway.client() as client,
    ):
        await client.send(ASK)
        await client.head()
        got = 0
        while got < size:
            got += len(await client.reader.read(200_000))
            await asyncio.sleep(0.02)  # that is how slowly it reads
        assert got == size


async def test_bad_input_52_thousands_of_idle_connections_keep_nobody_out() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 3 * IDLE), hard))
    try:
        async with running(answers(), limits=Limits(head_seconds=3.0)) as (bed, _), AsyncExitStack() as stack:
            for number in range(IDLE):
                client = await stack.enter_async_context(bed.gateway.client())
                if number % 2:
                    client.writer.write(ASK[:40])
            await until(lambda: len(bed.gateway.connections) == IDLE)
            for _ in range(10):
                assert (await bed.gateway.ask(ASK)).status == 200
            await until(lambda: not bed.gateway.connections, 8)
            assert (await bed.gateway.ask(ASK)).status == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_bad_input_52_a_flood_of_pipelined_requests_is_answered_in_order_up_to_a_limit_and_then_refused() -> None:
    def numbered(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK.replace(b"{}", b"%02d" % len(pod.requests)))

    async with running(numbered) as (bed, [pod]), bed.gateway.client() as client:
        await client.send(ASK * 100)
        replies = []
        while (reply := await client.reply()).status == 200:
            replies.append(int(reply.body))
        assert replies == list(range(1, len(replies) + 1))
        assert len(replies) == len(pod.requests) == Limits().pipelined + 2
        assert (reply.status, reply.headers["connection"]) == (429, "close")
        assert await client.closed()


async def test_garbage_behind_a_request_does_not_take_its_answer_along() -> None:
    release = asyncio.Event()

    def wait(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        async def answer() -> None:
            await release.wait()
            writer.write(OK)

        pod.task = asyncio.ensure_future(answer())  # type: ignore[attr-defined]

    async with running(wait) as (bed, [pod]), bed.gateway.client() as client:
        await client.send(ASK + b"\0garbage")
        await until(lambda: bool(pod.requests))
        release.set()
        assert (await client.reply()).status == 200
        assert (await client.reply()).status == 400
        assert await client.closed()
