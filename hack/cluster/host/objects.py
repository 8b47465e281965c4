"""The few API objects that a cluster starts with: fake GPU nodes and the rights of CoreDNS. Pure."""

from __future__ import annotations

from typing import Any

from hack.cluster.host.control_plane import FAKE_NODE_MARK
from hack.cluster.host.pki import DNS_USER

GPU_RESOURCE = "nvidia.com/gpu"
GPU_PRODUCT = "NVIDIA-H100-80GB-HBM3"
NODES_PATH = "/api/v1/nodes"
RBAC_PATH = "/apis/rbac.authorization.k8s.io/v1"


def fake_node(name: str, gpus: int, *, tainted: bool) -> dict[str, Any]:
    """Give a node that kwok keeps ready, with GPUs that exist for the scheduler only."""
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "250", GPU_RESOURCE: str(gpus)}
    labels = {
        "type": "kwok",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "nvidia.com/gpu.product": GPU_PRODUCT,
        "nvidia.com/gpu.count": str(gpus),
        "nvidia.com/gpu.present": "true",
    }
    # Beside a real node: what needs no GPU must not go where no container runs. GPU nodes of clouds have it too.
    taints = [{"key": GPU_RESOURCE, "value": "present", "effect": "NoSchedule"}] if tainted else []
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {FAKE_NODE_MARK: "fake"}},
        "spec": {"taints": taints},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def is_ready(node: dict[str, Any]) -> bool:
    """Say whether a node's Ready condition is true."""
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def dns_rights() -> list[tuple[str, dict[str, Any]]]:
    """Give the role and binding, each with its path, by which CoreDNS may see Services."""
    name = "moorage:coredns"
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    group = "rbac.authorization.k8s.io"
    common = {"apiVersion": f"{group}/v1", "metadata": {"name": name}}
    role = common | {"kind": "ClusterRole", "rules": rules}
    binding = common | {
        "kind": "ClusterRoleBinding",
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": DNS_USER}],
    }
    return [(f"{RBAC_PATH}/clusterroles", role), (f"{RBAC_PATH}/clusterrolebindings", binding)]
