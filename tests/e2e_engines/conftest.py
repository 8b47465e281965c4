"""All three engines on a real node: gigabytes of images, so they run on demand (`make test-engines`)."""

import pytest

from hack.images.api import Image, build_all
from hack.images.catalog import ALL_ENGINES
from tests.support.node import api, cluster, post, pytest_runtest_makereport

__all__ = ["api", "cluster", "post", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def images() -> dict[str, Image]:
    """The images of this checkout, the large ones too."""
    return build_all(ALL_ENGINES)
