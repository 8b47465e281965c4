"""Admission: so many requests in the engine, so many more waiting in the order they came, a clear no to the rest."""

import asyncio
from collections import deque

from moorage_common.http.message import Refusal
from moorage_runtime.errors import too_many

WAITING_PER_RUNNING = 4


class Admission:
    """A counted door. `enter`, and after it `leave`, whatever happened in between."""

    def __init__(self, limit: int) -> None:
        """Let `limit` requests in at a time."""
        self.limit = limit
        self.running = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many requests wait at the door."""
        return len(self._queue)

    async def enter(self) -> None:
        """Come in, at once or in turn; raise Refusal where too many wait already."""
        if self.running < self.limit:
            self.running += 1
            return
        if len(self._queue) >= self.limit * WAITING_PER_RUNNING:
            raise Refusal(too_many(self.running, len(self._queue)))
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the turn came and the client left in the same moment
            else:
                self._queue.remove(turn)
            raise

    def leave(self) -> None:
        """Go out; whoever waits longest takes the place."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
