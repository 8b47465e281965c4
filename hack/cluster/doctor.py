"""Says what a machine lacks for a cluster, with the command that mends it, before anything is started."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.errors import MissingPrerequisitesError
from hack.cluster.host.layout import CNI_PLUGINS
from hack.cluster.options import ClusterOptions
from hack.cluster.toolchain.builder import ToolCache
from hack.cluster.toolchain.catalog import ToolGroup, groups_for
from hack.cluster.toolchain.gosdk import INSTALL_HINT, find_go, wheel_command

# What a node needs at run time, and the Debian package that brings it.
NODE_PROGRAMS = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "umount": "mount",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
NODE_CNI_PLUGINS = ("bridge", "host-local", "loopback")


@dataclass(frozen=True)
class Missing:
    """Something that is not there, and how to get it; `package` is its Debian package, if it has one."""

    what: str
    remedy: str = ""
    package: str = ""


def missing_for_host(options: ClusterOptions) -> list[Missing]:
    """List what the host provider lacks for such a cluster."""
    found = missing_go(groups_for(control_plane_only=options.control_plane_only))
    if not options.control_plane_only:
        found += missing_for_node(which=shutil.which, cni=CNI_PLUGINS, is_root=os.geteuid() == 0)
    return found


def missing_go(groups: tuple[ToolGroup, ...]) -> list[Missing]:
    """List Go, if binaries have to be built and there is no way to get it."""
    if not ToolCache.default().missing(groups) or find_go() or wheel_command():
        return []
    return [Missing("Go >= 1.26, to build the cluster's binaries", INSTALL_HINT)]


def missing_for_node(*, which: Callable[[str], str | None], cni: Path, is_root: bool) -> list[Missing]:
    """List what a node lacks: programs, network plugins, rights."""
    programs = [
        Missing(f"the program {name}", package=package) for name, package in NODE_PROGRAMS.items() if not which(name)
    ]
    plugins = [
        Missing(f"the network plugin {cni / name}", package="containernetworking-plugins")
        for name in NODE_CNI_PLUGINS
        if not (cni / name).exists()
    ]
    rights = [] if is_root else [Missing("root: a node makes mounts, interfaces and control groups", _ROOT_REMEDY)]
    return programs + plugins + rights


_ROOT_REMEDY = "Run it as root, or start only the API with --control-plane-only, which needs no rights."


def describe(missing: list[Missing]) -> str:
    """Write the list with one command for all packages."""
    lines = [f"  - {item.what}" + (f": {item.remedy}" if item.remedy else "") for item in missing]
    packages = sorted({item.package for item in missing if item.package})
    if packages:
        lines.append(f"Install the packages: apt-get install -y --no-install-recommends {' '.join(packages)}")
    return "\n".join(lines)


def require(missing: list[Missing]) -> None:
    """Raise when something is missing."""
    if missing:
        raise MissingPrerequisitesError(
            "This machine lacks what the cluster needs; nothing was started.", hint=describe(missing)
        )
