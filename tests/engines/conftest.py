"""transformers with the real SmolLM2, in the environment of hack.engines; `make test-engines` makes that first."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import openai
import psutil
import pytest

from hack.engines import environments
from hack.engines.models import model_folder
from tests.integration.runtime.conftest import Runtime, runtime_process

READY_SECONDS = 300.0

Starter = Callable[..., AbstractContextManager[Runtime]]


def engine_process(runtime: Runtime) -> psutil.Process:
    """Give the child in which the engine is."""
    children = psutil.Process(runtime.process.pid).children()
    assert len(children) == 1
    return children[0]


def reason_of(folder: Path, **settings: str) -> str:
    """Start a runtime that cannot serve; give what it says at the end."""
    path = folder / "termination"
    with runtime_process(folder, **{"TERMINATION_MESSAGE_PATH": str(path), **settings}) as process:
        process.process.wait(READY_SECONDS)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Starter:
    """Start runtimes with settings of their own; each block begins when the model answers."""
    model = model_folder("smollm2-hf")

    @contextmanager
    def start(environment: str = "transformers", **settings: str) -> Iterator[Runtime]:
        python = str(environments.python_of(environment))
        folder = tmp_path_factory.mktemp("transformers")
        values = {
            "MODEL_BACKEND": "transformers",
            "MODEL_PATH": str(model),
            "MODEL_NAME": "smollm2",
            "MAX_INPUT_TOKENS": "512",
            "TORCH_NUM_THREADS": "1",
            "TERMINATION_MESSAGE_PATH": str(folder / "termination"),
            **environments.variables(),
        }
        with runtime_process(folder, python=python, **{**values, **settings}) as process:
            process.wait_ready(READY_SECONDS)
            yield process

    return start


@pytest.fixture(scope="session")
def runtime(started: Starter) -> Iterator[Runtime]:
    """A runtime for all tests that leave it as it is."""
    with started() as process:
        yield process


@pytest.fixture
def client(runtime: Runtime) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, without retries that would hide a fault."""
    with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture(scope="session")
def model() -> Path:
    """The folder of the real model."""
    return model_folder("smollm2-hf")
