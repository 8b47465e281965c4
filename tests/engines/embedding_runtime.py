"""The runtime as a process in the environment of transformers, with a model for embeddings."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from hack.engines.environments import python_of, variables

READY_SECONDS = 240.0


class EmbeddingRuntime:
    """A runtime that answers."""

    def __init__(self, port: int, log: Path) -> None:
        """Ask it on `port`."""
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Send a request."""
        return httpx.post(f"{self.url}{path}", json=body, timeout=120)

    def ask(self, path: str, **body: Any) -> Any:
        """Send a request that is answered."""
        response = self.post(path, **body)
        assert response.status_code == 200, response.text[:1000]
        return response.json()

    def refused(self, path: str, **body: Any) -> tuple[str | None, str]:
        """Send a request that is a 400; give parameter and message."""
        response = self.post(path, **body)
        assert response.status_code == 400, response.text[:1000]
        error = response.json()["error"]
        return error["param"], error["message"]

    def stats(self) -> Any:
        """Ask for the counts."""
        return httpx.get(f"{self.url}/stats").json()


@contextmanager
def embedding_runtime(folder: Path, model: Path, **settings: str) -> Iterator[EmbeddingRuntime]:
    """Run the runtime until the end of the block; it is ready when the block begins."""
    environment = {
        **{"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": "0", **variables()},
        **{"MODEL_BACKEND": "transformers", "MODEL_TASK": "embed", "MODEL_PATH": str(model), "MODEL_NAME": "m"},
        **{"TERMINATION_MESSAGE_PATH": str(folder / "termination"), **settings},
    }
    log = folder / "runtime.log"
    command = [str(python_of("transformers")), "-m", "moorage_runtime", "serve"]
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stderr=output) as process:
        try:
            runtime = EmbeddingRuntime(_port(log, process), log)
            deadline = time.monotonic() + READY_SECONDS
            while httpx.get(f"{runtime.url}/ready").status_code != 200:
                assert time.monotonic() < deadline, log.read_text()
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield runtime
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def _port(log: Path, process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            found = json.loads(line)
            if found["message"] == "listening":
                return int(found["port"])
        time.sleep(0.02)
    raise AssertionError(log.read_text())
