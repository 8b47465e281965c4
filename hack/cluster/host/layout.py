"""Where a host cluster keeps its files, and which addresses and ports it answers on."""

from __future__ import annotations

import hashlib
import json
import random
import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hack.cluster import paths
from hack.cluster.errors import ClusterError
from hack.cluster.host.addresses import LOOPBACK, Addresses
from hack.cluster.options import ClusterOptions

# Where Debian keeps them.
CNI_PLUGINS = Path("/usr/lib/cni")

RUN_ROOT = Path("/run/moorage")
_API_PORT = 6443
# Below both NodePorts (30000) and the kernel's ephemeral ports (32768): nobody's outgoing connection can take one of
# these between the moment we look and the moment the component binds.
_PORT_RANGE = (20000, 29999)
_LONGEST_SOCKET_PATH = 107
_LONGEST_SOCKET_NAME = "kubelet/pod-resources/1234567890.sock"


@dataclass(frozen=True)
class Layout:
    """The folders and files of one cluster."""

    name: str
    root: Path
    run: Path

    @classmethod
    def of(cls, name: str) -> Layout:
        root = paths.clusters_root() / name
        # A cluster is known by its state folder: one of the same name in another folder is another cluster.
        return cls(name, root, RUN_ROOT / f"{name}-{hashlib.sha256(str(root).encode()).hexdigest()[:6]}")

    @property
    def record(self) -> Path:
        return self.root / "cluster.json"

    @property
    def lock(self) -> Path:
        return self.root.parent / f".{self.name}.lock"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.root / "logs" / "audit.log"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def netns(self) -> Path:
        """Where the network namespace of the node is mounted."""
        return self.run / "netns"

    @property
    def folders(self) -> list[Path]:
        names = ("pki", "kubeconfigs", "config", "logs", "processes")
        return [self.root, *(self.root / name for name in names)]

    def pki(self, name: str) -> Path:
        return self.root / "pki" / name

    def component_kubeconfig(self, component: str) -> Path:
        return self.root / "kubeconfigs" / component

    def config(self, name: str) -> Path:
        return self.root / "config" / name

    def log(self, component: str) -> Path:
        return self.root / "logs" / f"{component}.log"

    def process(self, component: str) -> Path:
        return self.root / "processes" / f"{component}.json"

    def check_socket_paths(self) -> None:
        """Refuse a home so deep that the kubelet could not bind its sockets in it."""
        if len(str(self.root / _LONGEST_SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
            raise ClusterError(
                f"{self.root} is too long: the kubelet's sockets below it would pass the kernel's 107 characters.",
                hint="Set XDG_STATE_HOME to a shorter folder, or give the cluster a shorter name.",
            )


@dataclass(frozen=True)
class Endpoints:
    """The number of the cluster's networks, the address that the API server binds to, and every port."""

    number: int
    api_address: str
    api_port: int
    etcd_client: int
    etcd_peer: int
    controller_manager: int
    scheduler: int
    kubelet_health: int
    proxy_health: int
    proxy_metrics: int
    dns_ready: int

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.number)

    @property
    def ports(self) -> set[int]:
        return {value for name, value in asdict(self).items() if name not in ("number", "api_address")}

    @property
    def api_url(self) -> str:
        return f"https://{self.api_address}:{self.api_port}"

    @property
    def etcd_url(self) -> str:
        return f"http://{LOOPBACK}:{self.etcd_client}"


@dataclass(frozen=True)
class Record:
    """What is known of a started cluster; `ready` is written last, so a record without it is a half-finished start."""

    options: ClusterOptions
    endpoints: Endpoints
    ready: bool

    def write(self, layout: Layout) -> None:
        temporary = layout.record.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(layout.record)

    @classmethod
    def read(cls, layout: Layout) -> Record | None:
        try:
            return cls.parse(json.loads(layout.record.read_text()))
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            # Nothing, or the work of another version: both mean that there is no cluster to go on with.
            return None

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Record:
        options, endpoints = ClusterOptions(**data["options"]), Endpoints(**data["endpoints"])
        return cls(options, endpoints, bool(data["ready"]))


def pick_endpoints(node: Addresses | None, taken: Collection[int] = ()) -> Endpoints:
    """Choose free ports that no other cluster has chosen; `node` are the addresses of a cluster with a node."""
    ports = _free_ports(9, taken)
    if node is None:
        return Endpoints(0, LOOPBACK, *ports)
    return Endpoints(node.number, node.host, _API_PORT, *ports[1:])


def chosen_ports() -> set[int]:
    """Give the ports of all clusters that are recorded: one that starts right now does not listen yet."""
    roots = paths.clusters_root().glob("*/cluster.json")
    records = [Record.read(Layout.of(path.parent.name)) for path in roots]
    return {port for record in records if record for port in record.endpoints.ports}


def _free_ports(count: int, taken: Collection[int]) -> list[int]:
    found: list[int] = []
    candidates = random.sample(range(*_PORT_RANGE), 500)
    for port in candidates:
        if len(found) == count:
            break
        if port not in taken and _is_free(port):
            found.append(port)
    if len(found) < count:
        raise ClusterError(f"No {count} free ports were found between {_PORT_RANGE[0]} and {_PORT_RANGE[1]}.")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
