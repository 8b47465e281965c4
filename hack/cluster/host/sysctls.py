"""Kernel settings that clusters with a node change: the first of them saves them, the last one puts them back."""

from __future__ import annotations

import json
from pathlib import Path

from hack.cluster.host.layout import RUN_ROOT

SYSCTL_ROOT = Path("/proc/sys")
# ip_forward is ours; the others are what the kubelet sets when it starts.
CHANGED_SYSCTLS = (
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_SAVED = "sysctls.json"


def read_sysctls() -> dict[str, str]:
    """Read the settings that a cluster changes."""
    existing = [name for name in CHANGED_SYSCTLS if (SYSCTL_ROOT / name).exists()]
    return {name: (SYSCTL_ROOT / name).read_text().strip() for name in existing}


def save_sysctls(run_root: Path = RUN_ROOT) -> None:
    """Write the settings down, unless a cluster that runs has done so already."""
    saved = run_root / _SAVED
    if not saved.exists():
        temporary = saved.with_suffix(".tmp")
        temporary.write_text(json.dumps(read_sysctls(), indent=1))
        temporary.replace(saved)


def restore_sysctls(run_root: Path = RUN_ROOT) -> None:
    """Put back what differs from the saved settings, if no cluster with a node is left."""
    saved = run_root / _SAVED
    if not saved.exists() or any(path.is_dir() for path in run_root.iterdir()):
        return
    current = read_sysctls()
    for name, value in json.loads(saved.read_text()).items():
        if name in CHANGED_SYSCTLS and current.get(name) != value:
            (SYSCTL_ROOT / name).write_text(value)
    saved.unlink()
