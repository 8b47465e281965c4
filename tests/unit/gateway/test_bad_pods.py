"""What a pod may not send: whoever owns a model must not reach the clients of others through the gateway."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic

import h11
import pytest

from moorage_common.http import message
from tests.unit.common.support import Client, post, until
from tests.unit.gateway.support import CHAT, KEY, OK, Bed, Pod, Script, answers, faults, running

BODY = b'{"model":"chat","messages":[]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
STREAM = CHUNKED.replace(b"application/json", b"text/event-stream")
INJECTED = b"HTTP/1.1 200 OK\r\nX-Injected: 1\r\nContent-Length: 7\r\n\r\nowned!!"


def ask(*headers: str) -> bytes:
    return post(BODY, f"Authorization: Bearer {KEY}", *headers, path=CHAT)


def in_pieces(pieces: Iterable[bytes], *, close: bool = False) -> Script:
    """Send an answer piece by piece, each in a packet of its own."""

    def script(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        async def write() -> None:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.005)  # a packet of its own
            if close:
                writer.close()

        pod.task = asyncio.ensure_future(write())  # type: ignore[attr-defined]

    return script


async def told(client: Client, request: bytes) -> tuple[bytes, bytes]:
    """The body that a strict client reads of the answer (empty where it is none), and all bytes that it was sent."""
    await client.send(request)
    strict, sent, body = h11.Connection(h11.CLIENT), b"", b""
    strict.send(h11.Request(method="POST", target=CHAT, headers=[("Host", "a"), ("Content-Length", "0")]))
    strict.send(h11.EndOfMessage())
    with suppress(h11.RemoteProtocolError, ConnectionError):
        while not isinstance(event := strict.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
            if isinstance(event, h11.Data):
                body += event.data
            elif event is h11.NEED_DATA:
                async with asyncio.timeout(5):
                    data = await client.reader.read(65536)
                sent += data
                strict.receive_data(data)
        return (body if isinstance(event, h11.EndOfMessage) else b""), sent
    return b"", sent


REFUSED = {
    "not-http": b"nonsense\r\n\r\n",
    "a-web-of-its-own": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "rtsp": b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "http-0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "blank-lines-before": b"\r\n\r\n" + OK,
    "blank-lines-before-that-split": b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + INJECTED,
    "one-blank-line-before": b"\r\n" + OK,
    "status-of-two-digits": OK.replace(b"200", b"20"),
    "status-of-four-digits": OK.replace(b"200", b"2000"),
    "status-that-is-none": OK.replace(b"200", b"-20"),
    "no-content-with-content": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
    "no-content-in-chunks": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
    "not-modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "a-storm-of-hints": b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 1000,
    "another-protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + OK,
    "bare-newlines": OK.replace(b"\r\n", b"\n"),
    "a-bare-newline-at-the-end-of-the-head": OK.replace(b"\r\n\r\n", b"\r\n\n"),
    "a-bare-return": HEAD + b"X: a\rContent-Length: 2\r\n\r\n{}",
    "folded": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "nul": HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "control-characters": HEAD + b"X: a\x01b\x7f\r\nContent-Length: 2\r\n\r\n{}",
    "blank-before-the-colon": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "no-colon": HEAD + b"X\r\nContent-Length: 2\r\n\r\n{}",
    "two-lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two-lengths-that-differ": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a-list-of-lengths": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "an-empty-length": HEAD + b"Content-Length:\r\n\r\n{}",
    "a-signed-length": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "a-length-in-hex": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "a-length-without-end": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    "length-and-chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "neither-length-nor-chunks": HEAD + b"\r\n{}",
    "chunks-of-something": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two-encodings": HEAD + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked-twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "not-chunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a-head-without-end": HEAD + b"X: y\r\n" * 20_000,
    "a-header-without-end": HEAD + b"X: " + b"y" * 100_000,
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
async def test_bad_input_44_an_answer_that_is_not_one_clear_answer_is_an_error(
    content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(in_pieces([content], close=True)) as (bed, _), bed.gateway.client() as client:
        await client.send(ask())
        reply = await client.reply()

        assert reply.status in {502, 503}
        assert reply.error["code"] in {"backend_gone", "model_not_ready"}
        assert b"owned" not in reply.body
        # The client's connection is good for more.
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).body == b'{"status":"ok"}'
    assert not faults(caplog)


@pytest.mark.parametrize("status", [299, 420, 499, 520, 799, 999])
async def test_bad_input_44_a_status_that_nobody_knows_is_an_error(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(answers(OK.replace(b"200", b"%d" % status))) as (bed, _):
        reply = await bed.gateway.ask(ask())

        assert (reply.status, reply.error["code"]) == (502, "backend_gone")
    assert not faults(caplog)


BEHIND = {
    "another-answer": INJECTED,
    "a-line-end": b"\r\n",
    "many-line-ends": b"\r\n" * 4,
    "a-newline": b"\n",
    "a-letter": b"H",
    "a-nul": b"\0",
}
WHOLE = {"length": HEAD + b"Content-Length: 2\r\n\r\n{}", "chunks": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("pieces", [1, 2, 3], ids=["at-once", "body-apart", "end-apart"])
async def test_bad_input_44_what_comes_behind_an_answer_reaches_nobody(
    whole: bytes, behind: bytes, pieces: int
) -> None:
    cut = {1: [], 2: [whole.index(b"\r\n\r\n") + 4], 3: [len(whole) - 3]}[pieces]
    content = whole + behind
    parts = [content[begin:end] for begin, end in zip([0, *cut], [*cut, len(content)], strict=True)]

    async with running(in_pieces(parts)) as (bed, _), bed.gateway.client() as client:
        body, sent = await told(client, ask())
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.03):
                sent += await client.reader.read(65536)

        # All of the answer, a part of it and then a cut connection, or an error of ours: nothing of what came behind.
        assert b"owned" not in sent
        framed = sent.partition(b"\r\n\r\n")[2]
        assert whole.partition(b"\r\n\r\n")[2].startswith(framed) or b'"code":' in framed
        assert body in {b"{}", b""} or b'"code":' in body
        # Nor has anybody else got it: whoever asks next has a connection of their own to the pod, and a right answer.
        assert [endpoint.pool.take(monotonic()) for endpoint in next(iter(bed.table)).backends] == [None]


async def test_bad_input_44_bytes_that_nobody_asked_for_never_become_the_next_clients_answer() -> None:
    late = asyncio.Event()

    def poison(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        async def write() -> None:
            writer.write(WHOLE["length"])
            await late.wait()
            writer.write(INJECTED)

        if pod.connections == 1:
            pod.task = asyncio.ensure_future(write())  # type: ignore[attr-defined]
        else:
            writer.write(WHOLE["chunks"])

    async with running(poison) as (bed, [pod]), bed.gateway.client() as client:
        assert (await bed.gateway.ask(ask())).body == b"{}"
        late.set()
        await pod.gone.wait()  # the gateway has dropped that connection
        await client.send(ask())
        assert (await client.reply()).body == b"{}"
        assert pod.connections == 2


async def test_bad_input_44_bytes_that_come_with_the_next_request_end_that_connection_too() -> None:
    """The pod answers before it was asked; the gateway could take that for the answer to its next request."""

    def eager(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(WHOLE["length"])
        if pod.connections == 1:
            asyncio.get_running_loop().call_later(0.02, writer.write, b"\r\n\r\n" + INJECTED)

    async with running(eager) as (bed, _):
        replies = [await bed.gateway.ask(ask()) for _ in range(50)]

    assert {reply.body for reply in replies if reply.status == 200} == {b"{}"}
    assert all(reply.status == 200 or reply.error["code"] == "model_not_ready" for reply in replies)


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n", b"2 \r\n{}\r\n", b"0x2\r\n{}\r\n", b"+2\r\n{}\r\n", b"2\n{}\r\n", b"2;\n\r\n{}\r\n"]
)
@pytest.mark.parametrize("apart", [True, False])
async def test_bad_input_44_chunks_that_cannot_be_read_end_the_answer(chunks: bytes, apart: bool) -> None:
    pieces = [STREAM, chunks] if apart else [STREAM + chunks]
    async with running(in_pieces(pieces)) as (bed, _), bed.gateway.client() as client:
        body, sent = await told(client, ask())

        assert body == b"" or b'"code":' in body
        assert chunks not in sent
        if apart:
            assert await client.closed()


@pytest.mark.parametrize("cut", range(len(b"7\r\ndata: 1\r\n6\r\ndata")))
async def test_fault_29_wherever_a_stream_breaks_off_it_is_seen_to_be_broken(cut: int) -> None:
    begun = b"7\r\ndata: 1\r\n6\r\ndata"[:cut]
    async with running(in_pieces([STREAM, begun], close=True)) as (bed, _), bed.gateway.client() as client:
        await client.send(ask())
        reply = await client.head()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            seen = b""
            while size := int(await client.reader.readuntil(b"\r\n"), 16):
                seen += (await client.reader.readexactly(size + 2))[:-2]
        assert reply.status == 200
        # Where a chunk was whole, one of ours can follow and tells what happened.
        assert (b'"code":"backend_gone"' in seen) == (cut in {0, 12})


async def test_an_answer_before_the_request_was_read_is_passed_on_and_the_connection_not_kept() -> None:
    """A pod that refuses a body by its head answers and closes while the gateway still writes."""

    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            writer.write_eof()
            with suppress(ConnectionError):
                await reader.read()
        finally:
            writer.close()
            ended.set()

    async with running(answers()) as (bed, _):
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        model = next(iter(bed.table))
        model.backends.update([("127.0.0.1", port)])
        body = b'{"model":"chat","messages":"' + b"x" * 3_000_000 + b'"}'
        reply = await bed.gateway.ask(post(body, f"Authorization: Bearer {KEY}", path=CHAT))
        assert (reply.status, reply.body) == (413, b"{}")
        assert [endpoint.pool.take(monotonic()) for endpoint in model.backends] == [None]
        server.close()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_pods_that_accept_and_reset_leave_nobody_waiting() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with running() as (bed, _):
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        bed.table.backends(next(iter(bed.table)).key).update([("127.0.0.1", port)])
        replies = await asyncio.gather(*(bed.gateway.ask(ask()) for _ in range(200)))
        assert {reply.status for reply in replies} == {503}
        await _quiet(bed)
        server.close()


async def _quiet(bed: Bed) -> None:
    """Nothing is in flight any more."""
    await until(lambda: not any(endpoint.in_flight for model in bed.table for endpoint in model.backends))


async def test_bad_input_44_a_stream_with_a_length_that_breaks_off_gets_nothing_that_was_not_framed() -> None:
    """Whatever is behind its length would be the next answer, and what fills it would make it look whole."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 60\r\n\r\n"
    async with running(in_pieces([head + b"data: 1\n\n"], close=True)) as (bed, _), bed.gateway.client() as client:
        await client.send(ask())
        assert (await client.head()).headers["content-length"] == "60"
        seen = b""
        with suppress(ConnectionError):
            while piece := await client.reader.read(1000):
                seen += piece
        assert seen == b"data: 1\n\n"


async def test_bad_input_60_long_types_of_content_are_not_remembered() -> None:
    message._HEADS.clear()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: x/%b%d\r\nContent-Length: 2\r\n\r\n{}"

    def script(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head % (b"y" * 50_000, len(pod.requests)))

    async with running(script) as (bed, _):
        for _ in range(3):
            assert (await bed.gateway.ask(ask())).status == 200
    assert sum(map(len, message._HEADS.values())) < 10_000
