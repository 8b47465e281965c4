"""The client's side of HTTP: connections that are kept, dropped, cut, and given up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from moorage_common.http.client import AnswerTooLong, Pool, UpstreamConnection, UpstreamGone
from moorage_common.http.message import Answer, Request
from moorage_common.http.responder import Responder
from tests.unit.common.support import Source, listening, until

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.status = 0
        self.content = b""
        self.flow: UpstreamConnection | None = None

    def head(self, status: int, headers: dict[bytes, bytes], flow: UpstreamConnection) -> None:
        self.status, self.flow = status, flow

    def body(self, data: bytes) -> None:
        self.content += data


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[tuple[Pool, list[int]]]:
    """Listen; the n-th connection is handled by the n-th script, further ones by the last."""
    accepted: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(len(accepted))
        try:
            await scripts[min(accepted[-1], len(scripts) - 1)](reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield pool, accepted
    finally:
        pool.close()
        server.close()
        await server.wait_closed()


def answering(*answers: bytes) -> Script:
    """Answer so many requests, then close."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return script


async def ask(pool: Pool) -> bytes:
    sink = Kept()
    await pool.exchange(pool.request_bytes("GET", "/"), sink)
    return sink.content


async def test_a_connection_is_used_again() -> None:
    async with scripted(answering(WHOLE, WHOLE, WHOLE)) as (pool, accepted):
        assert [await ask(pool) for _ in range(3)] == [b"ok"] * 3
        assert len(accepted) == 1


async def test_a_connection_that_is_to_close_is_not_kept() -> None:
    closing = WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with scripted(answering(closing, b"")) as (pool, accepted):
        assert [await ask(pool) for _ in range(2)] == [b"ok"] * 2
        assert len(accepted) == 2


async def test_a_stale_connection_is_replaced_once() -> None:
    async def one_then_drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(WHOLE)(reader, writer)
        await reader.readuntil(b"\r\n\r\n")  # the second request is read, and the connection dropped without a word

    async with scripted(one_then_drop, answering(WHOLE)) as (pool, accepted):
        assert [await ask(pool) for _ in range(2)] == [b"ok"] * 2
        assert len(accepted) == 2


async def test_a_fresh_connection_that_is_dropped_is_not_tried_again() -> None:
    async with scripted(answering(b"")) as (pool, accepted):
        with pytest.raises(UpstreamGone) as gone:
            await ask(pool)

        assert not gone.value.answered
        assert len(accepted) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nan answer without an end of its own",
        b"HTTP/1.1 2",
        b"this is not HTTP\r\n\r\n",
    ],
)
async def test_an_answer_that_is_cut_is_never_complete_and_never_asked_for_again(answer: bytes) -> None:
    async with scripted(answering(WHOLE, answer)) as (pool, accepted):
        await ask(pool)
        with pytest.raises(UpstreamGone) as gone:
            await ask(pool)

        assert gone.value.answered
        assert len(accepted) == 1


async def test_nothing_listens() -> None:
    async with scripted(answering(WHOLE)) as (pool, _):
        pass
    with pytest.raises(UpstreamGone, match="no connection"):
        await ask(pool)


async def test_a_connection_that_was_idle_for_long_is_not_trusted() -> None:
    async with scripted(answering(WHOLE, WHOLE)) as (pool, accepted):
        pool._idle_seconds = -1
        assert [await ask(pool) for _ in range(2)] == [b"ok"] * 2
        assert len(accepted) == 2


async def test_bytes_that_nobody_asked_for_end_a_kept_connection() -> None:
    async with scripted(answering(WHOLE + WHOLE), answering(WHOLE)) as (pool, _):
        assert [await ask(pool) for _ in range(2)] == [b"ok"] * 2


async def test_giving_up_closes_the_connection_at_once() -> None:
    closed = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        closed.set()

    async with scripted(endless) as (pool, accepted):
        task = asyncio.create_task(ask(pool))
        await until(lambda: bool(accepted))
        await asyncio.sleep(0.01)
        task.cancel()
        async with asyncio.timeout(1):
            await closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_sink_can_refuse_an_answer_that_grows_too_long() -> None:
    class Small(Kept):
        def body(self, data: bytes) -> None:
            raise AnswerTooLong("too long")

    async with scripted(answering(WHOLE)) as (pool, _):
        with pytest.raises(UpstreamGone, match="too long"):
            await pool.exchange(pool.request_bytes("GET", "/"), Small())


async def test_a_slow_reader_holds_the_other_side_back() -> None:
    source = Source()
    written = 0

    async def handler(request: Request, responder: Responder) -> None:
        nonlocal written
        responder.start(200, b"text/event-stream", flow=source)
        while written < 64 * 1024 * 1024:
            if not source.paused:
                responder.write(b"x" * 65536)
                written += 65536
            await asyncio.sleep(0)
        responder.finish()

    class Slow(Kept):
        def body(self, data: bytes) -> None:
            assert self.flow is not None
            self.flow.pause()

    async with listening(handler) as server:
        pool = Pool("127.0.0.1", server.port)
        task = asyncio.create_task(pool.exchange(pool.request_bytes("GET", "/"), Slow()))
        await until(lambda: source.paused)
        assert written < 32 * 1024 * 1024
        task.cancel()
        await asyncio.wait([task])


async def test_a_request_carries_nothing_of_a_client() -> None:
    async def echo(request: Request, responder: Responder) -> None:
        responder.send(Answer(200, b"; ".join(sorted(request.headers))))

    async with listening(echo) as server:
        pool = Pool("127.0.0.1", server.port)
        sink = Kept()
        await pool.exchange(pool.request_bytes("POST", "/", b"{}"), sink)
        pool.close()

    assert sink.content == b"content-length; content-type; host"
