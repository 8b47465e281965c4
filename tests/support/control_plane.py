"""A control plane for a folder of tests, and a namespace for each of them."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hack.cluster.api import Cluster, ClusterOptions, down, up
from tests.support.api import Api
from tests.support.operator import install

_numbers = itertools.count(1)


@contextmanager
def control_plane(name: str) -> Iterator[Cluster]:
    """A real API server with controllers and scheduler, and a fake node with 8 GPUs; Moorage's chart is applied.

    MOORAGE_TEST_CLUSTER gives it another name, so that people who share a machine do not share a cluster.
    """
    name = os.environ.get("MOORAGE_TEST_CLUSTER", name)
    down(name)
    cluster = up(ClusterOptions(name=name, control_plane_only=True, gpus=8))
    try:
        install(cluster)
        yield cluster
    finally:
        # To look at a cluster after a failure; the next run begins anew.
        if not os.environ.get("MOORAGE_KEEP_CLUSTER"):
            down(name)


@contextmanager
def fresh_namespace(admin: Api) -> Iterator[Api]:
    """An administrator in a namespace that is new, and deleted afterwards."""
    name = f"test-{next(_numbers)}"
    admin.request("POST", "/api/v1/namespaces", json={"metadata": {"name": name}})
    yield admin.at(name)
    admin.request("DELETE", f"/api/v1/namespaces/{name}")
