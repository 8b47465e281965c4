"""The host's side of the pod network: a bridge, an nftables table, and the kernel settings that change on the way."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

from hack.cluster.errors import ClusterError
from hack.cluster.host.layout import BRIDGE, NODE_ADDRESS, POD_NETWORK

SYSCTL_ROOT = Path("/proc/sys")
IP_FORWARD = "net/ipv4/ip_forward"
# ip_forward is ours; the others are what the kubelet sets when it starts. All are put back when the cluster ends.
CHANGED_SYSCTLS = (
    IP_FORWARD,
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
PROXY_TABLE = "kube-proxy"


def read_sysctls() -> dict[str, str]:
    """Read the settings that a cluster changes."""
    existing = [name for name in CHANGED_SYSCTLS if (SYSCTL_ROOT / name).exists()]
    return {name: (SYSCTL_ROOT / name).read_text().strip() for name in existing}


def restore_sysctls(saved: dict[str, str]) -> None:
    """Put back what differs from the saved settings."""
    current = read_sysctls()
    for name, value in saved.items():
        if name in CHANGED_SYSCTLS and current.get(name) != value:
            (SYSCTL_ROOT / name).write_text(value)


def table_name(cluster: str) -> str:
    """Give the name of the cluster's own nftables table."""
    return f"moorage-{cluster}"


def masquerade_rules(cluster: str) -> str:
    """Give the nftables script that lets pods speak to the world outside by the host's address."""
    return f"""\
table ip {table_name(cluster)} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_NETWORK} ip daddr != {POD_NETWORK} masquerade
  }}
}}
"""


def require_free() -> None:
    """Refuse to start a node beside another one: there is one bridge, and one set of kube-proxy's rules."""
    taken = [f"interface {name}" for name in interfaces()]
    taken += [f"nftables table {family} {name}" for family, name in _find_tables({PROXY_TABLE})]
    if taken:
        hint = "End the other cluster first (python -m hack.cluster down --name NAME), or use --control-plane-only."
        raise ClusterError(f"Another cluster has a node on this machine: {', '.join(taken)}.", hint=hint)


def create_network(cluster: str) -> None:
    """Make the bridge that the API server and the kubelet bind to, and let packets pass."""
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    (SYSCTL_ROOT / IP_FORWARD).write_text("1")
    _run("nft", "--file", "-", script=masquerade_rules(cluster))


def remove_network(cluster: str) -> None:
    """Remove the bridge, what hangs on it, and the tables of the cluster and of its kube-proxy."""
    for interface in interfaces():
        # The kernel may be faster: it removes a pod's interface with the pod's namespace, in its own time.
        with contextlib.suppress(ClusterError):
            _run("ip", "link", "delete", interface)
    for family, name in tables(cluster):
        _run("nft", "delete", "table", family, name)


def interfaces() -> list[str]:
    """Name the bridge and the interfaces on it, the bridge last."""
    return parse_interfaces(_run("ip", "-json", "link", "show"))


def tables(cluster: str) -> list[tuple[str, str]]:
    """Give family and name of the nftables tables that a cluster makes."""
    return _find_tables({PROXY_TABLE, table_name(cluster)})


def _find_tables(names: set[str]) -> list[tuple[str, str]]:
    return parse_tables(_run("nft", "-j", "list", "tables"), names)


def parse_interfaces(text: str) -> list[str]:
    """Pick ours from `ip -json link show`."""
    found = json.loads(text) if text.strip() else []
    ports = [link["ifname"] for link in found if link.get("master") == BRIDGE]
    return ports + [link["ifname"] for link in found if link.get("ifname") == BRIDGE]


def parse_tables(text: str, names: set[str]) -> list[tuple[str, str]]:
    """Pick the tables of these names from `nft -j list tables`."""
    found = [entry["table"] for entry in json.loads(text)["nftables"] if "table" in entry]
    return [(table["family"], table["name"]) for table in found if table["name"] in names]


def _run(*command: str, script: str | None = None) -> str:
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
