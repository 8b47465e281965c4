"""The network of a cluster with a node: a namespace of its own, and a pair of interfaces that joins it to the host.

In one namespace a second node would take kube-proxy's table, whose name is fixed, and the kubelet's port from the
first. What is in the namespace goes with it; on the host a cluster has one interface, which carries the cluster's name
as its alias, and one nftables table.
"""

from __future__ import annotations

import contextlib
import json
import subprocess

from hack.cluster.errors import ClusterError
from hack.cluster.host.addresses import BRIDGE, MAX_CLUSTERS, UPLINK, Addresses
from hack.cluster.host.layout import Layout

_FORWARD = "/proc/sys/net/ipv4/ip_forward"
# Of the namespace that reads it; it is not there where the kernel does not know how to filter a bridge.
_BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"


def claim_network(layout: Layout) -> Addresses:
    """Make the cluster's namespace, and take the first number whose interface is not there yet."""
    layout.netns.touch()
    _run("unshare", f"--net={layout.netns}", "true")
    for number in range(MAX_CLUSTERS):
        addresses = Addresses(number)
        if addresses.link in _link_names():
            continue
        try:
            _run(
                *("ip", "link", "add", addresses.link, "type", "veth"),
                *("peer", "name", UPLINK, "netns", str(layout.netns)),
            )
        except ClusterError:
            # Another cluster that starts at this moment was faster.
            if addresses.link in _link_names():
                continue
            raise
        return addresses
    hint = "End one: python -m hack.cluster down --name NAME."
    raise ClusterError(
        f"{MAX_CLUSTERS} clusters with a node run on this machine; there is room for no more.", hint=hint
    )


def create_network(layout: Layout, addresses: Addresses) -> None:
    """Give both ends their addresses and routes, make the pods' bridge, and let packets pass."""
    _run("ip", "-batch", "-", script=host_commands(layout, addresses))
    _inside(layout, "ip", "-batch", "-", script=node_commands(addresses))
    _inside(layout, "sh", "-c", f"echo 1 > {_FORWARD}")
    _run("sh", "-c", f"echo 1 > {_FORWARD}")
    _run("nft", "--file", "-", script=masquerade_rules(layout, addresses))


def bridge_is_filtered(layout: Layout) -> bool:
    """Say whether packets between two pods pass through nftables."""
    return _inside(layout, "sh", "-c", f"cat {_BRIDGE_FILTER} || true").strip() == "1"


def remove_network(layout: Layout) -> None:
    """Remove what the cluster has on the host; its namespace ends with the last process and mount."""
    for interface in interfaces(layout):
        # The kernel may be faster: it removes the pair with the namespace, in its own time.
        with contextlib.suppress(ClusterError):
            _run("ip", "link", "delete", interface)
    for family, name in tables(layout):
        _run("nft", "delete", "table", family, name)


def interfaces(layout: Layout) -> list[str]:
    """Name the cluster's interface on the host."""
    return parse_interfaces(_run("ip", "-json", "link", "show"), mark_of(layout))


def tables(layout: Layout) -> list[tuple[str, str]]:
    """Give family and name of the cluster's nftables table on the host."""
    return parse_tables(_run("nft", "-j", "list", "tables"), {mark_of(layout)})


def mark_of(layout: Layout) -> str:
    """Give the name of the cluster's table and the alias of its interface.

    >>> from pathlib import Path
    >>> mark_of(Layout("e2e", Path("/state/e2e"), Path("/run/moorage/e2e-1f")))
    'moorage-e2e-1f'
    """
    return f"moorage-{layout.run.name}"


def host_commands(layout: Layout, addresses: Addresses) -> str:
    """Give the input of `ip -batch` for the host's end."""
    link = addresses.link
    return f"""\
link set {link} alias {mark_of(layout)}
address add {addresses.host}/30 dev {link}
link set {link} up
route add {addresses.pods} via {addresses.uplink}
route add {addresses.services} via {addresses.uplink}
"""


def node_commands(addresses: Addresses) -> str:
    """Give the input of `ip -batch` for the cluster's namespace."""
    return f"""\
link set lo up
address add {addresses.uplink}/30 dev {UPLINK}
link set {UPLINK} up
route add default via {addresses.host}
link add {BRIDGE} type bridge
address add {addresses.node}/24 dev {BRIDGE}
link set {BRIDGE} up
"""


def masquerade_rules(layout: Layout, addresses: Addresses) -> str:
    """Give the nftables script that lets node and pods speak to the world outside by the host's address."""
    return f"""\
table ip {mark_of(layout)} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {{ {addresses.pods}, {addresses.transit} }} oifname != "{addresses.link}" masquerade
  }}
}}
"""


def parse_interfaces(text: str, mark: str) -> list[str]:
    """Pick those with this alias from `ip -json link show`."""
    found = json.loads(text) if text.strip() else []
    return [link["ifname"] for link in found if link.get("ifalias") == mark]


def parse_tables(text: str, names: set[str]) -> list[tuple[str, str]]:
    """Pick the tables of these names from `nft -j list tables`."""
    found = [entry["table"] for entry in json.loads(text)["nftables"] if "table" in entry]
    return [(table["family"], table["name"]) for table in found if table["name"] in names]


def _link_names() -> set[str]:
    return {link["ifname"] for link in json.loads(_run("ip", "-json", "link", "show"))}


def _inside(layout: Layout, *command: str, script: str | None = None) -> str:
    return _run("nsenter", f"--net={layout.netns}", "--", *command, script=script)


def _run(*command: str, script: str | None = None) -> str:
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
