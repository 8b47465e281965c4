"""The way to the management API: who gets there, what of a request does, and what becomes of its answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moorage_gateway import management
from moorage_gateway.front import Front
from moorage_gateway.hold import State
from moorage_gateway.keys import ApiKey
from moorage_gateway.logins import FAILURES_A_MINUTE
from moorage_gateway.management import Management
from tests.unit.common.support import Reply, get, post, until
from tests.unit.gateway.support import DIGEST, KEY, MODEL, OK, SECRET, Bed, answers, running

TOKEN = "Authorization: Bearer a.b.c"
PLAIN = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: "7"\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}'
ORDER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Moorage-Go-On: team-a/chat\r\n"
    b'X-Moorage-Caller: somebody\r\nContent-Length: 15\r\n\r\n{"prompt": "x"}'
)


@dataclass
class Api:
    """A management API that says what a test wants it to say."""

    path: str
    say: Callable[[asyncio.StreamWriter], None]
    requests: list[bytes] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        self.writers.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
            body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
            self.requests.append(head + body)
            self.say(writer)
            await reader.read(1)
            self.left.set()
        finally:
            writer.close()
            self.writers.discard(writer)

    async def end(self) -> None:
        """Let go of those who still wait."""
        for writer in self.writers:
            writer.close()
        await until(lambda: not self.writers)


def says(content: bytes) -> Callable[[asyncio.StreamWriter], None]:
    """Say it, and end."""

    def say(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        writer.write_eof()

    return say


def goes_on(content: bytes) -> Callable[[asyncio.StreamWriter], None]:
    """Say it, and say no more."""
    return lambda writer: writer.write(content)


@asynccontextmanager
async def managed(
    folder: Path, say: Callable[[asyncio.StreamWriter], None] | None = None, *, up: bool = True, pod: bytes = OK
) -> AsyncIterator[tuple[Bed, Api]]:
    """A gateway with a management API, and the keys `tester` for a model, `boss` to manage, `both`."""
    api = Api(str(folder / "s"), say or says(PLAIN))
    async with running(answers(pod)) as (bed, _):
        for identity, scopes in (("boss", {"manage"}), ("both", {"manage", "generate"})):
            key = ApiKey(id=identity, digest=DIGEST, scopes=frozenset(scopes), models=frozenset({MODEL}))
            bed.keys.put(identity, key)
        front: Front = bed.front
        front.management = Management(api.path, bed.keys.caller, front.go_on)
        server = await asyncio.start_unix_server(api.serve, api.path) if up else None
        yield bed, api
        if server is not None:
            server.close()
        await api.end()


async def ask(bed: Bed, path: str, *headers: str) -> Reply:
    return await bed.gateway.ask(get(path, *headers))


async def test_a_token_and_few_headers_reach_the_api_and_few_come_back(tmp_path: Path) -> None:
    async with managed(tmp_path) as (bed, api):
        more = ['If-Match: "7"', "Cookie: a=b", "X-Moorage-Key: boss", "X-Forwarded-For: 1.2.3.4", "X-Request-Id: r"]
        reply = await ask(bed, "/api/models/a/b?x=1&y=%2F", TOKEN, *more)
    head, *lines = api.requests[0].decode().strip().lower().split("\r\n")
    assert head == "get /api/models/a/b?x=1&y=%2f http/1.1"
    assert set(lines) == {
        "host: localhost", "connection: close", "authorization: bearer a.b.c", "if-match: \"7\"", "x-request-id: r"
    }  # fmt: skip
    assert (reply.status, reply.body) == (200, b"{}")
    assert reply.headers["etag"] == '"7"'
    assert "server" not in reply.headers


async def test_a_body_reaches_the_api_as_it_is(tmp_path: Path) -> None:
    async with managed(tmp_path) as (bed, api):
        reply = await bed.gateway.ask(post(b'{"a": 1}', TOKEN, path="/api/models"))
    assert reply.status == 200
    assert api.requests[0].endswith(b"\r\n\r\n" + b'{"a": 1}')


async def test_cluster_02_while_keys_cannot_be_checked_none_may_manage_and_tokens_may(tmp_path: Path) -> None:
    async with managed(tmp_path) as (bed, api):
        bed.keys.checked = False
        refused = await ask(bed, "/api/models", f"Authorization: Bearer mrg_boss_{SECRET}")
        assert (refused.status, refused.error["code"]) == (503, "not_checked")
        assert api.requests == []
        assert (await ask(bed, "/api/models", TOKEN)).status == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/docs.js", "/docs/docs.css"])
async def test_the_pages_are_for_everybody_and_no_credential_goes_with_them(tmp_path: Path, path: str) -> None:
    async with managed(tmp_path) as (bed, api):
        assert (await ask(bed, path)).status == 200
        assert (await ask(bed, path, TOKEN)).status == 200
        assert not any(b"a.b.c" in request for request in api.requests)


@pytest.mark.parametrize(
    "header",
    [
        "X: y",
        "Authorization: Basic a:b",
        "Authorization: Bearer",
        f"Authorization: Bearer {KEY}x",
        "Authorization: Bearer a b",
    ],
)
@pytest.mark.parametrize("path", ["/api/models", "/api/nothing", "/docs/x"])
async def test_bad_input_41_without_a_credential_nothing_gets_through(tmp_path: Path, header: str, path: str) -> None:
    async with managed(tmp_path) as (bed, api):
        reply = await ask(bed, path, header)
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert api.requests == []


async def test_an_api_key_needs_its_scope_and_goes_on_as_its_id(tmp_path: Path) -> None:
    async with managed(tmp_path) as (bed, api):
        refused = await ask(bed, "/api/models", f"Authorization: Bearer {KEY}")
        assert (refused.status, refused.error["code"]) == (403, "forbidden")
        assert api.requests == []
        assert (await ask(bed, "/api/models", f"Authorization: Bearer mrg_boss_{SECRET}")).status == 200
        assert b"X-Moorage-Key: boss" in api.requests[0]
        assert SECRET.encode() not in api.requests[0]


@pytest.mark.parametrize(
    "path",
    ["/api/", "/api/a//b", "/api/a/../b", "/api/./a", "/api/a/", "/api/%61", "/api/a;b", "/api/a/b/c/d/e/f", "/docs/x"],
)
async def test_bad_input_43_what_is_no_plain_path_gets_no_further(tmp_path: Path, path: str) -> None:
    async with managed(tmp_path) as (bed, api):
        reply = await ask(bed, path, TOKEN)
        assert (reply.status, reply.error["code"]) == (404, "unknown_url")
        assert api.requests == []


@pytest.mark.parametrize("method", ["PATCH", "HEAD", "OPTIONS", "TRACE"])
async def test_bad_input_55_other_methods_are_405(tmp_path: Path, method: str) -> None:
    async with managed(tmp_path) as (bed, api):
        request = get("/api/models", TOKEN).replace(b"GET", method.encode(), 1)
        async with bed.gateway.client() as client:
            await client.send(request)
            assert (await client.head()).status == 405
        assert api.requests == []


async def test_while_it_is_down_it_is_503_and_models_are_served(tmp_path: Path) -> None:
    async with managed(tmp_path, up=False) as (bed, _):
        reply = await ask(bed, "/api/models", TOKEN)
        assert (reply.status, reply.error["code"]) == (503, "management_unavailable")
        assert reply.headers["retry-after"] == "1"
        assert (await ask(bed, "/v1/models", f"Authorization: Bearer {KEY}")).status == 200


async def test_an_answer_that_does_not_come_is_504(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(management, "HEAD_SECONDS", 0.05)
    async with managed(tmp_path, goes_on(b"")) as (bed, api):
        reply = await ask(bed, "/api/models", TOKEN)
        assert (reply.status, reply.error["code"]) == (504, "timeout")
        await api.left.wait()


async def test_more_at_once_than_there_is_room_for_are_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(management, "MOST_AT_ONCE", 1)
    async with managed(tmp_path, goes_on(b"")) as (bed, api), bed.gateway.client() as client:
        await client.send(get("/api/models", TOKEN))
        await until(lambda: len(api.requests) == 1)
        assert (await ask(bed, "/api/models", TOKEN)).status == 503


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n"


async def test_a_stream_comes_as_it_is_made_and_ends_with_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A log that is followed is silent for as long as it likes.
    monkeypatch.setattr(management, "HEAD_SECONDS", 0.05)
    async with managed(tmp_path, goes_on(STREAM)) as (bed, api):
        async with bed.gateway.client() as client:
            await client.send(get("/api/models/a/b/logs?follow=true", TOKEN))
            assert (await client.head()).status == 200
            async with asyncio.timeout(5):
                assert await client.reader.readuntil(b"one\n\r\n")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await client.reader.read(100)
        async with asyncio.timeout(5):
            await api.left.wait()


@pytest.mark.parametrize("said", [STREAM, PLAIN[:-1]])
async def test_an_answer_that_breaks_off_does_not_look_whole(tmp_path: Path, said: bytes) -> None:
    async with managed(tmp_path, says(said)) as (bed, _), bed.gateway.client() as client:
        await client.send(get("/api/models", TOKEN))
        head = await client.head()
        assert head.status == 200
        with suppress(ConnectionError):
            rest = await client.reader.read()
            whole = int(head.headers["content-length"]) if "content-length" in head.headers else None
            assert not rest.endswith(b"0\r\n\r\n") if whole is None else len(rest) < whole


async def test_what_may_be_generated_goes_to_the_model_and_not_back_to_the_api(tmp_path: Path) -> None:
    async with managed(tmp_path, says(ORDER)) as (bed, _):
        reply = await bed.gateway.ask(post(b"{}", TOKEN, path="/api/models/team-a/chat/generate"))
        assert (reply.status, reply.body) == (200, b"{}")
        assert "x-moorage-go-on" not in reply.headers
    (ended,) = bed.ended
    assert (ended.model, ended.caller, ended.status) == ("team-a/chat", "somebody", 200)


@pytest.mark.parametrize(("who", "status"), [("boss", 404), ("both", 200)])
async def test_a_key_that_manages_generates_only_with_that_scope_too(tmp_path: Path, who: str, status: int) -> None:
    async with managed(tmp_path, says(ORDER)) as (bed, _):
        credential = f"Authorization: Bearer mrg_{who}_{SECRET}"
        reply = await bed.gateway.ask(post(b"{}", credential, path="/api/models/team-a/chat/generate"))
        assert reply.status == status


async def test_a_model_that_has_gone_meanwhile_is_404(tmp_path: Path) -> None:
    async with managed(tmp_path, says(ORDER)) as (bed, _):
        bed.table.remove(MODEL)
        reply = await bed.gateway.ask(post(b"{}", TOKEN, path="/api/models/team-a/chat/generate"))
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("status", [401, 429])
async def test_bad_input_58_what_a_model_refuses_is_no_failed_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """Or whoever owns a pod could shut out the address of its clients, and fill the audit log."""
    pod = b"HTTP/1.1 401 No\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    async with managed(tmp_path, says(ORDER), pod=pod) as (bed, _):
        if status == 429:
            bed.table.put(MODEL, "chat", state=State(takes=1))
            (endpoint,) = bed.table.backends(MODEL)
            endpoint.in_flight = 5
        for _ in range(FAILURES_A_MINUTE + 1):
            reply = await bed.gateway.ask(post(b"{}", TOKEN, path="/api/models/team-a/chat/generate"))
            assert reply.status == status
    assert not [record for record in caplog.records if record.getMessage() == "login failed"]
