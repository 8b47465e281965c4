"""Takes a host cluster away, whether it runs, is half started, or was killed with the machine.

It goes by what is on the machine (`leftovers`), not by what a healthy cluster would have: each step finds its own
objects again, so it can be repeated after any interruption.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from hack.cluster import paths
from hack.cluster.errors import LeftoverError
from hack.cluster.host import network, sysctls
from hack.cluster.host.layout import RUN_ROOT, Layout, Record
from hack.cluster.host.leftovers import CGROUP_PARENT, CGROUPS, Footprint, bundles_of
from hack.cluster.host.process import kill_all
from hack.cluster.locking import locked

# These are fixed in the code of containerd's shim, of the kubelet and of the CNI library, so a node writes there too.
_SHIM_SOCKETS = Path("/run/containerd/s")
_CONTAINER_LOG_LINKS = Path("/var/log/containers")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
_CNI_RESULTS = Path("/var/lib/cni/results")
# A shim that sees its container die may start runc to delete it: another round finds that too.
_ROUNDS = 5
_KILL_ORDER = {0: {"kubelet", "containerd"}, 2: {"containerd-shim-runc-v2"}}
_KEPT_WITH_LOGS = frozenset({"logs", "config"})


def remove_cluster(layout: Layout, *, keep_logs: bool = False) -> None:
    """End and remove everything of one cluster; raise when something stayed."""
    record = Record.read(layout)
    # Only a node makes a run folder, so that tells where the record is lost.
    with_node = not record.options.control_plane_only if record else layout.run.exists()
    footprint = Footprint.of(layout)
    stop_processes(footprint)
    _unmount(footprint)
    if with_node:
        _remove_node_traces(footprint)
        network.remove_network(layout)
    with machine_lock():
        _remove_folders(footprint, keep=_KEPT_WITH_LOGS if keep_logs else frozenset())
        if with_node:
            _remove_device_plugins()
            sysctls.restore_sysctls()
            _remove_empty(RUN_ROOT)
    found = footprint.describe(with_node=with_node)
    if found and not keep_logs:
        raise LeftoverError(f"Something of cluster {layout.name} is still there:", hint="\n".join(found))


def machine_lock() -> AbstractContextManager[None]:
    """Hold what clusters share on this machine: the choice of ports, and the settings that the last one puts back."""
    return locked(paths.clusters_root() / ".machine.lock", "another cluster that starts or ends")


def stop_processes(footprint: Footprint) -> None:
    """Kill what would put things back, then what containers run, then the rest, until nothing is found."""
    for _ in range(_ROUNDS):
        found = footprint.processes()
        if not found:
            return
        for turn in range(len(_KILL_ORDER) + 1):
            kill_all(record for record in found if kill_turn(record.executable) == turn)


def kill_turn(executable: str) -> int:
    """Say when a process is to be killed.

    >>> [kill_turn(f"/bin/{name}") for name in ("kubelet", "python3", "containerd-shim-runc-v2")]
    [0, 1, 2]
    """
    # Shims last: they are the parents of what containers run, and would leave it to others to be waited for.
    name = Path(executable).name
    return next((turn for turn, names in _KILL_ORDER.items() if name in names), 1)


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


def is_result_of(layout: Layout, text: str) -> bool:
    """Say whether a result that the CNI library keeps is of a pod of this cluster: by the pod's network namespace."""
    try:
        return Path(json.loads(text)["netns"]).is_relative_to(layout.run)
    except (json.JSONDecodeError, KeyError, TypeError):
        return False


def _unmount(footprint: Footprint) -> None:
    for arguments in ((), ("--lazy",)):
        points = [str(path) for path in footprint.mounts()]
        if points:
            subprocess.run(["umount", *arguments, *points], capture_output=True, check=False)


def _remove_node_traces(footprint: Footprint) -> None:
    for bundle in bundles_of(footprint.layout):
        for file in (bundle / "address", bundle / "bootstrap.json"):
            socket = shim_socket(file.read_text()) if file.exists() else None
            if socket and socket.parent == _SHIM_SOCKETS:
                socket.unlink(missing_ok=True)
    for group in footprint.cgroups():
        inner = sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
        _remove_empty(*inner, group)
    _remove_empty(CGROUPS / CGROUP_PARENT, *CGROUPS.glob(f"*/{CGROUP_PARENT}"))
    for link in _CONTAINER_LOG_LINKS.iterdir() if _CONTAINER_LOG_LINKS.is_dir() else ():
        if link.is_symlink() and link.readlink().is_relative_to(footprint.layout.root):
            link.unlink()
    for result in _CNI_RESULTS.glob("*"):
        if is_result_of(footprint.layout, result.read_text()):
            result.unlink()
    for folder in (_CONTAINER_LOG_LINKS, _SHIM_SOCKETS, _CNI_RESULTS):
        _remove_empty(folder, folder.parent)


def _remove_device_plugins() -> None:
    if RUN_ROOT.exists() and any(path.is_dir() for path in RUN_ROOT.iterdir()):
        # All kubelets of the machine share this folder, and another one runs.
        return
    for name in ("kubelet.sock", "kubelet_internal_checkpoint"):
        (_DEVICE_PLUGINS / name).unlink(missing_ok=True)
    _remove_empty(_DEVICE_PLUGINS, _DEVICE_PLUGINS.parent)


def _remove_folders(footprint: Footprint, *, keep: frozenset[str]) -> None:
    if footprint.mounts():
        # Never delete through a mount: behind it may be somebody's files.
        return
    layout = footprint.layout
    shutil.rmtree(layout.run, ignore_errors=True)
    for path in layout.root.iterdir() if layout.root.exists() else ():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    _remove_empty(layout.root)


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        # One that is not empty belongs to somebody else as well, or is reported as left over.
        with contextlib.suppress(OSError):
            folder.rmdir()
