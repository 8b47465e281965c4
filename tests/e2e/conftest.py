"""The quick e2e tests: llama.cpp and the operator, on a real node."""

from pathlib import Path

import pytest

from hack.images.api import Image, build_all
from tests.support.node import api, claim, cluster, gguf, post, pytest_runtest_makereport

__all__ = ["api", "claim", "cluster", "gguf", "post", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def images() -> dict[str, Image]:
    """The images of this checkout."""
    return build_all()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give time for real pods: their waits have limits of their own, which together may be more than a test's."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
