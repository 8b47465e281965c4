"""Which binaries exist, in which version, and from which Go packages they are built.

Each group has a go.mod with its go.sum in `../tools/<module>`, so that their dependency trees stay apart and every byte
is pinned. Two groups may share one module: a control plane without a node needs no kubelet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

TOOLS_DIR = Path(__file__).resolve().parent.parent / "tools"

KUBERNETES_VERSION = "1.36.3"
ETCD_VERSION = "3.6.5"
CONTAINERD_VERSION = "2.2.9"
COREDNS_VERSION = "1.14.7"
KWOK_VERSION = "0.8.0"
HELM_VERSION = "4.3.1"
KIND_VERSION = "0.32.0"
PAUSE_VERSION = "1.0"


@dataclass(frozen=True)
class ToolGroup:
    """Binaries that are built together; `tools` maps a binary's name to its Go package."""

    name: str
    version: str
    module: str
    tools: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    asset_module: str = ""
    asset_files: tuple[str, ...] = ()

    @property
    def module_dir(self) -> Path:
        return TOOLS_DIR / self.module

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"

    @property
    def ldflags(self) -> str:
        return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.variables.items())])


def _kubernetes_variables() -> dict[str, str]:
    # Without these the server reports v0.0.0, and clients complain about the version skew.
    major, minor, _ = KUBERNETES_VERSION.split(".")
    values = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in values.items()}


def _kubernetes(name: str, *commands: str) -> ToolGroup:
    tools = {command: f"k8s.io/kubernetes/cmd/{command}" for command in commands}
    return ToolGroup(name, KUBERNETES_VERSION, "kubernetes", tools, _kubernetes_variables())


KUBECTL = _kubernetes("kubectl", "kubectl")
KUBERNETES = _kubernetes("kubernetes", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
KUBERNETES_NODE = _kubernetes("kubernetes-node", "kubelet", "kube-proxy")
ETCD = ToolGroup("etcd", ETCD_VERSION, "etcd", {"etcd": "go.etcd.io/etcd/server/v3"})
CONTAINERD = ToolGroup(
    "containerd",
    CONTAINERD_VERSION,
    "containerd",
    {
        name: f"github.com/containerd/containerd/v2/cmd/{name}"
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    {"github.com/containerd/containerd/v2/version.Version": f"v{CONTAINERD_VERSION}"},
)
COREDNS = ToolGroup("coredns", COREDNS_VERSION, "coredns", {"coredns": "moorage.dev/hack/cluster/tools/coredns"})
KWOK = ToolGroup(
    "kwok",
    KWOK_VERSION,
    "kwok",
    {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    {"sigs.k8s.io/kwok/pkg/consts.Version": f"v{KWOK_VERSION}"},
    asset_module="sigs.k8s.io/kwok",
    asset_files=(
        "kustomize/stage/node/fast/node-initialize.yaml",
        "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
        "kustomize/stage/pod/fast/pod-complete.yaml",
        "kustomize/stage/pod/fast/pod-delete.yaml",
        "kustomize/stage/pod/fast/pod-ready.yaml",
    ),
)
HELM = ToolGroup("helm", HELM_VERSION, "helm", {"helm": "helm.sh/helm/v4/cmd/helm"})
KIND = ToolGroup("kind", KIND_VERSION, "kind", {"kind": "sigs.k8s.io/kind"})
PAUSE = ToolGroup("pause", PAUSE_VERSION, "pause", {"pause": "moorage.dev/hack/cluster/tools/pause"})

CLIENT_GROUPS = (KUBECTL, HELM, KWOK)
CONTROL_PLANE_GROUPS = (KUBERNETES, ETCD, *CLIENT_GROUPS)
NODE_GROUPS = (KUBERNETES_NODE, CONTAINERD, COREDNS, PAUSE)
ALL_GROUPS = CONTROL_PLANE_GROUPS + NODE_GROUPS


def groups_for(*, control_plane_only: bool) -> tuple[ToolGroup, ...]:
    """Give the groups that a cluster of this kind runs."""
    return CONTROL_PLANE_GROUPS if control_plane_only else ALL_GROUPS


def binaries_of(groups: Iterable[ToolGroup], bin_root: Path) -> dict[str, Path]:
    """Give the path of each binary of these groups."""
    return {tool: bin_root / group.folder / tool for group in groups for tool in group.tools}
