"""All connections of one server: which of them gives way to a new one, and how they end."""

import asyncio
import contextlib
from typing import Final, Protocol

from moorage_common.http.incoming import Buffers

FLUSH_SECONDS: Final = 1.0
"""How long what is written may take to be sent at the end."""


class Kept(Protocol):
    """What is needed of a connection here."""

    closing: bool
    write_paused: bool

    @property
    def idle(self) -> bool:
        """True while no request is running or waiting on it."""

    def close(self) -> None:
        """Close after what was written has been sent."""

    def abort(self) -> None:
        """Close at once."""

    async def finished(self) -> None:
        """Wait until no request is running on it."""


class Connections(set[Kept], Buffers):
    """The connections of one server."""

    def make_room(self, newcomer: Kept) -> bool:
        """Close a connection on which nothing is being answered; False where there is none.

        Which one is by chance: whoever holds many of them without asking anything loses most.
        """
        for connection in self:
            if connection is not newcomer and connection.idle and not connection.closing:
                # A client that does not read would keep its place until its time is over.
                (connection.abort if connection.write_paused else connection.close)()
                return True
        return False

    async def drain(self, seconds: float) -> bool:
        """Close what is idle and wait for the requests that run; False where some still do after so long."""
        for connection in list(self):
            if connection.idle:
                connection.close()
        busy = [connection.finished() for connection in self if not connection.idle]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*busy)
        except TimeoutError:
            return False
        return True

    async def end(self) -> None:
        """Close what is left; answers that are written get a moment to be sent."""
        for connection in list(self):
            if not connection.idle:
                connection.abort()
            elif not connection.closing:
                connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                while self:  # noqa: ASYNC110 - an event for each would cost every request
                    await asyncio.sleep(0.01)
