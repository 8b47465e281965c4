"""The runtime as a process of its own, with llama.cpp and the real SmolLM2."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import openai
import pytest

from hack.models import model_path

READY_SECONDS = 60.0


@dataclass
class Runtime:
    """A process of the runtime."""

    process: "subprocess.Popen[bytes]"
    log: Path
    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def health(self) -> dict[str, Any]:
        """Ask for the facts."""
        facts: dict[str, Any] = httpx.get(f"{self.url}/health/detailed").json()
        return facts

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while httpx.get(f"{self.url}/health/ready").status_code != 200:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def lines(self) -> list[dict[str, Any]]:
        """Read the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def start(log: IO[bytes], python: str = sys.executable, **settings: str) -> "subprocess.Popen[bytes]":
    """Start the runtime, in the environment of `python`, with settings as its environment variables."""
    environment = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": "0", **settings}
    return subprocess.Popen([python, "-m", "moorage_runtime", "serve"], env=environment, stderr=log)


@contextmanager
def runtime_process(folder: Path, python: str = sys.executable, **settings: str) -> Iterator[Runtime]:
    """Run the runtime until the end of the block; it listens when the block begins."""
    log = folder / "runtime.log"
    with log.open("wb") as output, start(output, python, **settings) as process:
        try:
            yield Runtime(process, log, _port(log, process))
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def _port(log: Path, process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + 20
    while process.poll() is None:
        for line in log.read_text().splitlines():
            found = json.loads(line)
            if found["message"] == "listening":
                return int(found["port"])
        assert time.monotonic() < deadline
        time.sleep(0.02)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The file of the real model."""
    return model_path("smollm2")


@pytest.fixture(scope="session")
def runtime(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A runtime that serves SmolLM2 for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("runtime")
    settings = {"MODEL_PATH": str(smollm2), "MODEL_NAME": "smollm2", "MAX_INPUT_TOKENS": "1024"}
    with runtime_process(folder, **settings, MODEL_QUANTIZATION="q4_1") as process:
        process.wait_ready()
        yield process


@pytest.fixture
def client(runtime: Runtime) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, without retries that would hide a fault."""
    with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made
