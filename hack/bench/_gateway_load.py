"""The load of the gateway benchmark: wrk for requests, load_sse.c for streams; both cost little and count honestly."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from hack.bench._gateway_cluster import KEY, MODEL
from hack.bench._gateway_sides import RivalMissing
from hack.bench._harness import cpu_seconds, rss_bytes
from hack.bench._processes import Served, compiled, pinned

PATH: Final = "/v1/chat/completions"
STREAMS_SOURCE: Final = Path(__file__).with_name("load_sse.c")

_SCRIPT: Final = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
local file = io.open("{body}", "rb"); wrk.body = file:read("*a"); file:close()
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"errors":%d}}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Requests(msgspec.Struct):
    """What a run of wrk brought; latencies in microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int
    cpu: float = 0.0
    """Microseconds of the server's CPU time for each request."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class Streams(msgspec.Struct):
    """What a run of streams brought (load_sse.c); times in milliseconds."""

    events: int
    errors: int
    open_most: int
    together: int
    events_per_second: float
    gap_ms_p50: float
    gap_ms_p99: float
    gap_ms_most: float
    cpu: float = 0.0
    """Microseconds of the server's CPU time for each event."""
    rss: int = 0
    """The most memory of the server, in bytes."""


def body_of(size: int, *, stream: bool = False) -> bytes:
    """Write a chat request of about so many bytes."""
    text = ("It was a bright cold day in April, and the clocks were striking thirteen. " * (size // 74 + 1))[
        : size - 130
    ]
    told = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 100, "temperature": 0.7}
    return msgspec.json.encode({**told, **({"stream": True} if stream else {})})


@dataclass(frozen=True)
class Load:
    """Loads servers from one core."""

    core: int
    folder: Path
    seconds: int

    def requests(self, server: Served, body: bytes, connections: int) -> Requests:
        """Send the same request over and over; every answer has to be good. RivalMissing where wrk is not there."""
        if shutil.which("wrk") is None:
            raise RivalMissing("wrk is not installed: hack/debian/install.py --bench")
        script, content = self.folder / "script.lua", self.folder / "body"
        content.write_bytes(body)
        script.write_text(_SCRIPT.format(key=KEY, body=content), encoding="utf-8")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{self.seconds}s", "-s", str(script)]
        before = cpu_seconds(server.pid, children=True)
        shown = _run([*command, f"http://127.0.0.1:{server.port}{PATH}"], self.core)
        found = msgspec.json.decode(shown.splitlines()[-1], type=Requests)
        if found.errors or not found.requests:
            raise RuntimeError(f"{found.errors} of {found.requests} requests failed")
        found.cpu = (cpu_seconds(server.pid, children=True) - before) * 1e6 / found.requests
        return found

    def streams(self, server: Served, number: int, *, within: float = 60.0) -> Streams:
        """Open so many streams at a time and read each to its end; errors are counted, and for the caller to judge."""
        body = body_of(1000, stream=True)
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
        )
        request = self.folder / "request"
        request.write_bytes(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        command = pinned([str(compiled(STREAMS_SOURCE)), str(server.port), str(number), str(within)], self.core)
        before, most = cpu_seconds(server.pid, children=True), 0
        with request.open("rb") as given, subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE) as process:
            while process.poll() is None:
                most = max(most, rss_bytes(server.pid, children=True))
                time.sleep(0.1)
            assert process.stdout is not None
            found = msgspec.json.decode(process.stdout.read(), type=Streams)
        found.cpu = (cpu_seconds(server.pid, children=True) - before) * 1e6 / max(found.events, 1)
        found.rss = most
        return found


@contextmanager
def load_from(core: int, seconds: int = 2) -> Iterator[Load]:
    """Make a load of so many seconds a run."""
    with TemporaryDirectory() as folder:
        yield Load(core, Path(folder), seconds)


def _run(command: list[str], core: int) -> str:
    done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout.strip()
