"""The servers that the embeddings benchmark compares, each a process, and encode() without HTTP."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.bench._processes import bench_cache
from hack.engines.environments import python_of, variables
from hack.uv import find_uv

INFINITY: Final = (
    "infinity-emb[torch,server]==0.0.78",
    "transformers<4.49",  # the last that optimum's BetterTransformer, which infinity imports, works with
    "optimum<1.25",
    "click<8.2",
)
START_SECONDS: Final = 900.0
SIDES: Final = Path(__file__).with_name("_embedding_sides.py")
THREADS: Final = 2


@dataclass
class Served:
    """A server that answers."""

    port: int
    pid: int
    path: str = "/v1/embeddings"


class RivalMissing(Exception):  # noqa: N818 - it names a state
    """infinity is not to be had."""


@contextmanager
def ours(model: Path, **settings: str) -> Iterator[Served]:
    """Run the runtime with its defaults."""
    port = _free_port()
    environment = {
        **variables(),
        **{"MODEL_BACKEND": "transformers", "MODEL_TASK": "embed", "MODEL_PATH": str(model), "MODEL_NAME": "m"},
        **{"HOST": "127.0.0.1", "PORT": str(port), "LOG_LEVEL": "ERROR", **settings},
    }
    with _process([str(python_of("transformers")), "-m", "moorage_runtime", "serve"], environment) as process:
        _wait_for(f"http://127.0.0.1:{port}/health/ready", process)
        yield Served(port, process.pid)


@contextmanager
def naive(model: Path) -> Iterator[Served]:
    """Run a server that computes each request by itself."""
    command = [str(python_of("transformers")), "-P", str(SIDES), "naive", str(model)]  # operator.py lies beside it
    with _process(command, _offline_variables(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Served(int(process.stdout.readline()), process.pid)


@contextmanager
def infinity(model: Path) -> Iterator[Served]:
    """Run infinity with its torch engine and its defaults."""
    port = _free_port()
    command = [str(_infinity()), "v2", "--model-id", str(model), "--served-model-name", "m", "--engine", "torch"]
    command += [
        "--no-model-warmup",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with _process(command, {**_offline_variables(), "DO_NOT_TRACK": "1"}) as process:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield Served(port, process.pid, "/embeddings")


class Offline:
    """encode() in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Wait until it is loaded."""
        assert process.stdout is not None
        assert process.stdin is not None
        self._answers, self._requests = process.stdout, process.stdin
        self._answers.readline()

    def seconds(self, texts: Sequence[str]) -> float:
        """Encode texts; give the time that it took there."""
        self._requests.write(json.dumps(list(texts)) + "\n")
        self._requests.flush()
        return float(self._answers.readline())


@contextmanager
def offline(model: Path) -> Iterator[Offline]:
    """Run sentence-transformers without HTTP."""
    command = [str(python_of("transformers")), "-P", str(SIDES), "offline", str(model)]
    with _process(command, _offline_variables(), stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        yield Offline(process)


def infinity_version() -> str:
    """Give infinity's version; raise RivalMissing where it cannot be installed or does not start."""
    shown = subprocess.run([str(_infinity()), "--help"], capture_output=True, text=True, check=False)
    if shown.returncode:
        raise RivalMissing(f"{INFINITY[0]} does not start: {shown.stderr.strip()[-300:]}")
    return INFINITY[0].rpartition("=")[2]


def _infinity() -> Path:
    """Install infinity in an environment of its own: it needs an older transformers."""
    folder = bench_cache() / "infinity"
    program = folder / "bin" / "infinity_emb"
    if not (folder / "ready").exists():
        uv = find_uv()
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        command = [uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), *INFINITY]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RivalMissing(f"{INFINITY[0]} cannot be installed: {done.stderr.strip()[-300:]}")
        (folder / "ready").touch()
    return program


def _offline_variables() -> dict[str, str]:
    return {**variables(), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "passive"}


@contextmanager
def _process(
    command: Sequence[str], settings: dict[str, str], *, stdout: int = subprocess.DEVNULL, stdin: int | None = None
) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, **settings}
    with (
        _log(command).open("w") as errors,
        subprocess.Popen(command, env=environment, stdout=stdout, stdin=stdin, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _log(command: object) -> Path:
    """Give the file for what a process writes, one for each side."""
    side = next((word for word in ("naive", "offline", "v2") if f"'{word}'" in str(command)), "ours")
    return bench_cache() / f"embeddings-{side}.log"


def _wait_for(url: str, process: "subprocess.Popen[str]") -> None:
    """Wait until a server is ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended: {_log(process.args).read_text()[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{url} did not answer in {START_SECONDS} s")


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
