"""What makes this host a node: containerd, kubelet, kube-proxy and CoreDNS, their arguments and configurations. Pure,
but for `write_configs`."""

from __future__ import annotations

import json
from typing import Any

from hack.cluster.host.addresses import BRIDGE, LOOPBACK, NODE_NAME
from hack.cluster.host.control_plane import Plan
from hack.cluster.host.layout import CNI_PLUGINS
from hack.cluster.host.process import Command

PAUSE_IMAGE = "localhost/pause:local"

_CONTAINERD_CONFIG = """\
version = 3
root = "{root}/containerd"
state = "{run}/containerd"
# NRI and /opt/containerd belong to the host, not to this cluster; the other snapshotters need what may not be there.
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
]

[grpc]
address = "{socket}"

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"

[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE runc may not lower the score, and fails with "can't get final child's PID from pipe: EOF".
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{cni_plugins}"]
conf_dir = "{root}/config/cni"

[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "runc"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{shim}"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "{runc}"
Root = "{run}/runc"
SystemdCgroup = false
"""

_COREFILE = """\
.:53 {{
    bind {address}
    errors
    ready {loopback}:{ready_port}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    forward . /etc/resolv.conf
    cache 5
}}
"""


def containerd(plan: Plan) -> Command:
    """containerd with root, state and socket in the cluster's own folders."""
    return plan.node_command("containerd", f"--config={plan.layout.config('containerd.toml')}")


def kubelet(plan: Plan) -> Command:
    """The kubelet on the bridge's address."""
    return plan.node_command(
        "kubelet",
        f"--config={plan.layout.config('kubelet.json')}",
        f"--kubeconfig={plan.layout.component_kubeconfig('kubelet')}",
        f"--root-dir={plan.layout.root / 'kubelet'}",
        f"--cert-dir={plan.layout.root / 'pki'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={plan.addresses.node}",
    )


def kube_proxy(plan: Plan) -> Command:
    """kube-proxy, which makes Services of nftables rules."""
    return plan.node_command(
        "kube-proxy", f"--config={plan.layout.config('kube-proxy.json')}", f"--hostname-override={NODE_NAME}"
    )


def coredns(plan: Plan) -> Command:
    """CoreDNS as a process of the host, whose resolvers it asks; pods find it at the host's end."""
    return plan.command("coredns", f"-conf={plan.layout.config('Corefile')}")


def containerd_config(plan: Plan, runc: str) -> str:
    """Give containerd's configuration."""
    return _CONTAINERD_CONFIG.format(
        root=plan.layout.root,
        run=plan.layout.run,
        socket=plan.layout.containerd_socket,
        pause=PAUSE_IMAGE,
        cni_plugins=CNI_PLUGINS,
        shim=plan.binaries["containerd-shim-runc-v2"],
        runc=runc,
    )


def kubelet_config(plan: Plan) -> dict[str, Any]:
    """Give the kubelet's configuration for a host whose control groups belong to others too."""
    layout = plan.layout
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.addresses.node,
        # Not loopback: that of the node's namespace is out of our reach.
        "healthzBindAddress": plan.addresses.node,
        "healthzPort": plan.endpoints.kubelet_health,
        "tlsCertFile": str(layout.pki("kubelet.crt")),
        "tlsPrivateKeyFile": str(layout.pki("kubelet.key")),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki("ca.crt"))},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [plan.addresses.host],
        "podLogsDir": str(layout.root / "pod-logs"),
        "volumePluginDir": str(layout.root / "volume-plugins"),
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        "failSwapOn": False,
        # Images come from archives and could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # A model that was mended is tried again soon.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"},
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": False,
        "maxPods": 200,
    }


def kube_proxy_config(plan: Plan, *, bridge_is_filtered: bool) -> dict[str, Any]:
    """Give kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": plan.addresses.node,
        "clusterCIDR": plan.addresses.pods,
        "clientConnection": {"kubeconfig": str(plan.layout.component_kubeconfig("kube-proxy"))},
        "healthzBindAddress": f"{plan.addresses.node}:{plan.endpoints.proxy_health}",
        "metricsBindAddress": f"{plan.addresses.node}:{plan.endpoints.proxy_metrics}",
        # All pods hang on one bridge. Where the kernel does not show bridged packets to nftables, an answer between two
        # pods would bypass the translation back, unless the host stands in as the sender.
        "nftables": {
            "masqueradeAll": not bridge_is_filtered,
            # A Service follows its pods at once: nothing else has to be written on one small node.
            "minSyncPeriod": "100ms",
        },
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    }


def cni_config(plan: Plan) -> dict[str, Any]:
    """Give the pod network: a bridge, and addresses whose leases live in the cluster's own folder."""
    return {
        "cniVersion": "0.4.0",
        "name": "moorage",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "hairpinMode": True,
                # Masquerading is one nftables rule of ours; the plugin would add an iptables chain for every pod.
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(plan.layout.root / "cni-leases"),
                    "ranges": [[{"subnet": plan.addresses.pods, "gateway": plan.addresses.node}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def corefile(plan: Plan) -> str:
    """Give CoreDNS's configuration; answers live for seconds only, as Services come and go here."""
    return _COREFILE.format(
        address=plan.addresses.host,
        loopback=LOOPBACK,
        ready_port=plan.endpoints.dns_ready,
        kubeconfig=plan.layout.component_kubeconfig("coredns"),
    )


def write_configs(plan: Plan, runc: str, *, bridge_is_filtered: bool) -> None:
    """Write the node's configuration files."""
    config = plan.layout.config
    config("cni").mkdir(exist_ok=True)
    config("cni/10-moorage.conflist").write_text(json.dumps(cni_config(plan), indent=1))
    config("containerd.toml").write_text(containerd_config(plan, runc))
    config("kubelet.json").write_text(json.dumps(kubelet_config(plan), indent=1))
    config("kube-proxy.json").write_text(
        json.dumps(kube_proxy_config(plan, bridge_is_filtered=bridge_is_filtered), indent=1)
    )
    config("Corefile").write_text(corefile(plan))
