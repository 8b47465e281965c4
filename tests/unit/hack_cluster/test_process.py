"""A process is ours only with the right id, start time and executable; signals reach no other."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster.host.layout import Layout
from hack.cluster.host.process import (
    Command,
    ProcessRecord,
    identity_of,
    kill_all,
    read_records,
    send_signal,
    spawn,
    start_time_of,
    wait_for_end,
)


@pytest.fixture
def sleeper(layout: Layout) -> Iterator[ProcessRecord]:
    for folder in layout.folders:
        folder.mkdir(parents=True, exist_ok=True)
    record = spawn(layout, Command("sleeper", (sys.executable, "-c", "import signal; signal.pause()")))
    yield record
    kill_all([record])


def test_start_time_is_read_behind_a_name_with_brackets_and_blanks() -> None:
    numbers = " ".join(str(number) for number in range(4, 60))
    assert start_time_of(f"42 (a) b (c)) S {numbers}") == ("S", 22)


def test_own_identity_is_this_interpreter() -> None:
    identity = identity_of(os.getpid())
    assert identity is not None
    assert identity[1] == str(Path("/proc/self/exe").readlink())


def test_a_spawned_component_is_alive_recorded_and_in_its_own_session(layout: Layout, sleeper: ProcessRecord) -> None:
    assert sleeper.is_alive
    assert read_records(layout) == {"sleeper": sleeper}
    assert os.getsid(sleeper.pid) == sleeper.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter a network namespace, and only root has nodes")
def test_a_component_in_a_network_namespace_is_known_by_its_own_executable(layout: Layout) -> None:
    for folder in layout.folders:
        folder.mkdir(parents=True, exist_ok=True)
    program = (sys.executable, "-c", "import signal; signal.pause()")
    record = spawn(layout, Command("sleeper", program, netns=f"/proc/{os.getpid()}/ns/net"))
    try:
        assert record.is_alive
        assert record.executable == os.path.realpath(sys.executable)
        assert record.command.netns == f"/proc/{os.getpid()}/ns/net"
    finally:
        kill_all([record])
    assert not record.is_alive


def test_a_killed_component_is_gone_and_leaves_no_zombie(sleeper: ProcessRecord) -> None:
    kill_all([sleeper])
    assert not sleeper.is_alive
    assert not Path(f"/proc/{sleeper.pid}").exists()


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"executable": "/bin/other"}])
def test_a_stale_record_never_reaches_a_stranger(sleeper: ProcessRecord, change: dict[str, object]) -> None:
    stale = dataclasses.replace(sleeper, **change)  # type: ignore[arg-type]
    assert not stale.is_alive
    assert not send_signal(stale, signal.SIGKILL)
    assert sleeper.is_alive


def test_waiting_ends_with_the_process(sleeper: ProcessRecord) -> None:
    assert not wait_for_end(sleeper, 0)
    assert send_signal(sleeper, signal.SIGTERM)
    assert wait_for_end(sleeper, 10)


def test_a_broken_record_is_skipped(layout: Layout, sleeper: ProcessRecord) -> None:
    layout.process("broken").write_text("{")
    assert list(read_records(layout)) == ["sleeper"]


def test_output_goes_to_the_components_log(layout: Layout) -> None:
    layout.log("x").parent.mkdir(parents=True)
    layout.process("x").parent.mkdir(parents=True)
    record = spawn(layout, Command("echo", (sys.executable, "-c", "print('hello')")))
    assert wait_for_end(record, 10)
    assert layout.log("echo").read_text() == "hello\n"
