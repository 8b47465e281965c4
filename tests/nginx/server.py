"""A real nginx that passes on what it takes, and the server behind it that remembers what came."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.gateway.strict_servers import Seen

SECONDS = 0.3
"""How long nginx waits for the rest of a request here."""
CONFIG = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_header_timeout {ms}ms; client_body_timeout {ms}ms; keepalive_timeout {ms}ms; lingering_timeout {ms}ms;
  client_body_buffer_size 1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1; }}
  }}
}}
"""


@dataclass
class Behind:
    """The server behind nginx: what it was sent by whom who had read it first."""

    seen: list[Seen] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        # What nginx writes is well framed, whatever it took: it tells the length of a body that it has read.
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            line, *headers = head.decode("latin-1").split("\r\n")
            method, _, rest = line.partition(" ")
            length = next((value for value in headers if value.lower().startswith("content-length:")), ":0")
            body = await reader.readexactly(int(length.partition(":")[2]))
            self.seen.append(Seen(method, rest.rpartition(" ")[0], body))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        writer.close()


@dataclass
class Nginx:
    """A running nginx."""

    port: int
    behind: Behind

    async def ask(self, content: bytes) -> list[Seen]:
        """Send bytes on a connection of their own; the requests that nginx took of them."""
        self.behind.seen.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(content)
        with suppress(ConnectionError):
            async with asyncio.timeout(10):
                await reader.read()
        writer.close()
        return list(self.behind.seen)


def version() -> str:
    """The version of nginx; whoever has none is told how to get it."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert path is not None, "nginx is not installed: apt-get install --no-install-recommends nginx-light"
    told = subprocess.run([path, "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/(\S+)", told)
    assert found is not None, told
    return found[1]


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[Nginx]:
    """Run nginx until the end of the block."""
    version()
    behind = Behind()
    server = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    free = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    port = free.sockets[0].getsockname()[1]
    free.close()
    await free.wait_closed()
    config = folder / "nginx.conf"
    values = {"folder": folder, "port": port, "behind": server.sockets[0].getsockname()[1], "ms": int(SECONDS * 1000)}
    config.write_text(CONFIG.format(**values))
    process = await asyncio.create_subprocess_exec("nginx", "-p", str(folder), "-c", str(config), "-e", "stderr")
    try:
        await _answers(process, port)
        yield Nginx(port, behind)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        server.close()


async def _answers(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(10):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)  # a process that starts tells nobody
            else:
                writer.close()
                return
    raise AssertionError("nginx has ended")
