"""What children that answer HTTP themselves share: a listener on a free port of loopback, and the flow of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from moorage_common.http.connections import Connections
from moorage_common.http.message import Limits
from moorage_common.http.server import ServerConnection
from moorage_runtime.engines.base import LOOPBACK

if TYPE_CHECKING:
    from moorage_common.http.message import Request
    from moorage_common.http.responder import Responder

BACKLOG: Final = 1024

# The front has kept the clients' limits: what it writes anew may be longer than what it read, and its connections stay.
LIMITS: Final = Limits(body_bytes=64 * 1024 * 1024, buffered_bytes=1024 * 1024 * 1024, keep_alive_seconds=3600.0)


async def listen(handle: Callable[[Request, Responder], Coroutine[Any, Any, None]]) -> tuple[asyncio.Server, int]:
    """Begin to answer the front; give the server and its port."""
    connections = Connections()
    server = await asyncio.get_running_loop().create_server(
        lambda: ServerConnection(handle, limits=LIMITS, connections=connections, is_draining=lambda: False),
        LOOPBACK,
        0,
        backlog=BACKLOG,
    )
    return server, server.sockets[0].getsockname()[1]


class Flow:
    """The flow of a stream: writers wait while the other side does not read."""

    def __init__(self) -> None:
        """Begin open."""
        self.open = asyncio.Event()
        self.open.set()

    def pause(self) -> None:
        """Write no more for now."""
        self.open.clear()

    def resume(self) -> None:
        """Write again."""
        self.open.set()
