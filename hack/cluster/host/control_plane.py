"""What etcd, the servers of the control plane and kwok are started with. Pure: layout and ports in, arguments out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hack.cluster.host.addresses import LOOPBACK, Addresses
from hack.cluster.host.layout import Endpoints, Layout
from hack.cluster.host.process import Command

FAKE_NODE_MARK = "kwok.x-k8s.io/node"
# The second gives pods that ask for GPUs the toleration of GPU nodes' taint, as the clouds' clusters do.
ADMISSION_PLUGINS = "NodeRestriction,ExtendedResourceToleration"

AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    # Who wrote what, so that tests can count; reads would drown it.
    "rules": [
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class Site:
    """A cluster's files and binaries, and whether it has a real node; all that a cluster of any provider has."""

    layout: Layout
    binaries: Mapping[str, Path]
    control_plane_only: bool

    def command(self, component: str, *arguments: str) -> Command:
        return Command(component, (str(self.binaries[component]), *arguments))


@dataclass(frozen=True)
class Plan(Site):
    """All that the pure functions need to know of a host cluster to be."""

    endpoints: Endpoints

    @property
    def addresses(self) -> Addresses:
        return self.endpoints.addresses

    def node_command(self, component: str, *arguments: str) -> Command:
        """A component that runs in the network namespace of the node."""
        return replace(self.command(component, *arguments), netns=str(self.layout.netns))


def etcd(plan: Plan) -> Command:
    """etcd on loopback. Nothing here outlives a crash of the machine, so nothing waits for the disk."""
    peer = f"http://{LOOPBACK}:{plan.endpoints.etcd_peer}"
    return plan.command(
        "etcd",
        "--name=moorage",
        f"--data-dir={plan.layout.root / 'etcd'}",
        f"--listen-client-urls={plan.endpoints.etcd_url}",
        f"--advertise-client-urls={plan.endpoints.etcd_url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=moorage={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )


def api_server(plan: Plan) -> Command:
    """kube-apiserver on the cluster's own address, never on all interfaces."""
    layout, endpoints = plan.layout, plan.endpoints
    arguments = [
        f"--etcd-servers={endpoints.etcd_url}",
        f"--bind-address={endpoints.api_address}",
        f"--secure-port={endpoints.api_port}",
        # Must not be loopback; without a node nobody ever connects to it.
        f"--advertise-address={plan.addresses.host}",
        f"--service-cluster-ip-range={plan.addresses.services}",
        "--authorization-mode=Node,RBAC",
        f"--enable-admission-plugins={ADMISSION_PLUGINS}",
        "--allow-privileged=true",
        "--profiling=false",
        f"--client-ca-file={layout.pki('ca.crt')}",
        f"--tls-cert-file={layout.pki('apiserver.crt')}",
        f"--tls-private-key-file={layout.pki('apiserver.key')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={layout.pki('sa.pub')}",
        f"--service-account-signing-key-file={layout.pki('sa.key')}",
        f"--audit-policy-file={layout.config('audit-policy.json')}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-format=json",
        # In megabytes: large enough that no test's count is cut by a rotation.
        "--audit-log-maxsize=2000",
    ]
    if not plan.control_plane_only:
        arguments += [
            f"--kubelet-certificate-authority={layout.pki('ca.crt')}",
            f"--kubelet-client-certificate={layout.pki('apiserver-kubelet-client.crt')}",
            f"--kubelet-client-key={layout.pki('apiserver-kubelet-client.key')}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
    return plan.command("kube-apiserver", *arguments)


def controller_manager(plan: Plan) -> Command:
    """kube-controller-manager, alone, so without an election; its client limits are those of a larger cluster."""
    layout = plan.layout
    kubeconfig = layout.component_kubeconfig("kube-controller-manager")
    # Where tests freeze the API server, all nodes' heartbeats are old afterwards; it would call their pods not ready,
    # and there is no kubelet that would ever call them ready again.
    patience = ["--node-monitor-grace-period=1h"] if plan.control_plane_only else []
    return plan.command(
        "kube-controller-manager",
        *_server_arguments(kubeconfig, plan.endpoints.controller_manager),
        f"--root-ca-file={layout.pki('ca.crt')}",
        f"--service-account-private-key-file={layout.pki('sa.key')}",
        f"--service-cluster-ip-range={plan.addresses.services}",
        # Its default is a folder of the host, which it would create.
        f"--flex-volume-plugin-dir={layout.root / 'volume-plugins'}",
        # The roles of the single controllers are bound to their service accounts only.
        "--use-service-account-credentials=true",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        *patience,
    )


def scheduler(plan: Plan) -> Command:
    """kube-scheduler, alone as well."""
    kubeconfig = plan.layout.component_kubeconfig("kube-scheduler")
    return plan.command("kube-scheduler", *_server_arguments(kubeconfig, plan.endpoints.scheduler))


def kwok(site: Site) -> Command:
    """kwok plays the kubelet of the fake nodes, and of those only where a real node stands beside them."""
    stages = sorted(site.binaries["kwok"].parent.glob("*.yaml"))
    managed = (
        ["--manage-all-nodes=true"]
        if site.control_plane_only
        else ["--manage-all-nodes=false", f"--manage-nodes-with-annotation-selector={FAKE_NODE_MARK}=fake"]
    )
    return site.command(
        "kwok",
        f"--kubeconfig={site.layout.component_kubeconfig('kwok')}",
        *managed,
        *(f"--config={stage}" for stage in stages),
        "--cidr=10.245.0.1/16",
        "--node-ip=10.245.0.1",
        "--node-lease-duration-seconds=40",
    )


def _server_arguments(kubeconfig: Path, port: int) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        "--leader-elect=false",
        "--profiling=false",
    ]
