"""GPUs for the tests of preemption: an operator that has an image for them, and nodes that offer them."""

import json
from collections.abc import Iterator

import pytest

from hack import demo, transcript
from hack.cluster.api import Cluster
from hack.images.api import Image
from tests.support.api import Api
from tests.support.operator import NAMESPACE, kubectl

ACCELERATOR = "example.org/accelerator"
"""What the real node offers, so that nothing that needs it goes to a fake node."""


@pytest.fixture(scope="module")
def gpu_cluster(cluster: Cluster, images: dict[str, Image]) -> Iterator[Cluster]:
    """The cluster with an operator that has a runtime image for GPUs; it logs no error meanwhile."""
    demo.install(cluster, images, *transcript.gpu_image(images))
    yield cluster
    logs = kubectl(cluster, "-n", NAMESPACE, "logs", "--selector=app.kubernetes.io/name=moorage-operator", "--tail=-1")
    errors = [line for line in logs.splitlines() if '"level":"error"' in line]
    demo.install(cluster, images)
    assert errors == []


@pytest.fixture
def stage(gpu_cluster: Cluster) -> Iterator[transcript.Stage]:
    """A fake node with eight GPUs, and two teams."""
    with transcript.theatre(gpu_cluster) as stage:
        yield stage


@pytest.fixture
def accelerator(gpu_cluster: Cluster, admin: Api) -> Iterator[str]:
    """The real node offers one accelerator, of which its pods know nothing."""
    nodes = admin.request("GET", "/api/v1/nodes")["items"]
    name = next(node["metadata"]["name"] for node in nodes if node["metadata"]["labels"].get("type") != "kwok")
    path = "/status/capacity/" + ACCELERATOR.replace("/", "~1")
    # https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/
    add, remove = ({"op": operation, "path": path} for operation in ("add", "remove"))
    _patch_status(gpu_cluster, name, {**add, "value": "1"})
    kubectl(gpu_cluster, "wait", f"node/{name}", f"--for=jsonpath={{.status.allocatable['{_escaped()}']}}=1")
    yield ACCELERATOR
    _patch_status(gpu_cluster, name, remove)


def _escaped() -> str:
    return ACCELERATOR.replace(".", r"\.")


def _patch_status(cluster: Cluster, node: str, *operations: dict[str, str]) -> None:
    kubectl(cluster, "patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(operations))
