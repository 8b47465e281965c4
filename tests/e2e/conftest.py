"""The quick e2e tests: llama.cpp and the operator, on a real node."""

import pytest

from hack.images.api import Image, build_all
from tests.support.node import api, claim, cluster, gguf, post, pytest_runtest_makereport

__all__ = ["api", "claim", "cluster", "gguf", "post", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def images() -> dict[str, Image]:
    """The images of this checkout."""
    return build_all()
