"""Makes prompts into tokens in a thread of its own, and knows when that thread will not come back.

A chat template is the model's, so it may loop for ever, and no thread can be ended from outside. So the deadline is the
process's: `child` ends it where `stuck` is true, and the supervisor starts another.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from moorage_runtime.generation.choice import GenerationFailed

ENCODE_SECONDS: Final = 10.0
"""The chat template and the tokenizer have so long for one request, besides what its length allows."""

BYTES_PER_SECOND: Final = 100_000
"""A fifth of what a tokenizer does on a busy core: a long prompt must not end the engine."""

HARD_SECONDS: Final = 5.0
"""So much later the process ends without a word from Python, which one long operation may hold."""

LOOK_SECONDS: Final = 0.1

STDERR: Final = 2

STUCK: Final = "rendering the chat template or tokenizing took longer than {:.0f} s"

Made = TypeVar("Made")


class Encoder:
    """One thread: a long prompt must not hold up the streams, and tokenizers are not made for several at once."""

    def __init__(self, seconds: float = ENCODE_SECONDS) -> None:
        """Give each request so many seconds."""
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._deadline = math.inf

    @property
    def stuck(self) -> bool:
        """Whether the work at hand is over its deadline."""
        return time.monotonic() > self._deadline

    @property
    def problem(self) -> str:
        """What to say where it is stuck."""
        return STUCK.format(self._seconds)

    async def run(self, work: Callable[[], Made], size: int) -> Made:
        """Do the work of a request of so many bytes; raise GenerationFailed for all that wait behind a stuck one."""
        doing = asyncio.get_running_loop().run_in_executor(self._thread, self._timed, work, size)
        try:
            while not doing.done():
                if self.stuck:
                    raise GenerationFailed(self.problem)
                await asyncio.wait({doing}, timeout=LOOK_SECONDS)
            return doing.result()
        finally:
            doing.cancel()  # whoever leaves must not be worked for later

    def _timed(self, work: Callable[[], Made], size: int) -> Made:
        seconds = self._seconds + size / BYTES_PER_SECOND
        # Its clock is not Python's: one `10 ** (10 ** 9)` in a template stops every thread that would look at the time.
        faulthandler.dump_traceback_later(seconds + HARD_SECONDS, exit=True, file=STDERR)
        self._deadline = time.monotonic() + seconds
        try:
            return work()
        finally:
            self._deadline = math.inf
            faulthandler.cancel_dump_traceback_later()
