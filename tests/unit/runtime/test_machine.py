"""What the process may use, read from made-up cgroup folders of both versions."""

import os
from pathlib import Path

import pytest

from moorage_runtime import machine

GIB = 1024**3


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "self" / "cgroup").write_text("0::/pod/container\n")
    (folder / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    return folder


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    folder = tmp_path / "cgroup"
    (folder / "pod" / "container").mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_version_2_takes_the_tightest_limit_on_the_way_up(cgroups: Path, proc: Path) -> None:
    (cgroups / "pod" / "memory.max").write_text(f"{2 * GIB}\n")
    (cgroups / "pod" / "container" / "memory.max").write_text("max\n")

    limit = machine.memory_limit(cgroups, proc)

    assert limit == machine.MemoryLimit(2 * GIB, "the memory limit of this container")


def test_version_1_in_a_container_reads_the_root_of_what_it_sees(cgroups: Path, proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("5:cpu,cpuacct:/kubepods/pod1/abc\n4:memory:/kubepods/pod1/abc\n")
    (cgroups / "memory").mkdir()
    (cgroups / "memory" / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    (cgroups / "cpu").mkdir()
    (cgroups / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    (cgroups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert machine.memory_limit(cgroups, proc) == machine.MemoryLimit(GIB, "the memory limit of this container")
    assert machine.usable_cpus(cgroups, proc) == 2


def test_without_a_limit_the_machine_is_the_limit(cgroups: Path, proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("4:memory:/\n")
    (cgroups / "memory").mkdir()
    (cgroups / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")

    assert machine.memory_limit(cgroups, proc) == machine.MemoryLimit(16 * GIB, "the memory of this machine")


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 3), ("1000 100000", 1)]
)
def test_a_quota_is_rounded_up_to_whole_cpus(cgroups: Path, proc: Path, quota: str, cpus: int) -> None:
    (cgroups / "pod" / "container" / "cpu.max").write_text(quota)

    assert machine.usable_cpus(cgroups, proc) == cpus


@pytest.mark.parametrize(
    ("told", "lacks"),
    [("flags\t: fpu avx2", True), ("flags\t: fpu avx2 avx512f avx512bw", False), ("Features\t: fp asimd", False)],
)
def test_only_an_x86_processor_can_lack_an_instruction(proc: Path, told: str, *, lacks: bool) -> None:
    (proc / "cpuinfo").write_text(f"processor\t: 0\n{told}\n")

    assert machine.lacks("avx512f", "amx_tile", proc=proc) is lacks


def test_a_machine_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    nowhere = tmp_path / "nothing"

    assert not machine.lacks("avx512f", proc=nowhere)
    assert machine.memory_limit(nowhere, nowhere) is None
    assert machine.usable_cpus(nowhere, nowhere) == 8
    assert machine.oom_kills(nowhere, nowhere) == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [("memory.events", "low 0\noom 3\noom_kill 2\n"), ("memory.oom_control", "under_oom 0\noom_kill 2\n")],
)
def test_counts_what_the_kernel_killed(cgroups: Path, proc: Path, name: str, content: str) -> None:
    (cgroups / "pod" / "container" / name).write_text(content)

    assert machine.oom_kills(cgroups, proc) == 2


def test_this_process_is_resident() -> None:
    resident = machine.resident_bytes(os.getpid())

    assert resident is not None
    assert resident > 10 * 1024**2


def test_a_process_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    assert machine.resident_bytes(1, tmp_path) is None


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], False),
        (["null", "nvidiactl", "nvidia-uvm", "nvidia-caps"], False),
        (["nvidia0"], True),
        (["nvidia11", "nvidiactl"], True),
        (["kfd"], True),
        (["dxg"], True),
    ],
)
def test_an_accelerator_is_known_by_its_device_file(tmp_path: Path, files: list[str], found: bool) -> None:
    for name in files:
        (tmp_path / name).touch()

    assert machine.has_accelerator(tmp_path) is found
