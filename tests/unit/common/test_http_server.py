"""The server's side of HTTP: what is parsed, what is refused with which answer, and what closes the connection."""

import asyncio
import gc
import tracemalloc
from contextlib import AsyncExitStack, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage_common.http.message import Answer, Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection
from tests.unit.common.support import Source, get, listening, post, until

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_request_arrives_whole() -> None:
    async with listening() as server:
        reply = await server.ask(post(b"hello", "X-One: 1", "x-one: 2", path="/a%20b?c=d"))

    assert (reply.status, reply.body) == (200, b"hello")
    (request,) = server.requests
    assert (request.method, request.path, request.query, request.body) == ("POST", "/a%20b", b"c=d", b"hello")
    assert request.headers[b"x-one"] == b"1, 2"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(1, 200), max_size=6))
def test_a_request_may_come_in_any_pieces(cuts: list[int]) -> None:
    async def ask() -> None:
        content = CHUNKED + b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
        async with listening() as server, server.client() as client:
            for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(content)], strict=True):
                await client.send(content[begin:end])
                await asyncio.sleep(0)
            assert (await client.reply()).body == b"hello world"

    asyncio.run(ask())


async def test_a_connection_is_kept() -> None:
    async with listening() as server, server.client() as client:
        for number in range(3):
            await client.send(post(b"%d" % number))
            assert (await client.reply()).body == b"%d" % number
        assert len(server.connections) == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def slow_first(request: Request, responder: Responder) -> None:
        await asyncio.sleep(0.05 if request.body == b"1" else 0)
        responder.send(Answer(200, request.body))

    async with listening(slow_first) as server, server.client() as client:
        await client.send(post(b"1") + post(b"2") + post(b"3"))
        assert [(await client.reply()).body for _ in range(3)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("flood", [get() * 5000, b"x" * 1000])
async def test_what_is_too_much_behind_a_request_is_refused_behind_its_answer(flood: bytes) -> None:
    release = asyncio.Event()

    async def wait(request: Request, responder: Responder) -> None:
        await release.wait()
        responder.send(Answer(200, request.path.encode()))

    async with listening(wait, Limits(pipelined=4)) as server, server.client() as client:
        await client.send(get("/1") + get("/2") + flood)
        await until(lambda: bool(server.requests))
        release.set()
        assert [(await client.reply()).body for _ in range(2)] == [b"/1", b"/2"]
        while (reply := await client.reply()).status == 200:
            pass
        assert reply.status in {400, 429}
        assert await client.closed()
    assert len(server.requests) <= 6


@pytest.mark.parametrize("kept", [True, False])
async def test_bad_input_52_a_client_that_asks_on_but_never_reads_is_dropped_and_takes_no_memory(kept: bool) -> None:
    async def answer(request: Request, responder: Responder) -> None:
        if not kept or len(server.requests) == 1:
            responder.send(Answer(200, b"x" * 8_000_000))
        else:
            await asyncio.Event().wait()  # an answer that takes long: only the client's silence ends it

    limits = Limits(write_stall_seconds=0.3)
    async with listening(answer, limits) as server, server.client() as client:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await client.send(get() * 3)
        while server.connections and loop.time() - begun < 5:
            client.writer.write(get())
            await asyncio.sleep(0.01)
        assert not server.connections
        assert len(server.requests) < 20


async def test_answers_that_nobody_reads_do_not_gather() -> None:
    """Answers that come at once are not queued; a client that asks for them and never reads has to be held back."""

    def answer(request: Request, responder: Responder) -> None:
        responder.send(Answer(401, b"x" * 1000))

    async with listening(limits=Limits(write_stall_seconds=5), at_once=answer) as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    client.writer.write(get() * 100)
                    await client.writer.drain()
        (connection,) = server.connections
        assert isinstance(connection, ServerConnection)
        assert connection.write_paused
        buffered = connection._transport.get_write_buffer_size()
        assert buffered < 20_000_000


@pytest.mark.parametrize(("version", "header"), [("1.1", "Connection: close"), ("1.0", "X: y")])
async def test_a_connection_is_closed_when_asked_for(version: str, header: str) -> None:
    async with listening() as server, server.client() as client:
        await client.send(get("/", header, version=version))
        assert (await client.reply()).headers["connection"] == "close"
        assert await client.closed()


async def test_while_draining_every_answer_closes() -> None:
    async with listening() as server, server.client() as client:
        server.draining = True
        await client.send(get())
        assert (await client.reply()).headers["connection"] == "close"
        assert await client.closed()


async def test_an_offered_upgrade_is_not_taken_but_answered() -> None:
    async with listening() as server:
        upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA")
        reply = await server.ask(post(b"hello", *upgrade))

    assert (reply.status, reply.body) == (200, b"hello")
    assert b"upgrade" not in server.requests[0].headers


async def test_an_upgrade_whose_body_comes_later_waits_for_it() -> None:
    async with listening() as server, server.client() as client:
        content = post(b"hello", "Connection: Upgrade", "Upgrade: h2c")
        await client.send(content[:-3])
        await asyncio.sleep(0.01)
        await client.send(content[-3:] + get())
        assert [(await client.reply()).body for _ in range(2)] == [b"hello", b""]


async def test_a_tunnel_is_refused() -> None:
    async with listening() as server:
        assert (await server.ask(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")).status == 405


@pytest.mark.parametrize("target", ["http://test/v1/models", "http://other/", "*", "test:80", "v1/models", "?x", "#"])
async def test_bad_input_43_a_target_that_is_no_path_is_refused(target: str) -> None:
    async with listening() as server, server.client() as client:
        await client.send(get(target))
        assert (await client.reply()).status == 400
        assert await client.closed()
    assert server.requests == []


@pytest.mark.parametrize(
    "host",
    ["", "x/?", "x#", "x/..", "u@h", "a b", "a,b", "a\\b", "[::1", "::1", "a:b", "a:80:80", "<a>", "\xe4", '"a"'],
)
async def test_bad_input_43_a_host_that_is_none_is_refused(host: str) -> None:
    async with listening() as server:
        reply = await server.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
    assert (reply.status, server.requests) == (400, [])


@pytest.mark.parametrize("host", ["a", "a.example:8080", "10.0.0.1", "[::1]:8080", "my_service.ns.svc", "a:"])
async def test_a_host_may_be_any_name_or_address(host: str) -> None:
    async with listening() as server:
        assert (await server.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status == 200


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with listening() as server, server.client() as client:
        await client.send(post(b"hello", "Expect: 100-continue")[:-5])
        assert (await client.head()).status == 100
        await client.send(b"hello")
        assert (await client.reply()).body == b"hello"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(post(b"abc", "Content-Length: 3"), 400, id="two-lengths"),
        pytest.param(post(b"abc", "Content-Length: 4"), 400, id="two-lengths-that-differ"),
        pytest.param(post(b"0\r\n\r\n", "Transfer-Encoding: chunked"), 400, id="length-and-chunked"),
        pytest.param(CHUNKED[:-4] + b"\r\nContent-Length: 3\r\n\r\n", 400, id="chunked-and-length"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip, chunked") + b"0\r\n\r\n", 400, id="gzip-chunked"),
        pytest.param(CHUNKED.replace(b"chunked", b"xchunked"), 400, id="not-chunked"),
        pytest.param(CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n", 400, id="chunked-1.0"),
        pytest.param(CHUNKED + b"3\r\nabcd\r\n", 400, id="chunk-too-long"),
        pytest.param(CHUNKED + b"zz\r\n", 400, id="chunk-without-size"),
        pytest.param(CHUNKED + b"fffffffffffffffff\r\n", 400, id="chunk-size-overflow"),
        pytest.param(post().replace(b"Length: 0", b"Length: -1"), 400, id="negative-length"),
        pytest.param(post().replace(b"Length: 0", b"Length: +0"), 400, id="signed-length"),
        pytest.param(get("/", "X : y"), 400, id="blank-before-colon"),
        pytest.param(get("/", " folded"), 400, id="folded"),
        pytest.param(get("/", "X: a\0b"), 400, id="nul"),
        pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", 400, id="bare-newlines"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no-host"),
        pytest.param(get("/", "Host: b"), 400, id="two-hosts"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="http2"),
        pytest.param(b"GET /\r\n\r\n", 505, id="http-0.9"),
        pytest.param(get("/", "Expect: tea"), 417, id="expectation"),
        pytest.param(post(b"x", "Content-Encoding: gzip"), 415, id="gzip"),
        pytest.param(post(b"x", "Content-Encoding: zstd"), 415, id="zstd"),
    ],
)
async def test_bad_input_44_what_is_not_one_clear_request_is_refused_and_the_connection_closed(
    content: bytes, status: int
) -> None:
    async with listening() as server, server.client() as client:
        await client.send(content)
        reply = await client.reply()

        assert reply.status == status
        assert reply.error["type"] == "invalid_request_error"
        assert reply.headers["connection"] == "close"
        assert await client.closed()
    assert server.requests == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(get("/", f"X: {'a' * 17000}"), id="one-header"),
        pytest.param(get("/", *(f"X{n}: {'a' * 1000}" for n in range(17))), id="many-long-headers"),
        pytest.param(get("/", *(f"X{n}: a" for n in range(101))), id="many-headers"),
        pytest.param(get("/" + "a" * 17000), id="target"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 17000, id="without-end"),
        pytest.param(CHUNKED + b"0\r\n" + b"T: " + b"a" * 17000 + b"\r\n\r\n", id="trailer"),
    ],
)
async def test_bad_input_45_a_long_head_is_refused(content: bytes) -> None:
    async with listening() as server:
        reply = await server.ask(content)

    assert reply.status == 431
    assert server.requests == []


async def test_bad_input_46_a_long_body_is_refused_before_it_is_sent() -> None:
    async with listening(limits=Limits(body_bytes=1000)) as server:
        reply = await server.ask(post(b"", path="/").replace(b"Length: 0", b"Length: 1001"))

    assert reply.status == 413
    assert "1000 bytes" in reply.error["message"]


async def test_bad_input_46_chunks_without_end_are_refused_while_they_come() -> None:
    async with listening(limits=Limits(body_bytes=1000)) as server, server.client() as client:
        await client.send(CHUNKED + b"64\r\n%b\r\n" % (b"x" * 100) * 11)
        assert (await client.reply()).status == 413
    assert server.requests == []


async def test_the_largest_body_is_taken() -> None:
    async with listening(limits=Limits(body_bytes=1000)) as server:
        assert (await server.ask(post(b"x" * 1000))).status == 200


@pytest.mark.parametrize(
    "content", [pytest.param(b"GET / HT", id="head"), pytest.param(post(b"x" * 10)[:-1], id="body")]
)
async def test_bad_input_52_a_slow_request_is_ended(content: bytes) -> None:
    async with listening(limits=Limits(head_seconds=0.1, body_idle_seconds=0.1)) as server:
        assert (await server.ask(content)).status == 408


@pytest.mark.parametrize("before", [b"", get()])
async def test_an_idle_connection_is_closed(before: bytes) -> None:
    async with listening(limits=Limits(head_seconds=0.1, keep_alive_seconds=0.1)) as server, server.client() as client:
        if before:
            await client.send(before)
            await client.reply()
        assert await client.closed()


async def test_bytes_that_trickle_do_not_extend_the_head(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(limits=Limits(head_seconds=0.3)) as server, server.client() as client:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not client.reader.at_eof() and loop.time() - begun < 5:
            await client.send(b"a")
            try:
                await asyncio.wait_for(client.reader.read(1), 0.02)
                break
            except TimeoutError:
                continue
        assert loop.time() - begun < 2


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    cancelled = asyncio.Event()
    started = asyncio.Event()

    async def wait(request: Request, responder: Responder) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with listening(wait) as server:
        async with server.client() as client:
            await client.send(get())
            await started.wait()
        async with asyncio.timeout(1):
            await cancelled.wait()
        await until(lambda: not server.connections)


async def test_a_handler_that_fails_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request, responder: Responder) -> None:
        raise ValueError("secret")

    async with listening(fail) as server, server.client() as client:
        await client.send(get())
        reply = await client.reply()
        assert (reply.status, "secret" in reply.body.decode()) == (500, False)
        await client.send(get())
        assert (await client.reply()).status == 500
    assert "secret" in caplog.text


async def stream(responder: Responder, source: Source, pieces: int, size: int = 5) -> None:
    responder.start(200, b"text/event-stream", flow=source)
    for _ in range(pieces):
        responder.write(b"x" * size)


async def test_a_stream_ends_with_its_last_chunk() -> None:
    async def handler(request: Request, responder: Responder) -> None:
        await stream(responder, Source(), 3)
        responder.write(b"")  # nothing: an empty chunk would be the end
        responder.finish()

    async with listening(handler) as server, server.client() as client:
        for _ in range(2):
            await client.send(get())
            reply = await client.reply()
            assert (reply.body, reply.complete) == (b"x" * 15, True)


@pytest.mark.parametrize("fails", [True, False])
async def test_a_stream_that_is_not_finished_is_seen_to_be_cut(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request, responder: Responder) -> None:
        await stream(responder, Source(), 3)
        if fails:
            raise ValueError

    async with listening(handler) as server:
        reply = await server.ask(get())

    assert (reply.body, reply.complete) == (b"x" * 15, False)


async def test_http_1_0_gets_its_stream_without_chunks() -> None:
    async def handler(request: Request, responder: Responder) -> None:
        await stream(responder, Source(), 3)
        responder.finish()

    async with listening(handler) as server:
        reply = await server.ask(get(version="1.0"))

    assert (reply.body, reply.headers["connection"]) == (b"x" * 15, "close")


async def test_http_1_0_sees_a_cut_stream_as_a_reset() -> None:
    async def handler(request: Request, responder: Responder) -> None:
        await stream(responder, Source(), 3)
        await asyncio.sleep(0.05)
        responder.break_off()

    async with listening(handler) as server, server.client() as client:
        await client.send(get(version="1.0"))
        with pytest.raises(ConnectionResetError):
            await client.reply()


async def test_a_client_that_does_not_read_holds_its_source_back() -> None:
    source = Source()
    go_on = asyncio.Event()

    async def handler(request: Request, responder: Responder) -> None:
        responder.start(200, b"text/event-stream", flow=source)
        while not source.paused:
            responder.write(b"x" * 65536)
            await asyncio.sleep(0)
        await go_on.wait()
        responder.finish()

    async with listening(handler) as server, server.client() as client:
        await client.send(get())
        await until(lambda: source.paused)
        reading = asyncio.create_task(client.reply())
        await until(lambda: not source.paused)
        go_on.set()
        assert (await reading).complete


async def test_bad_input_52_a_client_that_never_reads_is_dropped() -> None:
    source = Source()

    async def handler(request: Request, responder: Responder) -> None:
        responder.start(200, b"text/event-stream", flow=source)
        while True:
            if not source.paused:
                responder.write(b"x" * 65536)
            await asyncio.sleep(0.001)

    async with listening(handler, Limits(write_stall_seconds=0.2)) as server, server.client() as client:
        await client.send(get())
        await until(lambda: source.paused)
        await until(lambda: not server.connections, 5)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_get_an_answer_or_an_end(content: bytes) -> None:
    async def ask() -> None:
        limits = Limits(head_seconds=0.05, body_idle_seconds=0.05, keep_alive_seconds=0.05, linger_seconds=0.05)
        async with listening(limits=limits) as server, server.client() as client:
            await client.send(b"GET /" + content)
            assert await client.closed() is not None

    asyncio.run(ask())


@pytest.mark.parametrize(
    "begin", [b"2\r\n{}\r\n0\r\nX-Trailer: ", b"2;name=", b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 3000], ids=str
)
async def test_bad_input_45_what_is_in_a_body_but_no_content_is_bounded_too(begin: bytes) -> None:
    async with listening() as server, server.client() as client:
        await client.send(CHUNKED + begin)
        for _ in range(40):
            await client.send(b"a" * 65536)
        assert (await client.head()).status == 431
        assert not server.requests


async def test_bad_input_52_a_body_that_comes_byte_by_byte_has_an_end() -> None:
    async with listening(limits=Limits(body_seconds=0.3, body_idle_seconds=10)) as server, server.client() as client:
        await client.send(post(b"x" * 1000)[:-1000])
        began = asyncio.get_running_loop().time()
        for _ in range(6):
            await client.send(b"x")
            await asyncio.sleep(0.1)  # that is how slowly it comes
        assert (await client.reply()).status == 408
        assert asyncio.get_running_loop().time() - began < 5


async def test_bad_input_46_all_bodies_together_are_bounded() -> None:
    release = asyncio.Event()

    async def wait(request: Request, responder: Responder) -> None:
        await release.wait()
        responder.send(Answer(200, b"%d" % len(request.body)))

    limits = Limits(buffered_bytes=100_000)
    async with listening(wait, limits) as server, server.client() as first, server.client() as second:
        await first.send(post(b"x" * 70_000))
        await until(lambda: bool(server.requests))
        await second.send(post(b"x" * 70_000))
        refused = await second.reply()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert server.connections.buffered >= 70_000
        release.set()
        assert (await first.reply()).body == b"70000"
        # What was answered makes room.
        assert (await server.ask(post(b"x" * 70_000))).status == 200
    await until(lambda: server.connections.buffered == 0)


async def test_more_connections_than_there_may_be_are_told_so() -> None:
    go_on = asyncio.Event()

    async def handler(_: Request, responder: Responder) -> None:
        await go_on.wait()
        responder.send(Answer(200, b"{}"))

    async with listening(handler, limits=Limits(connections=1)) as server, server.client() as first:
        await first.send(get())
        await until(lambda: any(not connection.idle for connection in server.connections))
        async with server.client() as second:
            assert (await second.reply()).status == 503
            assert await second.closed()
        await until(lambda: len(server.connections) == 1)
        go_on.set()
        assert (await first.reply()).status == 200


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"])
async def test_bad_input_52_connections_that_ask_nothing_keep_nobody_out(sent: bytes) -> None:
    async with AsyncExitStack() as stack, listening(limits=Limits(connections=20)) as server:
        for _ in range(30):
            client = await stack.enter_async_context(server.client())
            await client.send(sent)
        await until(lambda: len(server.connections) == 20)
        for _ in range(5):
            assert (await server.ask(get())).status == 200


async def test_a_body_that_was_given_up_is_let_go_at_once() -> None:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with listening() as server:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(5):
                async with server.client() as client:
                    await client.send(post(b"x" * 2_000_000)[:-1])
                    await until(lambda: server.connections.buffered > 1_900_000)
                await until(lambda: not server.connections)
            after, _ = tracemalloc.get_traced_memory()
        assert server.connections.buffered == 0
        assert after - before < 1_000_000
    finally:
        tracemalloc.stop()
        gc.enable()


async def test_bad_input_46_a_body_in_tiny_chunks_takes_no_more_than_is_counted() -> None:
    count = 200_000
    async with listening() as server, server.client() as client:
        await client.send(CHUNKED)
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(10):
                await client.send(b"1\r\nx\r\n" * (count // 10))
            await until(lambda: server.connections.buffered == count)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 4 * count
        await client.send(b"0\r\n\r\n")
        assert (await client.reply()).body == b"x" * count


async def test_bad_input_44_a_tunnel_is_refused_once(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as server, server.client() as client:
        await client.send(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
        assert (await client.reply()).status == 405
        assert await client.closed()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
