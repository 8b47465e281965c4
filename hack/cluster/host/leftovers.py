"""Finds what a cluster has on this machine: processes, mounts, interfaces, nftables tables, control groups.

Everything is recognised by the cluster's own folders, names or container ids, never by a program's name alone, so that
nothing of a stranger's is found. `cleanup` ends what is found here, and looks again when it is done. The network
namespaces of node and pods are mounted below the cluster's run folder, so they are among the mounts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hack.cluster.host import network
from hack.cluster.host.layout import Layout
from hack.cluster.host.process import PROC, ProcessRecord, identity_of, read_records
from hack.cluster.toolchain.builder import ToolCache

CGROUPS = Path("/sys/fs/cgroup")
# What containerd calls the parent of all containers' groups when the kubelet does not manage groups itself.
CGROUP_PARENT = "k8s.io"
# Tools that a person may be running against the cluster; they are not the cluster.
_CLIENTS = frozenset({"kubectl", "helm", "ctr"})


@dataclass(frozen=True)
class Footprint:
    """Where to look for one cluster; its container ids are read before anything is removed: nothing else has them."""

    layout: Layout
    containers: frozenset[str]

    @classmethod
    def of(cls, layout: Layout) -> Footprint:
        return cls(layout, frozenset(bundle.name for bundle in bundles_of(layout)))

    def processes(self) -> list[ProcessRecord]:
        """Give the living processes: recorded components, unrecorded ones and shims, and all that containers run."""
        recorded = [record for record in read_records(self.layout).values() if record.is_alive]
        known = {record.pid for record in recorded}
        pids = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
        return recorded + [record for pid in pids if pid not in known and (record := self._unrecorded(pid))]

    def mounts(self) -> list[Path]:
        """Give the mount points in the cluster's folders, in the order in which they can be unmounted."""
        return parse_mounts((PROC / "self" / "mountinfo").read_text(), (self.layout.root, self.layout.run))

    def cgroups(self) -> list[Path]:
        """Give the control groups of the containers in each hierarchy (or in the only one, with version 2)."""
        parents = (CGROUPS / CGROUP_PARENT, *CGROUPS.glob(f"*/{CGROUP_PARENT}"))
        return [parent / name for parent in parents for name in sorted(self.containers) if (parent / name).is_dir()]

    def folders(self) -> list[Path]:
        """Give the cluster's own folders."""
        return [folder for folder in (self.layout.root, self.layout.run) if folder.exists()]

    def describe(self, *, with_node: bool) -> list[str]:
        """Name all that is there, a line for each kind; `with_node` says whether there may have been a node."""
        found: dict[str, list[str]] = {
            "processes": [f"{record.component} ({record.pid})" for record in self.processes()],
            "mounts": [str(path) for path in self.mounts()],
            "control groups": [str(path) for path in self.cgroups()],
            "folders": [str(path) for path in self.folders()],
        }
        if with_node:
            found["interfaces"] = network.interfaces(self.layout)
            found["nftables tables"] = [" ".join(table) for table in network.tables(self.layout)]
        return [f"{kind}: {', '.join(names)}" for kind, names in found.items() if names]

    def _unrecorded(self, pid: int) -> ProcessRecord | None:
        identity = identity_of(pid)
        if identity is None:
            return None
        try:
            arguments = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
            groups = (PROC / str(pid) / "cgroup").read_text()
        except OSError:
            return None
        ticks, executable = identity
        is_component = belongs(executable, arguments, self.layout, ToolCache.default().bin_root)
        if not is_component and not in_container(groups, self.containers):
            return None
        return ProcessRecord(Path(executable).name, tuple(arguments), pid, ticks, executable)


def bundles_of(layout: Layout) -> list[Path]:
    """Give the folders in which the shims keep their containers, each named by the container's id."""
    return list((layout.run / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io").glob("*"))


def belongs(executable: str, arguments: list[str], layout: Layout, bin_root: Path) -> bool:
    """Say whether a process is a component of the cluster: a binary of ours, called with a path of this cluster's."""
    path = Path(executable)
    if not path.is_relative_to(bin_root) or path.name in _CLIENTS:
        return False
    return any(f"{folder}/" in argument for folder in (layout.root, layout.run) for argument in arguments)


def in_container(groups: str, containers: frozenset[str]) -> bool:
    """Say whether the text of /proc/PID/cgroup names a group of one of these containers.

    >>> [in_container(f"9:memory:/k8s.io/{name}\\n", frozenset({"1f"})) for name in ("1f", "2e")]
    [True, False]
    """
    paths = (line.split(":", 2)[-1] for line in groups.splitlines())
    return any(part in containers for path in paths for part in path.split("/"))


def parse_mounts(mountinfo: str, folders: tuple[Path, ...]) -> list[Path]:
    """Pick the mount points in these folders from /proc/self/mountinfo, the latest first."""
    points = [Path(_unescape(line.split()[4])) for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if any(point.is_relative_to(folder) for folder in folders)]


def _unescape(path: str) -> str:
    # The kernel writes blanks, tabs, newlines and backslashes of a path as three octal digits.
    return path.encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
