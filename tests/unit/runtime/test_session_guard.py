"""The guard of an engine's session: nothing that the engine started outlives its first process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from moorage_runtime import machine
from moorage_runtime.activity import session_activity

# A process with a guard, and below it one that is in nobody's way: it ignores what can be ignored.
PROGRAM = """
import signal, subprocess, sys
from moorage_runtime.engines.session_guard import guard
guard()
stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
subprocess.Popen([sys.executable, "-c", stubborn])
signal.pause()
"""


def test_the_session_ends_with_its_first_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, start_new_session=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"up\n"
        members = machine.session(first.pid)
        assert len(members) == 3
        assert session_activity(first.pid).cpu_seconds > 0
        resident = machine.session_resident(first.pid)
        assert resident is not None
        assert resident > (machine.resident_bytes(first.pid) or 0) // 2

        os.kill(first.pid, signal.SIGKILL)
        # The pipe ends when the last process that holds it has ended: the guard holds it not, the stubborn one does.
        assert first.stdout.read() == b""
    deadline = time.monotonic() + 5
    while any(machine.resident_bytes(pid) for pid in members):
        assert time.monotonic() < deadline, machine.session(first.pid)
        time.sleep(0.01)
