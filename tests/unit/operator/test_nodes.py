"""What the nodes offer: how many GPUs, and how much memory one has."""

import pytest

from moorage_operator.cluster.cache.nodes import DAY_SECONDS, Nodes
from tests.unit.operator.support import Clock, Object

GPU = "nvidia.com/gpu"
MIB = 1024**2


def node(
    name: str, gpus: int, memory: str | None = None, resource: str = GPU, *, uid: str = "", version: int = 1
) -> Object:
    """A node with GPUs whose memory a label tells."""
    labels = {} if memory is None else {f"{resource}.memory": memory}
    metadata = {"name": name, "uid": uid or name, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "status": {"allocatable": {resource: str(gpus), "cpu": "8"}}}


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
    assert nodes.remove(node("n", 8))
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


def test_what_a_node_had_counts_for_a_day() -> None:
    clock = Clock()
    nodes = Nodes(clock)
    nodes.put(node("large", 8))
    nodes.put(node("small", 2))
    assert nodes.most_lately() == {GPU: 8}
    nodes.remove(node("large", 8))
    assert (nodes.most, nodes.most_lately()) == ({GPU: 2}, {GPU: 8})
    clock.advance(DAY_SECONDS / 2)
    nodes.put(node("small", 0))
    assert nodes.most_lately() == {GPU: 8}, "a node whose device plugin has ended is still there"
    clock.advance(DAY_SECONDS / 2 - 1)
    assert nodes.most_lately() == {GPU: 8}
    clock.advance(1)
    assert nodes.most_lately() == {GPU: 2}
    clock.advance(DAY_SECONDS / 2)
    assert nodes.most_lately() == {GPU: 0}


def test_nodes_that_come_and_go_for_ever_take_bounded_memory() -> None:
    clock = Clock()
    nodes = Nodes(clock)
    for count in range(1, 100):
        nodes.put(node("n", count, uid=f"{count}"))
        nodes.remove(node("n", count, uid=f"{count}"))
        clock.advance(DAY_SECONDS / 10)
    assert nodes.most_lately() == {GPU: 99}
    assert len(nodes._lost[GPU]) <= 10


def test_late_news_of_a_node_changes_nothing() -> None:
    nodes = Nodes()
    nodes.put(node("n", 8, version=5))
    assert not nodes.put(node("n", 4, version=4))
    assert nodes.most == {GPU: 8}
    nodes.remove(node("n", 8, version=6))
    assert not nodes.put(node("n", 8, version=5))
    assert nodes.most == {}


def test_the_late_deletion_of_a_node_that_was_made_again_changes_nothing() -> None:
    nodes = Nodes()
    nodes.put(node("n", 8, uid="old", version=1))
    nodes.put(node("n", 4, uid="new", version=3))
    assert not nodes.remove(node("n", 8, uid="old", version=2))
    assert nodes.most == {GPU: 4}
    assert not nodes.retain(set(), 2), "it was made after that list"
    assert nodes.retain(set(), 3)
    assert nodes.most == {}
