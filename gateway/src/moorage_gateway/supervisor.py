"""Keeps the process of the management API running: another one a while after each end, ever later up to half a minute.

Whether it runs has no part in the gateway's readiness: models are served without it.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

log = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-m", "moorage_gateway.manage")
FIRST_PAUSE: Final = 0.5
LAST_PAUSE: Final = 30.0
WELL_SECONDS: Final = 60.0
"""A process that has run for so long was well: the next pause is the first of a new series."""

END_SECONDS: Final = 15.0


class Supervisor:
    """One process, again and again."""

    def __init__(self, command: Sequence[str] = COMMAND, first_pause: float = FIRST_PAUSE) -> None:
        """Run `command`; its settings are our environment."""
        self.pid: int | None = None
        self.starts = 0
        self._command = command
        self._first_pause = first_pause

    async def run(self) -> None:
        """Start the process and start it again, until cancelled; then it has ended."""
        clock, pause = asyncio.get_running_loop().time, self._first_pause
        while True:
            began = clock()
            self.starts += 1
            try:
                code = await self._once()
            except OSError as error:
                log.error("the management API cannot be started", extra={"error": str(error)})
                code = None
            if clock() - began > WELL_SECONDS:
                pause = self._first_pause
            log.warning("the management API ended; it is started again", extra={"code": code, "in_seconds": pause})
            await asyncio.sleep(pause)
            pause = min(LAST_PAUSE, pause * 2)

    async def _once(self) -> int:
        # It ends with us, however we end: it reads from a pipe of which we hold the other end.
        process = await asyncio.create_subprocess_exec(*self._command, stdin=asyncio.subprocess.PIPE)
        self.pid = process.pid
        try:
            return await process.wait()
        finally:
            self.pid = None
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
