"""Finds what a cluster has on this machine: processes, mounts, interfaces, nftables tables, control groups.

Everything is recognised by the cluster's own folders or names, never by a program's name alone, so that nothing of a
stranger's is found. `cleanup` ends what is found here, and `down` looks again when it is done. The pods' network
namespaces are mounted below the cluster's run folder, so they are among the mounts.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from pathlib import Path

from hack.cluster.host import network
from hack.cluster.host.layout import Layout
from hack.cluster.host.node import cgroup_root
from hack.cluster.host.process import PROC, ProcessRecord, identity_of, read_records
from hack.cluster.toolchain.builder import ToolCache

CGROUPS = Path("/sys/fs/cgroup")
# Tools that a person may be running against the cluster; they are not the cluster.
_CLIENTS = frozenset({"kubectl", "helm", "ctr"})


@dataclass(frozen=True)
class Leftovers:
    """What is still there, in words."""

    processes: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [f"{name}: {', '.join(values)}" for name, values in found if values]


def leftovers(layout: Layout, *, with_node: bool) -> Leftovers:
    """Look for everything of one cluster; `with_node` says whether it may have had a node."""
    processes = tuple(f"{record.component} ({record.pid})" for record in processes_of(layout))
    folders = tuple(str(folder) for folder in (layout.root, layout.run) if folder.exists())
    mounts = tuple(str(path) for path in mounts_of(layout))
    if not with_node:
        return Leftovers(processes, mounts, folders=folders)
    tables = tuple(f"{family} {name}" for family, name in network.tables(layout.name))
    cgroups = tuple(str(path) for path in cgroups_of(layout))
    return Leftovers(processes, mounts, tuple(network.interfaces()), tables, cgroups, folders)


def processes_of(layout: Layout) -> list[ProcessRecord]:
    """Give the living processes of a cluster: recorded components, unrecorded ones and shims, and all that pods run."""
    recorded = [record for record in read_records(layout).values() if record.is_alive]
    known = {record.pid for record in recorded}
    others = [record for pid in _all_pids() if pid not in known and (record := _unrecorded(pid, layout))]
    return recorded + others


def belongs(executable: str, arguments: list[str], layout: Layout, bin_root: Path) -> bool:
    """Say whether a process is a component of the cluster: a binary of ours, called with a path of this cluster's."""
    path = Path(executable)
    if not path.is_relative_to(bin_root) or path.name in _CLIENTS:
        return False
    return any(f"{folder}/" in argument for folder in (layout.root, layout.run) for argument in arguments)


def in_cgroup(text: str, root: str) -> bool:
    """Say whether the text of /proc/PID/cgroup names a group below `root`.

    >>> in_cgroup("9:memory:/moorage-x/1f\\n", "/moorage-x"), in_cgroup("9:memory:/moorage-x2/1f\\n", "/moorage-x")
    (True, False)
    """
    paths = (line.split(":", 2)[-1] for line in text.splitlines())
    return any(path == root or path.startswith(f"{root}/") for path in paths)


def mounts_of(layout: Layout) -> list[Path]:
    """Give the mount points in the cluster's folders, the deepest first."""
    return parse_mounts((PROC / "self" / "mountinfo").read_text(), (layout.root, layout.run))


def parse_mounts(mountinfo: str, folders: tuple[Path, ...]) -> list[Path]:
    """Pick the mount points below these folders, in the order in which they can be unmounted: the latest first."""
    points = [Path(_unescape(line.split()[4])) for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if any(point.is_relative_to(folder) for folder in folders)]


def cgroups_of(layout: Layout) -> list[Path]:
    """Give the control groups of the cluster's pods in each hierarchy (or in the only one, with version 2)."""
    name = cgroup_root(layout.name).lstrip("/")
    return [path for path in (CGROUPS / name, *CGROUPS.glob(f"*/{name}")) if path.is_dir() and not path.is_symlink()]


def _unrecorded(pid: int, layout: Layout) -> ProcessRecord | None:
    identity = identity_of(pid)
    if identity is None:
        return None
    try:
        arguments = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        groups = (PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return None
    ticks, executable = identity
    is_component = belongs(executable, arguments, layout, ToolCache.default().bin_root)
    if not is_component and not in_cgroup(groups, cgroup_root(layout.name)):
        return None
    return ProcessRecord(Path(executable).name, tuple(arguments), pid, ticks, executable)


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _unescape(path: str) -> str:
    # The kernel writes blanks, tabs, newlines and backslashes of a path as three octal digits.
    return path.encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")


def has_tools() -> bool:
    """Say whether the programs that look at the host's network are installed."""
    return all(shutil.which(tool) for tool in ("ip", "nft"))
