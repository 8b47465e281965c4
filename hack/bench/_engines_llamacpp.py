"""The servers that the llamacpp benchmark compares, each a process: ours, xllamacpp's own, and llama_cpp.server."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from hack.bench._processes import Served, bench_cache, free_port, process_of, told_port, wait_for
from moorage_runtime.engines.llamacpp import ChildConfig

RIVAL: Final = "llama-cpp-python[server]==0.3.36"

_DIRECT: Final = """
import os, signal, sys, msgspec, xllamacpp
from moorage_runtime.engines.llamacpp import ChildConfig, server_parameters
server = xllamacpp.Server(server_parameters(msgspec.json.decode(sys.argv[1], type=ChildConfig)))
print(server.listening_address.rpartition(":")[2], flush=True)
signal.pause()
"""


@dataclass(frozen=True)
class Setup:
    """What every server is told."""

    model: Path
    name: str
    context: int
    slots: int
    threads: int


@contextmanager
def ours(setup: Setup) -> Iterator[Served]:
    """Run the runtime."""
    port = free_port()
    settings = {
        "MODEL_PATH": str(setup.model),
        "MODEL_NAME": setup.name,
        "MAX_INPUT_TOKENS": str(setup.context),
        "MAX_CONCURRENT_REQUESTS": str(setup.slots),
        "LLAMA_THREADS": str(setup.threads),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "LOG_LEVEL": "ERROR",
    }
    with process_of([sys.executable, "-m", "moorage_runtime", "serve"], settings) as process:
        yield Served(port, process.pid, wait_for(f"http://127.0.0.1:{port}/health/ready", process))


@contextmanager
def direct(setup: Setup) -> Iterator[Served]:
    """Run xllamacpp's server with nothing in front of it, and with the parameters that the runtime gives it."""
    config = ChildConfig(
        path=str(setup.model), alias=setup.name, context=setup.context, slots=setup.slots, threads=setup.threads
    )
    begun = time.monotonic()
    command = [sys.executable, "-c", _DIRECT, msgspec.json.encode(config).decode()]
    with process_of(command, {"OMP_WAIT_POLICY": "passive"}, stdout=subprocess.PIPE) as process:
        yield Served(told_port(process), process.pid, time.monotonic() - begun)


@contextmanager
def llama_cpp_server(setup: Setup) -> Iterator[Served]:
    """Run llama-cpp-python's own server, in an environment of its own."""
    port = free_port()
    command = [str(_rival_python()), "-m", "llama_cpp.server", "--model", str(setup.model), "--port", str(port)]
    command += ["--model_alias", setup.name, "--n_ctx", str(setup.context), "--n_threads", str(setup.threads)]
    # Its default ends a stream when another request comes; nobody could measure that.
    command += ["--interrupt_requests", "False"]
    with process_of(command, {}) as process:
        yield Served(port, process.pid, wait_for(f"http://127.0.0.1:{port}/v1/models", process))


@contextmanager
def front(engine_port: int, *, core: int) -> Iterator[Served]:
    """Run the runtime's front before an engine that listens already, on one core."""
    command = [sys.executable, "-m", "hack.bench._front_mock", str(engine_port)]
    with process_of(command, {}, stdout=subprocess.PIPE, core=core) as process:
        yield Served(told_port(process), process.pid)


def rival_version() -> str:
    """Give the version of llama-cpp-python; raise RivalMissing where it cannot be had quickly."""
    shown = subprocess.run(
        [str(_rival_python()), "-c", "import llama_cpp; print(llama_cpp.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.strip()


class RivalMissing(Exception):  # noqa: N818 - it names a state
    """llama-cpp-python is not at hand."""


def _rival_python() -> Path:
    """Install llama-cpp-python from a wheel that was built on this machine before: building it takes ten minutes."""
    folder = bench_cache() / "llama-cpp-python"
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    uv = shutil.which("uv") or str(Path.home() / ".cache/moorage/uvenv/bin/uv")
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    version = RIVAL.rpartition("=")[2]
    wheels = [
        *bench_cache().glob("wheels/*.whl"),
        *Path(cache).glob(f"sdists-*/pypi/llama-cpp-python/{version}/*/*.whl"),
    ]
    if not wheels:
        raise RivalMissing(f"no wheel of {RIVAL} is built here: uv pip wheel would take ten minutes")
    install = [uv, "pip", "install", "-q", "--python", str(python), "--only-binary", "llama-cpp-python", RIVAL]
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([*install, "--find-links", str(wheels[0].parent)], check=True)
    (folder / "ready").touch()
    return python
