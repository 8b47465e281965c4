"""A server with a handler of the test's own, and a client that speaks bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from moorage_common.http.connections import Connections
from moorage_common.http.message import Answer, Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection

DEADLINE = 10.0


async def until(true: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Source:
    """A flow that remembers whether it was held back."""

    def __init__(self) -> None:
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


@dataclass
class Listening:
    """A server on a free port."""

    port: int
    connections: Connections
    requests: list[Request] = field(default_factory=list)
    draining: bool = False

    @asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        """Connect to it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def ask(self, content: bytes) -> "Reply":
        """Send bytes on a connection of their own and read one answer."""
        async with self.client() as client:
            await client.send(content)
            return await client.reply()


@dataclass
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True

    @property
    def error(self) -> dict[str, Any]:
        """The error of an OpenAI body."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


@dataclass
class Client:
    """A connection to the server, by bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, content: bytes) -> None:
        """Send bytes."""
        self.writer.write(content)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def head(self) -> Reply:
        """Read the head of an answer."""
        async with asyncio.timeout(DEADLINE):
            head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return Reply(int(first.split()[1]), headers, b"")

    async def reply(self) -> Reply:
        """Read an answer whole, or up to where it was broken off."""
        reply = await self.head()
        if reply.status < 200:
            return reply
        async with asyncio.timeout(DEADLINE):
            if "content-length" in reply.headers:
                reply.body = await self.reader.readexactly(int(reply.headers["content-length"]))
            elif "transfer-encoding" in reply.headers:
                reply.complete = False
                with suppress(asyncio.IncompleteReadError):
                    while size := int(await self.reader.readuntil(b"\r\n"), 16):
                        reply.body += (await self.reader.readexactly(size + 2))[:-2]
                    await self.reader.readexactly(2)
                    reply.complete = True
            else:
                reply.body = await self.reader.read()
        return reply

    async def closed(self) -> bool:
        """Wait until the server closes."""
        async with asyncio.timeout(DEADLINE):
            with suppress(ConnectionError):
                return await self.reader.read() == b""
        return True


@asynccontextmanager
async def listening(
    handler: Callable[[Request, Responder], Awaitable[None]] | None = None,
    limits: Limits | None = None,
    *,
    at_once: Callable[[Request, Responder], None] | None = None,
) -> AsyncIterator[Listening]:
    """Serve with `handler`, by default with one that says what it got, or with a plain one that answers `at_once`."""
    connections = Connections()
    found = Listening(0, connections)

    async def remember(request: Request, responder: Responder) -> None:
        found.requests.append(request)
        if handler is not None:
            await handler(request, responder)
        else:
            responder.send(Answer(200, request.body))

    server = await asyncio.get_running_loop().create_server(
        lambda: ServerConnection(
            at_once or remember, limits=limits or Limits(), connections=connections, is_draining=lambda: found.draining
        ),
        "127.0.0.1",
        0,
    )
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await until(lambda: not connections)


def post(body: bytes = b"", *headers: str, path: str = "/", version: str = "1.1") -> bytes:
    """Write a POST request."""
    lines = [f"POST {path} HTTP/{version}", "Host: test", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def get(path: str = "/", *headers: str, version: str = "1.1") -> bytes:
    """Write a GET request."""
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: test", *headers, "", ""]).encode()
