"""The processes behind one gateway's port: started, started again when one dies, and ended together.

Each listens for clients on the same port (SO_REUSEPORT: the kernel deals connections out), and tells of itself on a
socket that it inherits. A worker whose standard input ends has lost its master, and drains.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final

from moorage_common.http.client import Sink, UpstreamConnection, UpstreamGone

log = logging.getLogger(__name__)

WORKER: Final = "--worker"
"""The argument before the number of the inherited socket."""
FIRST_PAUSE: Final = 0.2
LAST_PAUSE: Final = 30.0
"""Seconds before a worker that has died is started again; they double as long as it does not live for LONG_SECONDS."""
LONG_SECONDS: Final = 60.0
BACKLOG: Final = 64


class Worker:
    """One process, and those that come after it."""

    def __init__(self, number: int, settled: Callable[["Worker"], None]) -> None:
        """Nothing runs yet; `settled` is called when a process can be asked, which it can until it has ended."""
        self.number = number
        self.pid: int | None = None
        self._settled = settled
        self._address: bytes | str = b""
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self, environment: Mapping[str, str]) -> bool:
        """Run processes until `stop`; True where the last one ended well."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        while True:
            began = loop.time()
            process = await self._start(environment)
            code = await process.wait()
            self.pid = self._process = None
            if self._stopping:
                return code == 0
            if loop.time() - began > LONG_SECONDS:
                pause = FIRST_PAUSE
            extra = {"worker": self.number, "pid": process.pid, "code": code, "again_in_seconds": pause}
            log.error("a worker has ended", extra=extra)
            await asyncio.sleep(pause)
            if self._stopping:
                return False
            pause = min(LAST_PAUSE, 2 * pause)

    def stop(self) -> None:
        """Let what runs finish."""
        self._stopping = True
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process is not None:
            self._process.kill()

    async def ask(self, path: str, sink: Sink) -> None:
        """Ask it for something over HTTP; UpstreamGone where it does not answer."""
        if self._process is None:
            raise UpstreamGone("it does not run", answered=False)
        line = socket.socket(socket.AF_UNIX)
        line.setblocking(False)
        try:
            line.connect(self._address)
            _, connection = await asyncio.get_running_loop().create_unix_connection(UpstreamConnection, sock=line)
        except OSError as error:
            line.close()
            raise UpstreamGone(f"it cannot be asked: {error}", answered=False) from error
        try:
            await connection.run(f"GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n".encode(), sink)
        finally:
            connection.close()

    async def _start(self, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            # Linux gives it a name that is no file, as the root of a container's file system may be read-only.
            listener.bind("")
            listener.listen(BACKLOG)
            self._address = listener.getsockname()
            number = listener.fileno()
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "moorage_gateway", WORKER, str(number)),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(number,),
                env=environment,
            )
        self.pid = process.pid
        if self._stopping:
            process.send_signal(signal.SIGTERM)
        self._settled(self)
        return process


def reserve(host: str, port: int) -> socket.socket:
    """Keep a port that workers will share; OSError where somebody else has it. 0 is one that is free."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    kept = socket.socket(family, kind, protocol)
    try:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(address)
    except OSError:
        kept.close()
        raise
    return kept


def inherited(arguments: list[str]) -> socket.socket | None:
    """The socket on which this process tells of itself, where it is a worker."""
    if arguments[:1] != [WORKER] or len(arguments) != 2:
        return None
    found = socket.socket(fileno=int(arguments[1]))
    found.setblocking(False)
    os.set_inheritable(found.fileno(), False)
    return found


def when_alone(then: Callable[[], None]) -> None:
    """Call `then` when the master has gone."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            then()

    loop.add_reader(0, read)
