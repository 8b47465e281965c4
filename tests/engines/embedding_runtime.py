"""The runtime as a process in the environment of transformers, with a model for embeddings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from hack.engines.environments import python_of, variables
from tests.integration.runtime.conftest import runtime_process

READY_SECONDS = 240.0


class EmbeddingRuntime:
    """A runtime that answers."""

    def __init__(self, url: str) -> None:
        """Ask it at `url`."""
        self.url = url

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
    values = {
        **{"MODEL_BACKEND": "transformers", "MODEL_TASK": "embed", "MODEL_PATH": str(model), "MODEL_NAME": "m"},
        **{"TERMINATION_MESSAGE_PATH": str(folder / "termination"), **variables(), **settings},
    }
    with runtime_process(folder, python=str(python_of("transformers")), **values) as process:
        process.wait_ready(READY_SECONDS)
        yield EmbeddingRuntime(process.url)
