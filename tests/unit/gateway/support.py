"""Pods that answer as a test says, a gateway in front of them, and people with keys."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from moorage_common.http.connections import Connections
from moorage_common.http.message import Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection
from moorage_gateway.access import Access, User
from moorage_gateway.alias import Aliases
from moorage_gateway.desk import Desk
from moorage_gateway.exchange import Exchange
from moorage_gateway.front import Begun, Front
from moorage_gateway.hold import HoldLimits, Lobby
from moorage_gateway.keys import ApiKey, Keys
from moorage_gateway.routing import ModelKey, Table
from moorage_gateway.templates import Templates
from tests.unit.common.support import Client, Listening, until

CHAT = "/v1/chat/completions"
MODEL = ModelKey("team-a", "chat")
SECRET = "s3cret"
KEY = f"mrg_tester_{SECRET}"
DIGEST = bytes.fromhex("1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

Script = Callable[["Pod", bytes, asyncio.StreamWriter], None]


@dataclass
class Pod:
    """A server of one model: each request is whole when the script sees it."""

    script: Script
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    """Connections that have not ended."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection has been closed by the other side."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                body = await reader.readexactly(int(length.split(b":")[1]))
                self.requests.append(head + body)
                self.script(self, head + body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()
            self.open -= 1


def answers(content: bytes = OK) -> Script:
    """Answer every request so."""
    return lambda _pod, _request, writer: writer.write(content)


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged that should not be: warnings but of failed logins, and exceptions that only the loop caught."""
    return [
        record.getMessage()
        for record in caplog.records
        if (record.name.startswith("moorage") and record.name != "moorage.audit" and record.levelname != "INFO")
        or "Fatal error" in record.getMessage()
    ]


@dataclass
class Nobody:
    """An API server that knows some tokens, and what they may use."""

    users: dict[str, User] = field(default_factory=dict)
    allowed: set[tuple[str, ModelKey]] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    async def who(self, token: str) -> User | None:
        self.asked.append(f"who {token}")
        await asyncio.sleep(0)
        return self.users.get(token)

    async def may_generate(self, user: User, key: ModelKey) -> bool:
        self.asked.append(f"{user.name} {key}")
        await asyncio.sleep(0)
        return (user.name, key) in self.allowed


@dataclass
class Bed:
    """A gateway with its table; `gateway` is where it listens."""

    gateway: Listening
    table: Table
    keys: Keys
    reviews: Nobody
    ended: list[Exchange]
    desk: Desk
    front: Front
    stack: AsyncExitStack
    aliases: Aliases
    templates: Templates
    taken: list[Request]
    """The requests that were read."""
    lobby: Lobby | None = None

    async def start(self, content: bytes) -> Client:
        """Send a request on a connection of its own, which is closed at the end of the test at the latest."""
        return await self.stack.enter_async_context(begun(self.gateway.port, content))


@asynccontextmanager
async def begun(port: int, content: bytes) -> AsyncIterator[Client]:
    """A connection on which a request was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        client = Client(reader, writer)
        await client.send(content)
        yield client
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def connecting() -> bool:
    """Whether a connection to a pod is being made: it is, until its end, also for a client that has left."""
    return any(getattr(task.get_coro(), "__qualname__", "") == "Exchange._connect" for task in asyncio.all_tasks())


@asynccontextmanager
async def running(
    *scripts: Script, limits: Limits | None = None, hold: HoldLimits | None = None, desk: Desk | None = None
) -> AsyncIterator[tuple[Bed, list[Pod]]]:
    """A gateway whose model `team-a/chat` has a pod for each script; the key `tester` may use it.

    Where it holds requests, the pods are there, but not ready: a test says when they are.
    """
    lobby = Lobby(hold) if hold is not None else None
    table, reviews = Table(lobby), Nobody()
    ended: list[Exchange] = []
    keys = Keys(lambda: 0.0)
    keys.put("uid", ApiKey(id="tester", digest=DIGEST, models=frozenset({MODEL})))
    aliases, templates = Aliases(table), Templates()
    clock = asyncio.get_running_loop().time
    desk = desk or Desk(clock)
    desk.on_end = ended.append
    front = Front(table, Access(keys, reviews, clock), desk, aliases=aliases, templates=templates)
    taken: list[Request] = []

    def handler(request: Request, responder: Responder) -> Begun:
        taken.append(request)
        return front(request, responder)

    connections = Connections()
    pods = [Pod(script) for script in scripts]
    async with AsyncExitStack() as stack:
        for pod in pods:
            server = await asyncio.start_server(pod.serve, "127.0.0.1", 0)
            pod.port = server.sockets[0].getsockname()[1]
            stack.callback(server.close)
        listening = Listening(0, connections)
        server = await asyncio.get_running_loop().create_server(
            lambda: ServerConnection(
                handler,
                limits=limits or Limits(),
                connections=connections,
                is_draining=lambda: listening.draining,
                judge=front.judge,
            ),
            "127.0.0.1",
            0,
        )
        stack.callback(server.close)
        listening.port = server.sockets[0].getsockname()[1]
        table.put(MODEL, "chat")
        if hold is None:
            table.move(MODEL, [("127.0.0.1", pod.port) for pod in pods])
        yield Bed(listening, table, keys, reviews, ended, desk, front, stack, aliases, templates, taken, lobby), pods
        for connection in list(connections):
            connection.abort()
        for endpoint in table.backends(MODEL):
            endpoint.pool.close()
        await until(lambda: not connecting())
        for _ in range(3):  # a pod learns in the next turns of the loop of a connection that was made just now
            await asyncio.sleep(0)
        await until(lambda: not connections and not any(pod.open for pod in pods))
