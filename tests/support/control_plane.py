"""A control plane for a folder of tests, and a namespace for each of them."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from hack.cluster.api import Cluster
from tests.support.api import Api
from tests.support.clusters import own_cluster
from tests.support.operator import install

_numbers = itertools.count(1)


@contextmanager
def control_plane(suite: str) -> Iterator[Cluster]:
    """A real API server with controllers and scheduler, and a fake node with 8 GPUs; Moorage's chart is applied."""
    with own_cluster(suite, control_plane_only=True, gpus=8) as cluster:
        install(cluster)
        yield cluster


@contextmanager
def fresh_namespace(admin: Api) -> Iterator[Api]:
    """An administrator in a namespace that is new, and deleted afterwards."""
    name = f"test-{next(_numbers)}"
    admin.request("POST", "/api/v1/namespaces", json={"metadata": {"name": name}})
    yield admin.at(name)
    admin.request("DELETE", f"/api/v1/namespaces/{name}")
