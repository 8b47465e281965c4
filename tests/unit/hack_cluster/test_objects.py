"""Fake GPU nodes as the scheduler sees them."""

from __future__ import annotations

from typing import Any

from hack.cluster.host.control_plane import Site
from hack.cluster.host.fakenodes import reconcile_fake_nodes, surplus_nodes
from hack.cluster.host.objects import GPU_RESOURCE, fake_node, is_ready


def test_beside_a_real_node_fake_ones_are_tainted() -> None:
    (taint,) = fake_node("gpu-0", 8, tainted=True)["spec"]["taints"]
    assert taint == {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    assert fake_node("gpu-0", 8, tainted=False)["spec"]["taints"] == []


def test_a_fake_node_has_its_gpus_and_labels() -> None:
    node = fake_node("gpu-0", 4, tainted=False)
    assert node["status"]["allocatable"] == {"cpu": "64", "memory": "512Gi", "pods": "250", GPU_RESOURCE: "4"}
    assert node["metadata"]["labels"]["type"] == "kwok"
    assert "nvidia.com/gpu.product" in node["metadata"]["labels"]


def test_nodes_of_another_size_and_beyond_the_number_go_but_not_those_of_tests() -> None:
    assert surplus_nodes({"gpu-0": 8}, {"gpu-0": 4, "gpu-1": 8, "mine": 2}) == ["gpu-0", "gpu-1"]


def test_readiness_is_the_condition() -> None:
    assert is_ready({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    assert not is_ready({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    assert not is_ready({})


class QuietClient:
    """An API with one fake node of eight GPUs, which refuses to be written to."""

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        assert (method, body) == ("GET", None)
        node = fake_node("gpu-0", 8, tainted=False)
        node["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        return {"items": [node]} if "labelSelector" in path else node


def test_nothing_is_written_when_the_nodes_are_as_wanted(api_plan: Site) -> None:
    reconcile_fake_nodes(api_plan, QuietClient(), 8, lambda: None)  # type: ignore[arg-type]
