"""Admission: so many requests in the engine, so many more waiting in the order they came, a clear no to the rest."""

import asyncio
from collections import deque

from moorage_common.http.message import Refusal
from moorage_runtime.errors import too_many


class Admission:
    """A counted door. `enter`, and after it `leave` with the same number of places, whatever happened in between."""

    def __init__(self, limit: int, waiting: int) -> None:
        """Let requests in that take `limit` places together, and let so many wait."""
        self.limit = limit
        self.queue_limit = waiting
        self.running = 0
        self.last = 0.0
        """When somebody last left, by the loop's clock."""
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def waiting(self) -> int:
        """How many requests wait at the door."""
        return len(self._queue)

    def idle(self) -> float:
        """Give the seconds since the last request was here; 0 while there is one."""
        if self.running or self._queue:
            return 0.0
        return asyncio.get_running_loop().time() - self.last

    async def enter(self, places: int = 1) -> None:
        """Come in, at once or in turn; raise Refusal where too many wait already."""
        if not self._queue and self.running + places <= self.limit:
            self.running += places
            return
        if len(self._queue) >= self.queue_limit:
            raise Refusal(too_many(self.running, len(self._queue)))
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((turn, places))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(places)  # the turn came and the client left in the same moment
            else:
                self._queue.remove((turn, places))
                self._let_in()  # those behind it may need fewer places
            raise

    def leave(self, places: int = 1) -> None:
        """Go out; whoever waits longest comes in, as soon as there are as many places as it needs."""
        self.running -= places
        self.last = asyncio.get_running_loop().time()
        self._let_in()

    def _let_in(self) -> None:
        while self._queue:
            turn, places = self._queue[0]
            # One whose client left takes itself out of the queue.
            if turn.cancelled() or self.running + places > self.limit:
                return
            self._queue.popleft()
            self.running += places
            turn.set_result(None)
