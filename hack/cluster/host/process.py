"""Starts, recognises and ends the processes of a cluster.

A process is known by its id, its start time and its executable together: an id alone may belong to a stranger by the
time we read it. Signals go through a pidfd that is opened before the check, so they cannot reach a later process of
that id.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hack.cluster.host.layout import Layout

PROC = Path("/proc")
KILL_SECONDS = 10.0
_ENTER_SECONDS = 5.0


@dataclass(frozen=True)
class Command:
    """What a component is started with."""

    component: str
    argv: tuple[str, ...]
    netns: str = ""
    """The file of the network namespace that it runs in; that of its parent, if empty."""


@dataclass(frozen=True)
class ProcessRecord:
    """A started component: how it was called and who it is among the machine's processes."""

    component: str
    argv: tuple[str, ...]
    pid: int
    start_ticks: int
    executable: str
    netns: str = ""

    @property
    def is_alive(self) -> bool:
        if identity_of(self.pid) == (self.start_ticks, self.executable):
            return True
        _reap(self.pid, self.start_ticks)
        return False

    @property
    def command(self) -> Command:
        return Command(self.component, self.argv, self.netns)


def start_time_of(stat: str) -> tuple[str, int]:
    """Read the state and the start time (clock ticks since boot) from the text of /proc/PID/stat.

    The command's name stands in brackets and may itself hold brackets and blanks, so we count from the last bracket.
    """
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def identity_of(pid: int) -> tuple[int, str] | None:
    """Give the start time and executable of a running process; None when there is none, or only a zombie."""
    try:
        state, ticks = start_time_of((PROC / str(pid) / "stat").read_text())
        executable = str((PROC / str(pid) / "exe").readlink())
    except OSError:
        return None
    # A binary that was replaced in the cache since the start is still the one that we started.
    return None if state in "ZX" else (ticks, executable.removesuffix(" (deleted)"))


def spawn(layout: Layout, command: Command) -> ProcessRecord:
    """Start a component in a session of its own, its output in its log, and write down who it is."""
    log = str(layout.log(command.component))
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    enter = ("nsenter", f"--net={command.netns}", "--") if command.netns else ()
    argv = (*enter, *command.argv)
    # Not subprocess.Popen: it warns when its owner forgets a child, and these are meant to outlive us.
    pid = os.posix_spawnp(
        argv[0], argv, _environment(), file_actions=actions, setsid=True, setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP),
    )  # fmt: skip
    ticks, executable = _identity_once_entered(pid, command) if enter else identity_of(pid) or (0, "")
    record = ProcessRecord(command.component, command.argv, pid, ticks, executable, command.netns)
    layout.process(command.component).write_text(json.dumps(asdict(record), indent=1))
    return record


def _identity_once_entered(pid: int, command: Command) -> tuple[int, str]:
    # nsenter becomes the component by a call of exec, a moment after it was started.
    wanted, deadline = os.path.realpath(command.argv[0]), time.monotonic() + _ENTER_SECONDS
    while (identity := identity_of(pid)) and identity[1] != wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    return identity or (0, "")


def read_records(layout: Layout) -> dict[str, ProcessRecord]:
    """Give the components that were started, in the order of their names."""
    records: dict[str, ProcessRecord] = {}
    for path in sorted(layout.process("x").parent.glob("*.json")):
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            data = json.loads(path.read_text())
            records[path.stem] = ProcessRecord(**{**data, "argv": tuple(data["argv"])})
    return records


def send_signal(record: ProcessRecord, number: signal.Signals) -> bool:
    """Signal a component if it is still the process that we started; say whether it was."""
    with _open_pidfd(record.pid) as descriptor:
        if descriptor is None or not record.is_alive:
            return False
        signal.pidfd_send_signal(descriptor, number)
        return True


def kill_all(records: Iterable[ProcessRecord]) -> None:
    """Kill processes and wait until all are gone; what a cluster that ends would save is thrown away anyway."""
    killed = [record for record in records if send_signal(record, signal.SIGKILL)]
    deadline = time.monotonic() + KILL_SECONDS
    for record in killed:
        wait_for_end(record, deadline - time.monotonic())


def wait_for_end(record: ProcessRecord, timeout: float) -> bool:
    """Wait until a process has ended."""
    with _open_pidfd(record.pid) as descriptor:
        if descriptor is None or _start_ticks(record.pid) != record.start_ticks:
            return True
        # Its first thread may be a zombie while others still hold its sockets; a pidfd waits for all of them.
        readable, _, _ = select.select([descriptor], [], [], max(0.0, timeout))
        return bool(readable) and not record.is_alive


def _start_ticks(pid: int) -> int | None:
    try:
        return start_time_of((PROC / str(pid) / "stat").read_text())[1]
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextlib.contextmanager
def _open_pidfd(pid: int) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reap(pid: int, start_ticks: int) -> None:
    # A component that this very process started stays a zombie until it is waited for; another child, even of the same
    # id, is for somebody else to wait for.
    with contextlib.suppress(OSError):
        if start_time_of((PROC / str(pid) / "stat").read_text()) == ("Z", start_ticks):
            os.waitpid(pid, os.WNOHANG)


def _environment() -> dict[str, str]:
    # Proxies would send the components' own traffic astray; a KUBECONFIG of the user's must not reach them at all.
    kept = ("HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path} | {name: os.environ[name] for name in kept if name in os.environ}
