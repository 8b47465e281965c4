"""What benchmarks start: server processes, on wish pinned to a core, and programs in C made on the spot."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_SECONDS: Final = 120.0
MOCK_SOURCE: Final = Path(__file__).with_name("mock_sse.c")


@dataclass
class Served:
    """A server that listens."""

    port: int
    pid: int
    started: float = 0.0
    """Seconds from the start of its process until it answered that it is ready."""


def bench_cache() -> Path:
    """Give the folder for what benchmarks build and install."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache") / "moorage" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compiled(source: Path) -> Path:
    """Give the program of a C source, compiled if it has changed."""
    binary = bench_cache() / f"{source.stem}-{source.stat().st_mtime_ns}"
    if not binary.exists():
        for old in bench_cache().glob(f"{source.stem}-*"):
            old.unlink(missing_ok=True)
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(binary), str(source)], check=True)
    return binary


@contextmanager
def mock(events: int, tick_us: int, *, core: int) -> Iterator[Served]:
    """Run the mock engine, written in C, on one core; without events its answers are JSON of 0.6 KB."""
    command = [str(compiled(MOCK_SOURCE)), str(events), str(tick_us)]
    with process_of(command, {}, stdout=subprocess.PIPE, core=core) as process:
        yield Served(told_port(process), process.pid)


def told_port(process: "subprocess.Popen[str]") -> int:
    """Read the port that a process prints on its first line."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def pinned(command: Sequence[str], core: int | None) -> list[str]:
    """Give the command that runs another on one core."""
    return [*([] if core is None else ["taskset", "-c", str(core)]), *command]


@contextmanager
def process_of(
    command: Sequence[str],
    settings: Mapping[str, str],
    *,
    stdout: int = subprocess.DEVNULL,
    core: int | None = None,
    log: str = "last",
) -> Iterator["subprocess.Popen[str]"]:
    """Run a server until the end of the block, on one core if that is asked for; `log` names the file of its stderr."""
    environment = {**os.environ, **settings}
    with (
        (bench_cache() / f"{log}.log").open("w") as errors,
        subprocess.Popen(pinned(command, core), env=environment, stdout=stdout, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def wait_for(url: str, process: "subprocess.Popen[str]", seconds: float = START_SECONDS, *, log: str = "last") -> float:
    """Wait until a server answers with 200; give the seconds that it took."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended: {(bench_cache() / f'{log}.log').read_text()[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            if answer.status == 200:
                return time.monotonic() - begun
        time.sleep(0.005)
    raise RuntimeError(f"{url} did not answer in {seconds} s")


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
