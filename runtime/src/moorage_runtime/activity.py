"""What an engine's processes do, by their threads (proc(5), `stat` and `schedstat`)."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from moorage_runtime.machine import PROC, session

POLLING: Final = frozenset({"gloo_tcp_loop"})
"""Threads that look again and again whether there is anything to do: of gloo, by which vLLM's workers talk.

A worker has a dozen of them, which take 3 % of a CPU together: an engine that hangs would seem to work.
"""

NANOSECONDS: Final = 1e-9


class Activity(NamedTuple):
    """What an engine has done so far, and whether it is at it."""

    cpu_seconds: float
    """Of the threads that are there, but for those that poll."""
    page_faults: int
    """Weights that come from a slow disk cost faults instead of CPU time."""
    works: bool
    """A thread runs, or waits for a CPU or a disk."""

    def cpu_since(self, before: "Activity") -> float:
        """CPU seconds; less than there was is what a thread had done that has ended since, and counts as well."""
        return abs(self.cpu_seconds - before.cpu_seconds)


class Thread(NamedTuple):
    """One thread; `state` as proc(5) has it."""

    name: str
    state: str
    page_faults: int
    cpu_seconds: float


def session_activity(pid: int, proc: Path = PROC) -> Activity:
    """Give what the processes do of the session that a process leads."""
    threads = [thread for one in session(pid, proc) for thread in _threads(proc / str(one))]
    return Activity(
        sum(thread.cpu_seconds for thread in threads),
        sum(thread.page_faults for thread in threads),
        any(thread.state in "RD" for thread in threads),
    )


def _threads(process: Path) -> Iterator[Thread]:
    for path in process.glob("task/[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            thread = _thread(path)
            if thread.name not in POLLING:
                yield thread


def _thread(path: Path) -> Thread:
    # The second field is the name in parentheses and may hold anything; proc(5) numbers fields from 1.
    begin, _, rest = (path / "stat").read_text().rpartition(")")
    fields = rest.split()
    try:
        cpu = int((path / "schedstat").read_text().split()[0]) * NANOSECONDS
    except (OSError, IndexError):  # a kernel that counts in ticks only: of 10 ms, which is much in 200
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Thread(begin.partition("(")[2], fields[0], int(fields[9]), cpu)
