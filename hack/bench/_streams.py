"""Load for streaming servers: so many streams at a time, counted event by event, none taken for whole that is not."""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from moorage_common.http.client import Pool, UpstreamConnection


@dataclass
class Outcome:
    """What one request brought."""

    status: int = 0
    events: int = 0
    first: float = 0.0
    last: float = 0.0
    done: bool = False


@dataclass
class Run:
    """What one round of load brought."""

    seconds: float
    outcomes: list[Outcome] = field(repr=False)

    @property
    def events(self) -> int:
        """Events of all streams."""
        return sum(outcome.events for outcome in self.outcomes)

    @property
    def events_per_second(self) -> float:
        """Events of all streams per second."""
        return self.events / self.seconds

    @property
    def first_byte(self) -> float:
        """Median time to the first event."""
        return statistics.median(outcome.first for outcome in self.outcomes)


class _Counter:
    """A sink that counts the events that carry text."""

    def __init__(self, outcome: Outcome, sent: float) -> None:
        self._outcome = outcome
        self._sent = sent
        self._clock = asyncio.get_running_loop().time

    def head(self, status: int, headers: dict[bytes, bytes], flow: UpstreamConnection) -> None:
        self._outcome.status = status

    def body(self, data: bytes) -> None:
        outcome = self._outcome
        # An event that ends the text carries an empty one; servers differ in the blank after the colon.
        found = data.count(b'"text":') - data.count(b'"text":""') - data.count(b'"text": ""')
        if found and not outcome.events:
            outcome.first = self._clock() - self._sent
        outcome.events += found
        outcome.done = outcome.done or b"data: [DONE]" in data


async def load(port: int, bodies: Sequence[bytes], concurrency: int) -> Run:
    """Send every body once, `concurrency` at a time; fail where a stream was not whole."""
    pool = Pool("127.0.0.1", port, keep=0, connect_seconds=30)
    waiting = list(reversed(bodies))
    outcomes: list[Outcome] = []
    clock = asyncio.get_running_loop().time

    async def client() -> None:
        while waiting:
            body = waiting.pop()
            outcome = Outcome()
            outcomes.append(outcome)
            await pool.exchange(pool.request_bytes("POST", "/v1/completions", body), _Counter(outcome, clock()))
            outcome.last = clock()

    begun = clock()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client())
    seconds = clock() - begun
    bad = [outcome for outcome in outcomes if outcome.status != 200 or not outcome.done or not outcome.events]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(outcomes)} streams were not whole, such as {bad[0]}")
    return Run(seconds, outcomes)
