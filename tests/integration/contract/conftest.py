"""A runtime for each engine, started once, and OpenAI's own client to it."""

from collections.abc import Iterator

import openai
import pytest

from tests.integration.contract.engines import Subject, chosen, environment_of
from tests.integration.runtime.conftest import Runtime, runtime_process


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on the engines that have what it is about."""
    if "subject" not in metafunc.fixturenames:
        return
    embeds = metafunc.module.__name__.endswith("test_embeddings")
    both = metafunc.module.__name__.endswith("test_surface")
    subjects = [subject for subject in chosen() if both or subject.embeds is embeds]
    metafunc.parametrize("subject", subjects, ids=[subject.name for subject in subjects], scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one engine together, in whatever order they came: a start takes up to a minute."""
    here = [place for place, item in enumerate(items) if _engine_of(item)]
    together = sorted((items[place] for place in here), key=_engine_of)
    for place, item in zip(here, together, strict=True):
        items[place] = item


def _engine_of(item: pytest.Item) -> str:
    called = getattr(item, "callspec", None)
    subject = called.params.get("subject") if called else None
    return subject.name if isinstance(subject, Subject) else ""


@pytest.fixture(scope="session")
def runtime(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """The runtime with the engine."""
    folder = tmp_path_factory.mktemp(subject.name)
    with runtime_process(folder, python=subject.python(), **environment_of(subject, folder)) as process:
        process.wait_ready(subject.ready_seconds)
        yield process


@pytest.fixture
def client(runtime: Runtime) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, without retries that would hide a fault."""
    with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made
