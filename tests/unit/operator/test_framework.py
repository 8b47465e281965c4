"""kopf as the frame of the process: what it is kept from doing, and how the process begins anew or ends."""

import asyncio
import copy
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import kopf
import pytest

from moorage_operator.handlers import framework
from moorage_operator.metrics import RESTARTS_IN_PLACE
from moorage_operator.settings import Settings
from tests.unit.operator.api_server import kubeconfig

FINALIZER = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
"""What the API server takes as the name of a finalizer."""


def test_kopf_removes_the_finalizers_of_nobody() -> None:
    settings = kopf.OperatorSettings()
    assert FINALIZER.fullmatch(settings.persistence.finalizer)
    framework.configure(settings)
    assert not FINALIZER.fullmatch(settings.persistence.finalizer)


def test_a_process_that_is_told_to_end_while_it_imports_ends(tmp_path: Path) -> None:
    told = "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)\n"
    (tmp_path / "kopf.py").write_text(told)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "moorage_operator"]
    # Without a handler of ours it would be -15 here, and as process 1 nothing at all.
    assert subprocess.run(command, env=environment, timeout=20, check=False).returncode == 0


class ExecutionError(Exception):
    """The process would begin anew."""


@pytest.fixture
def kopf_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf begins, and ends with an error at once."""

    async def operator(*, ready_flag: asyncio.Event, memo: kopf.Memo, **_: Any) -> None:
        ready_flag.set()
        await asyncio.sleep(0.01)
        await memo.api.close()
        memo.cleaned.set()
        raise RuntimeError("by order")

    def execv(*_: Any) -> None:
        raise ExecutionError

    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", "http://127.0.0.1:1", token="one")))
    monkeypatch.setattr(kopf, "operator", operator)
    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(framework, "FIRST_PAUSE", 0.3)
    for name in (framework.RESTARTS, framework.SHORT_LIVES):
        monkeypatch.setenv(name, "0")


async def test_kopf_makes_no_copy_of_our_memo_for_each_object(kopf_ends: None, monkeypatch: pytest.MonkeyPatch) -> None:
    memos = []

    async def operator(*, memo: kopf.Memo, **_: Any) -> None:
        memos.append(memo)
        await memo.api.close()
        memo.stop.set()

    monkeypatch.setattr(kopf, "operator", operator)
    await framework.run(Settings())
    assert copy.copy(memos[0]) is memos[0]


async def test_when_kopf_ends_the_process_begins_anew(kopf_ends: None, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ExecutionError):
        await framework.run(Settings())
    assert "kopf has ended; beginning anew" in caplog.text


async def test_restarts_that_follow_each_other_wait_ever_longer_and_are_counted(
    kopf_ends: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(framework, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(framework, "LONGEST_PAUSE", 0.03)
    before = RESTARTS_IN_PLACE._value.get()
    for _ in range(5):
        with pytest.raises(ExecutionError):
            await framework.run(Settings())
    pauses = [record.__dict__["in_seconds"] for record in caplog.records if "beginning anew" in record.message]
    assert pauses == [0, 0.01, 0.02, 0.03, 0.03]
    assert framework.restarts() == 5
    # One process after the other here: each has added what those before it had counted.
    assert RESTARTS_IN_PLACE._value.get() - before == 0 + 1 + 2 + 3 + 4
    monkeypatch.setattr(framework, "LONG_LIFE", 0.0)
    caplog.clear()
    with pytest.raises(ExecutionError):
        await framework.run(Settings())
    assert caplog.records[-1].__dict__["in_seconds"] == 0


async def test_a_process_that_is_told_to_end_does_not_begin_anew(
    kopf_ends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(framework.SHORT_LIVES, "1")
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
    await framework.run(Settings())
