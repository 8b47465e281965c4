"""What the nodes offer: how many GPUs, and how much memory one has."""

import pytest

from moorage_operator.cluster.nodes import Nodes
from tests.unit.operator.support import Object

GPU = "nvidia.com/gpu"
MIB = 1024**2


def node(name: str, gpus: int, memory: str | None = None, resource: str = GPU) -> Object:
    """A node with GPUs whose memory a label tells."""
    labels = {} if memory is None else {f"{resource}.memory": memory}
    return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": {resource: str(gpus), "cpu": "8"}}}


def test_the_memory_of_a_gpu_is_kept_by_how_many_a_node_has() -> None:
    nodes = Nodes()
    assert nodes.put(node("small", 1, "24576"))
    assert nodes.put(node("large", 8, "81559"))
    assert not nodes.put(node("same", 8, "40960")), "a smaller one of as many GPUs offers nothing new"
    assert nodes.gpu_memory == {GPU: {1: 24576 * MIB, 8: 81559 * MIB}}


def test_a_label_that_comes_or_goes_is_a_change() -> None:
    nodes = Nodes()
    nodes.put(node("n", 8))
    assert nodes.gpu_memory == {}
    assert nodes.put(node("n", 8, "81559"))
    assert not nodes.put(node("n", 8, "81559"))
    assert nodes.remove("n")
    assert (nodes.gpu_memory, nodes.most) == ({}, {})


def test_parts_of_a_gpu_have_labels_of_their_own() -> None:
    nodes = Nodes()
    nodes.put(node("n", 7, "9728", "nvidia.com/mig-1g.10gb"))
    assert nodes.gpu_memory == {"nvidia.com/mig-1g.10gb": {7: 9728 * MIB}}


@pytest.mark.parametrize("odd", ["", "80GB", "-1", "0", "1e5", "\u0663", "9" * 30])
def test_a_label_that_is_no_size_says_nothing(odd: str) -> None:
    nodes = Nodes()
    nodes.put(node("n", 8, odd))
    assert (nodes.gpu_memory, nodes.most) == ({}, {GPU: 8})


def test_a_node_without_free_gpus_of_the_kind_says_nothing() -> None:
    nodes = Nodes()
    nodes.put(node("n", 0, "81559"))
    assert nodes.gpu_memory == {}
