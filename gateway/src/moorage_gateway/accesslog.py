"""The access log: a line of JSON for each request, without prompts and without credentials.

Lines are collected and written a few times a second by a thread of its own, so that neither a request nor the loop
waits for whoever reads them. In each second a number of lines of successes is written and as many of failures; what is
over that is counted, and the count is a line, too. So a quiet gateway logs everything and a busy one pays next to
nothing.
"""

import asyncio
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from select import PIPE_BUF
from typing import Final

import msgspec

LOGGER: Final = "moorage_gateway.access"
FLUSH_SECONDS: Final = 0.25
TICKS: Final = round(1 / FLUSH_SECONDS)
MOST_WAITING: Final = 64
"""Batches that wait to be written; with more, whoever reads them does not, and lines are dropped and counted."""


class Line(msgspec.Struct, omit_defaults=True, tag_field="message", tag="request"):
    """One request. Times in seconds, sizes in bytes; what does not apply is left out."""

    time: str
    level: str
    logger: str
    status: int
    route: str = ""
    method: str = ""
    model: str = ""
    caller: str = ""
    client: str = ""
    pod: str = ""
    error: str = ""
    """Its kind: see `kinds`."""
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_estimated: bool = False
    seconds: float = 0.0
    ttft_seconds: float = 0.0
    request_id: str = ""
    trace_id: str = ""


class LeftOut(msgspec.Struct, tag_field="message", tag="requests left out"):
    """Requests of one second that have no line."""

    time: str
    level: str
    logger: str
    successes: int
    failures: int


class Writer:
    """Writes batches to a file descriptor, in a thread that ends with `close`."""

    def __init__(self, descriptor: int) -> None:
        """Start the thread."""
        self._descriptor = descriptor
        self._batches: queue.Queue[bytes | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def write(self, batch: bytes) -> bool:
        """Take a batch; False where too many wait already."""
        if self._batches.qsize() >= MOST_WAITING:
            return False
        self._batches.put(batch)
        return True

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits, for so long at most."""
        self._batches.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                while batch:
                    batch = batch[os.write(self._descriptor, batch[: _whole_lines(batch)]) :]
            except OSError:
                continue  # whoever read it has gone; requests go on


def _whole_lines(batch: bytes) -> int:
    """Give how much of a batch to write at once: whole lines that a pipe takes in one piece, as others write to it."""
    if len(batch) <= PIPE_BUF:
        return len(batch)
    return batch.rfind(b"\n", 0, PIPE_BUF) + 1 or PIPE_BUF


class AccessLogOutput:
    """The access log of a process: on its standard output, flushed while the loop runs."""

    def __init__(self, per_second: int) -> None:
        """Begin; within a running loop."""
        self._writer = Writer(sys.stdout.fileno())
        self.log = AccessLog(per_second, self._writer.write)
        self._loop = asyncio.get_running_loop()
        self._turn = 0
        self._timer = self._loop.call_later(FLUSH_SECONDS, self._tick)

    def close(self) -> None:
        """Write what is left."""
        self._timer.cancel()
        self.log.new_second()
        self.log.flush()
        self._writer.close()

    def _tick(self) -> None:
        self._turn = (self._turn + 1) % TICKS
        if self._turn == 0:
            self.log.new_second()
        self.log.flush()
        self._timer = self._loop.call_later(FLUSH_SECONDS, self._tick)


class AccessLog:
    """Decides which requests get a line, and collects the lines."""

    def __init__(self, per_second: int, write: Callable[[bytes], bool], clock: Callable[[], float] = time.time) -> None:
        """`per_second` lines of successes and as many of failures; `clock` gives the seconds since 1970."""
        self._per_second = per_second
        self._write = write
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._written = [0, 0]
        self.left_out = [0, 0]
        """Successes and failures that got no line since the last flush."""
        self._second = 0
        self._told = ""

    def wants(self, *, failure: bool) -> bool:
        """Whether the next request gets a line; to be followed by `add` where it does."""
        if self._written[failure] < self._per_second:
            self._written[failure] += 1
            return True
        self.left_out[failure] += 1
        return False

    def now(self) -> str:
        """The time for a line, RFC 3339."""
        whole, fraction = divmod(self._clock(), 1)
        if whole != self._second:
            self._second = int(whole)
            self._told = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        return f"{self._told}.{int(fraction * 1000):03}Z"

    def line(self, status: int) -> Line:
        """Begin a line."""
        return Line(self.now(), "info", LOGGER, status)

    def add(self, line: Line) -> None:
        """Take a line."""
        self._lines.append(self._encode(line))

    def new_second(self) -> None:
        """Begin to count anew; to be called once a second."""
        successes, failures = self.left_out
        self._written = [0, 0]
        self.left_out = [0, 0]
        if successes or failures:
            self._lines.append(self._encode(LeftOut(self.now(), "info", LOGGER, successes, failures)))

    def flush(self) -> None:
        """Hand on what was collected."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        lines.append(b"")
        if not self._write(b"\n".join(lines)):
            self.left_out[0] += len(lines) - 1
