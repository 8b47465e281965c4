"""The process of the management API: started again when it ends, ended with the gateway however that ends."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from moorage_gateway.supervisor import Supervisor
from tests.unit.common.support import until

WAITS = (sys.executable, "-c", "import os\nwhile os.read(0, 1): pass")
STUBBORN = (sys.executable, "-c", "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint()\ntime.sleep(60)")


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_is_started_again_with_ever_longer_pauses(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor((sys.executable, "-c", "raise SystemExit(3)"), first_pause=0.01)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.starts >= 4)
    await ended(task)
    told = [record for record in caplog.records if "ended" in record.message]
    assert [vars(record)["code"] for record in told[:3]] == [3, 3, 3]
    assert [vars(record)["in_seconds"] for record in told[:3]] == [0.01, 0.02, 0.04]


async def test_a_program_that_is_not_there_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor(("/nonexistent",), first_pause=0.01)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.starts >= 2)
    await ended(task)
    assert "cannot be started" in caplog.text


async def test_it_ends_with_us_and_is_waited_for() -> None:
    supervisor = Supervisor(WAITS)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.pid is not None)
    pid = supervisor.pid
    assert pid is not None
    await ended(task)
    assert not psutil.pid_exists(pid)


async def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage_gateway.supervisor.END_SECONDS", 0.2)
    supervisor = Supervisor(STUBBORN)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.pid is not None)
    pid = supervisor.pid
    assert pid is not None
    await ended(task)
    assert not psutil.pid_exists(pid)


def test_one_whose_gateway_was_killed_ends_by_itself(tmp_path: Path) -> None:
    program = (
        f"import asyncio\nfrom moorage_gateway.supervisor import Supervisor\nasyncio.run(Supervisor({WAITS!r}).run())"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) as gateway:
        parent = psutil.Process(gateway.pid)
        for _ in range(500):
            if children := parent.children():
                break
            gateway.poll()
            psutil.wait_procs([parent], timeout=0.02)
        (child,) = children
        os.kill(gateway.pid, signal.SIGKILL)
        assert psutil.wait_procs([child], timeout=10)[1] == []


def test_the_data_plane_loads_no_framework() -> None:
    program = (
        "import sys, moorage_gateway.__main__\n"
        "print([name for name in ('fastapi', 'pydantic', 'starlette', 'uvicorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
