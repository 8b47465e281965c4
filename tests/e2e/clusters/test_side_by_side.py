"""Two clusters with real nodes on one machine: both serve, and the end of one changes nothing of the other."""

import json
from typing import Any

import pytest

from hack import demo
from hack.cluster.api import Cluster, load_images, status
from hack.cluster.host.layout import Layout, Record
from hack.cluster.host.leftovers import Footprint
from hack.images.api import Image
from tests.support.api import Api, is_ready
from tests.support.clusters import own_cluster
from tests.support.models import model
from tests.support.operator import kubectl

SMALL = {"resources": {"cpu": "200m", "memory": "1Gi"}, "contextLength": 1024}
_ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=30).read().decode())"


def contents(cluster: Cluster) -> dict[str, Any]:
    """The release, namespaces, nodes, Services and pods with their restarts."""
    listed = json.loads(kubectl(cluster, "get", "secrets,namespaces,nodes,pods,services", "-A", "-o", "json"))["items"]
    found = {}
    for item in listed:
        metadata, parts = item["metadata"], item.get("status", {}).get("containerStatuses", ())
        name = f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
        found[name] = (metadata["uid"], [part["restartCount"] for part in parts])
    return found


def serve(api: Api, name: str) -> None:
    """Create a model and wait until it is ready."""
    api.create(model(name, **SMALL))
    api.wait("InferenceModel", name, is_ready, what="Ready", seconds=90)


def assert_answers(cluster: Cluster, namespace: str, name: str) -> None:
    """A pod of the cluster reaches the model by the Service's name: by the cluster's own DNS and kube-proxy."""
    pod = kubectl(cluster, "-n", namespace, "get", "pods", f"--selector=moorage.dev/model={name}", "-o", "name").strip()
    url = f"http://{name}.{namespace}.svc/v1/models"
    text = kubectl(cluster, "-n", namespace, "exec", pod, "--", "python3", "-c", _ASK, url)
    assert [entry["id"] for entry in json.loads(text)["data"]] == [name]


def test_cluster_17_two_clusters_with_nodes_serve_side_by_side(
    cluster: Cluster, images: dict[str, Image], api: Api
) -> None:
    if Record.read(Layout.of(cluster.options.name)) is None:
        pytest.skip("kind keeps its clusters apart by itself")
    api.wait_until_alone()
    serve(api, "first")
    before, running = contents(cluster), status(cluster.options.name)

    with own_cluster("beside") as beside:
        load_images(beside.options.name, [image.archive for image in images.values()])
        # That the operator becomes ready says that its pod reaches the API by the Service of its own cluster.
        demo.install(beside, images)
        other = Api(beside.kubeconfig)
        serve(other, "second")
        other.close()
        assert_answers(beside, "default", "second")
        assert_answers(cluster, api.namespace, "first")
        # Its containers' ids are read while it runs: their control groups have no other mark.
        left = Footprint.of(Layout.of(beside.options.name))

    assert left.describe(with_node=True) == []
    assert contents(cluster) == before
    assert status(cluster.options.name) == running
    assert all(component.alive for component in running)
    assert_answers(cluster, api.namespace, "first")
