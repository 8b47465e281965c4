"""What this process may use, by its cgroups and its affinity, and what its child uses; files of /proc and /sys only."""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
DEVICES: Final = Path("/dev")

_ACCELERATOR: Final = re.compile(r"nvidia[0-9]+|kfd|dxg")

_NO_LIMIT: Final = 1 << 60
"""cgroup v1 writes "no limit" as a number near 2^63."""


@dataclass(frozen=True)
class MemoryLimit:
    """How much memory there is, and who says so."""

    size: int
    source: str


def usable_cpus(cgroups: Path = CGROUPS, proc: Path = PROC) -> int:
    """Give the CPUs that this process can keep busy: affinity, cut by the tightest CPU quota above it."""
    cpus: float = len(os.sched_getaffinity(0))
    for folder in _folders(cgroups, proc, "cpu"):
        quota, period = _cpu_quota(folder)
        if quota > 0 and period > 0:
            cpus = min(cpus, quota / period)
    return max(1, math.ceil(cpus))


def memory_limit(cgroups: Path = CGROUPS, proc: Path = PROC) -> MemoryLimit | None:
    """Give the tightest memory limit above this process, or the machine's memory where there is none."""
    limits = [
        limit
        for folder in _folders(cgroups, proc, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _number(folder / name)) is not None and limit < _NO_LIMIT
    ]
    if limits:
        return MemoryLimit(min(limits), "the memory limit of this container")
    total = _field(proc / "meminfo", "MemTotal:")
    return None if total is None else MemoryLimit(total * 1024, "the memory of this machine")


def oom_kills(cgroups: Path = CGROUPS, proc: Path = PROC) -> int:
    """Count the processes that the kernel killed here for lack of memory."""
    files = (
        folder / name
        for folder in _folders(cgroups, proc, "memory")
        for name in ("memory.events", "memory.oom_control")  # version 2, version 1
    )
    return next((count for file in files if (count := _field(file, "oom_kill")) is not None), 0)


def has_accelerator(devices: Path = DEVICES) -> bool:
    """Say whether this container was given a GPU: the device files of NVIDIA's, AMD's and WSL's drivers."""
    return any(_ACCELERATOR.fullmatch(path.name) for path in devices.glob("*"))


def lacks(*flags: str, proc: Path = PROC) -> bool:
    """Say whether this is an x86 processor with none of `flags`; others have other names for what they can do."""
    try:
        lines = (proc / "cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    told = next((line for line in lines if line.startswith("flags")), None)
    return told is not None and set(flags).isdisjoint(told.split())


def resident_bytes(pid: int, proc: Path = PROC) -> int | None:
    """Give the resident memory of a process; None when it is gone."""
    kilobytes = _field(proc / str(pid) / "status", "VmRSS:")
    return None if kilobytes is None else kilobytes * 1024


def peak_bytes(pid: int, proc: Path = PROC) -> int | None:
    """Give the most resident memory that a process has had; None when it is gone."""
    kilobytes = _field(proc / str(pid) / "status", "VmHWM:")
    return None if kilobytes is None else kilobytes * 1024


def session(pid: int, proc: Path = PROC) -> list[int]:
    """Give the processes of the session that a process leads: an engine's child and all that it started."""
    found = []
    for folder in proc.glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue  # it has ended meanwhile
        if int(stat.rpartition(")")[2].split()[3]) == pid:
            found.append(int(folder.name))
    return sorted(found)


def session_resident(pid: int, proc: Path = PROC) -> int | None:
    """Give the resident memory of a session; what its processes share counts once. None when it is gone."""
    processes = session(pid, proc)
    if len(processes) < 2:
        return resident_bytes(pid, proc)
    sizes = [_field(proc / str(one) / "smaps_rollup", "Pss:") for one in processes]
    return sum(size for size in sizes if size is not None) * 1024


def session_peak(pid: int, proc: Path = PROC) -> int:
    """Give the sum of what each process of a session that runs now has held at its worst."""
    return sum(peak_bytes(one, proc) or 0 for one in session(pid, proc))


def _folders(cgroups: Path, proc: Path, controller: str) -> Iterator[Path]:
    """Give the cgroup folders of this process for a controller, from its own up to the root, where they are seen."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = cgroups
        elif controller in controllers.split(","):
            root = cgroups / controller
        else:
            continue
        folder = root / path.strip("/")
        # In a container of cgroup v1 the path is the host's and not seen here: its own group is the root of what is.
        for level in (folder, *folder.parents):
            if level.is_dir():
                yield level
            if level == root:
                break


def _cpu_quota(folder: Path) -> tuple[float, float]:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return (0.0, 1.0) if quota == "max" else (float(quota), float(period))
    except (OSError, ValueError):
        quota_v1 = _number(folder / "cpu.cfs_quota_us")
        period_v1 = _number(folder / "cpu.cfs_period_us")
        return float(quota_v1 or 0), float(period_v1 or 0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name:
            return int(words[1])
    return None
