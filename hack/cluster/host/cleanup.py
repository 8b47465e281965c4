"""Takes a host cluster away, whether it runs, is half started, or was killed with the machine.

It goes by what is on the machine (`leftovers`), not by what a healthy cluster would have: each step finds its own
objects again, so it can be repeated after any interruption.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

from hack.cluster.errors import LeftoverError
from hack.cluster.host import network
from hack.cluster.host.layout import Layout, Record
from hack.cluster.host.leftovers import cgroups_of, has_tools, leftovers, mounts_of, processes_of
from hack.cluster.host.process import kill_all

# Both are fixed in the code of containerd's shim and of the kubelet; they hold sockets and links into our folders.
_SHIM_SOCKETS = Path("/run/containerd/s")
_CONTAINER_LOG_LINKS = Path("/var/log/containers")
# A shim that sees its pod die may start runc to delete it: another round finds that too.
_ROUNDS = 5


def remove_cluster(layout: Layout, *, keep_logs: bool = False) -> None:
    """End and remove everything of one cluster; raise when something stayed."""
    record = Record.read(layout)
    # Without a readable record we cannot know, so we look for a node where we can.
    with_node = not record.options.control_plane_only if record else layout.run.exists()
    with_node = with_node and has_tools()
    stop_processes(layout)
    if with_node:
        _remove_shim_sockets(layout)
        _unmount(layout)
        network.remove_network(layout.name)
        _remove_cgroups(layout)
        _remove_log_links(layout)
    if record:
        network.restore_sysctls(record.sysctls)
    _remove_folders(layout, keep_logs=keep_logs)
    found = leftovers(layout, with_node=with_node).lines()
    if found and not keep_logs:
        raise LeftoverError(f"Something of cluster {layout.name} is still there:", hint="\n".join(found))


def stop_processes(layout: Layout) -> None:
    """Kill components first, then shims and what pods run, until nothing is found."""
    for _ in range(_ROUNDS):
        found = processes_of(layout)
        if not found:
            return
        # The kubelet and containerd would put back what is killed before them.
        kill_all(sorted(found, key=lambda record: record.component not in ("kubelet", "containerd")))


def _unmount(layout: Layout) -> None:
    for arguments in ((), ("--lazy",)):
        points = [str(path) for path in mounts_of(layout)]
        if points:
            subprocess.run(["umount", *arguments, *points], capture_output=True, check=False)


def _remove_shim_sockets(layout: Layout) -> None:
    bundles = layout.run / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io"
    for file in (*bundles.glob("*/address"), *bundles.glob("*/bootstrap.json")):
        socket = shim_socket(file.read_text())
        if socket and socket.parent == _SHIM_SOCKETS:
            socket.unlink(missing_ok=True)


def shim_socket(text: str) -> Path | None:
    """Read the socket's path from a bundle's `address` (plain) or `bootstrap.json`.

    >>> str(shim_socket("unix:///run/containerd/s/1f")), str(shim_socket('{"address":"unix:///run/containerd/s/2e"}'))
    ('/run/containerd/s/1f', '/run/containerd/s/2e')
    """
    address = text.strip()
    if address.startswith("{"):
        with contextlib.suppress(json.JSONDecodeError):
            address = str(json.loads(address).get("address", ""))
    return Path(address.removeprefix("unix://")) if address.startswith("unix://") else None


def _remove_cgroups(layout: Layout) -> None:
    for root in cgroups_of(layout):
        inner = sorted((path for path in root.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
        for group in (*inner, root):
            # Only an empty group can be removed; one that is not is reported as left over.
            with contextlib.suppress(OSError):
                group.rmdir()


def _remove_log_links(layout: Layout) -> None:
    if not _CONTAINER_LOG_LINKS.is_dir():
        return
    for link in _CONTAINER_LOG_LINKS.iterdir():
        if link.is_symlink() and link.readlink().is_relative_to(layout.root):
            link.unlink()


def _remove_folders(layout: Layout, *, keep_logs: bool) -> None:
    if mounts_of(layout):
        # Never delete through a mount: behind it may be somebody's files.
        return
    shutil.rmtree(layout.run, ignore_errors=True)
    with contextlib.suppress(OSError):
        layout.run.parent.rmdir()
    if not keep_logs:
        shutil.rmtree(layout.root, ignore_errors=True)
        return
    for path in layout.root.iterdir() if layout.root.exists() else ():
        if path.name not in ("logs", "config"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
