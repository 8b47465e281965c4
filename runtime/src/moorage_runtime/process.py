"""The child process of an engine, seen from the front: its start, its announcement, its log, its end."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from typing import Final

import msgspec

from moorage_runtime.engines.base import Announcement, Engine

log = logging.getLogger(__name__)
engine_log = logging.getLogger("moorage_runtime.engine")

MAX_LINE: Final = 8192
KEPT_ERRORS: Final = 5
RECENT_SECONDS: Final = 10.0


class ChildEnded(Exception):  # noqa: N818 - it names what happened
    """The child process ended by itself; the text says how, and what it last complained of."""

    def __init__(self, message: str, *, killed: bool) -> None:
        """Say how it ended; `killed` when a SIGKILL that was not ours did it."""
        super().__init__(message)
        self.killed = killed


class Child:
    """One run of an engine: `start`, `load`, wait for `announcement`, and in the end `stop`, whatever happened."""

    def __init__(self, engine: Engine, process: asyncio.subprocess.Process, pipe: int) -> None:
        """Watch a process that was just started."""
        self.pid = process.pid
        self._engine = engine
        self._process = process
        self._errors: deque[tuple[float, str]] = deque(maxlen=KEPT_ERRORS)
        self._stopped = False
        self._announcement = asyncio.create_task(self._read_announcement(pipe))
        self._log = asyncio.create_task(self._read_log())

    @classmethod
    async def start(cls, engine: Engine) -> "Child":
        """Start the process, which imports its engine and waits for `load`."""
        reader, writer = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the working directory is not a place for modules
                "-m",
                "moorage_runtime.engines.child",
                engine.name,
                str(writer),
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **engine.environment},
                pass_fds=(writer,),
                start_new_session=True,  # so that all of an engine's processes can be ended at once
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return cls(engine, process, reader)

    def load(self, config: bytes) -> None:
        """Let the process load what `config` says."""
        stream = self._process.stdin
        assert stream is not None  # noqa: S101 - a pipe was asked for
        # One that has ended says why in its announcement. Of a pipe that is closed uvloop tells by a RuntimeError.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
            stream.write(config)
            stream.close()

    async def announcement(self) -> Announcement:
        """Wait for the child's word; raise ChildEnded where it ended without one."""
        announcement = await asyncio.shield(self._announcement)
        if announcement is None:
            raise await self.ended()
        return announcement

    async def ended(self) -> ChildEnded:
        """Wait for the end and say how it came."""
        code = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # a grandchild could hold the pipe open
            await asyncio.wait_for(asyncio.shield(self._log), 1.0)
        said = f"; it last said: {self.complaints}" if self.complaints else ""
        killed = code == -signal.SIGKILL and not self._stopped
        return ChildEnded(f"the engine's process {_ending(code)}{said}", killed=killed)

    @property
    def complaints(self) -> str:
        """The errors in the engine's log of these last seconds; older ones do not explain why it ended just now."""
        return self.complaints_since(time.monotonic() - RECENT_SECONDS)

    def complaints_since(self, begin: float) -> str:
        """Give the errors in the engine's log since a time of the monotonic clock."""
        return " | ".join(text for at, text in self._errors if at > begin)

    async def stop(self) -> None:
        """End the process and all that it started. It has no state worth a gentle end, and may not manage one."""
        self._stopped = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        gone = asyncio.create_task(self._gone())
        try:
            await asyncio.shield(gone)
        except asyncio.CancelledError:
            await gone  # it was killed: this takes a moment, and then nothing of it is left
            raise

    async def _gone(self) -> None:
        await self._process.wait()
        for task in (self._announcement, self._log):
            task.cancel()
        await asyncio.gather(self._announcement, self._log, return_exceptions=True)

    async def _read_announcement(self, pipe: int) -> Announcement | None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
        )
        try:
            line = await reader.readline()
        finally:
            transport.close()
        return msgspec.json.decode(line, type=Announcement) if line else None

    async def _read_log(self) -> None:
        stream = self._process.stdout
        assert stream is not None  # noqa: S101 - a pipe was asked for
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE:
                lines.append(rest)
                rest = b""
            for line in lines:
                self._log_line(line)
        self._log_line(rest)

    def _log_line(self, line: bytes) -> None:
        text = line[:MAX_LINE].decode(errors="replace").rstrip()
        if not text:
            return
        level, message = self._engine.log_line(text)
        if level >= logging.ERROR:
            self._errors.append((time.monotonic(), message[:300]))
        engine_log.log(level, message, extra={"pid": self.pid})


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
