"""A pool that reaches a server on this host by a unix socket."""

import asyncio
import socket

from moorage_common.http.client import Pool, UpstreamConnection, UpstreamGone


class UnixPool(Pool):
    """Connections to a unix socket, a fresh one for each request: nothing is sent twice without our knowing."""

    def __init__(self, path: str) -> None:
        """Connect to the socket at `path` on demand."""
        super().__init__("localhost", 80, keep=0)
        self._path = path

    async def _connect(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            # That is done at once, or refused: by nobody there, or by a queue of connections that is full.
            opened.connect(self._path)
            _, connection = await loop.create_unix_connection(UpstreamConnection, sock=opened)
        except OSError as error:
            opened.close()
            raise UpstreamGone(f"no connection to {self._path}: {error}", answered=False) from error
        return connection
