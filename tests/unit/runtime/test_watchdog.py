"""When a silent engine is called hung, and when it is only slow."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest

from moorage_runtime.activity import Activity, session_activity
from moorage_runtime.supervise import DEFAULT_POLICY
from moorage_runtime.watchdog import Suspicion, WatchdogPolicy, busy, hung, judge
from tests.unit.runtime.support import events, running, until

T = TypeVar("T")

POLICY = WatchdogPolicy()
SUSPICION = Suspicion(since=100.0, done=Activity(50.0, 7, works=False))


@pytest.mark.parametrize(
    ("found", "is_busy"),
    [
        pytest.param(Activity(50.0, 7, works=False), False, id="stopped"),
        pytest.param(Activity(50.01, 7, works=False), False, id="answers-cost-a-little"),
        pytest.param(Activity(50.5, 7, works=False), True, id="long-prompt"),
        pytest.param(Activity(40.0, 7, works=False), True, id="a-thread-has-ended"),
        pytest.param(Activity(50.0, 9, works=False), True, id="slow-disk"),
        pytest.param(Activity(50.0, 7, works=True), True, id="gets-no-cpu"),
    ],
)
def test_work_is_seen_however_slow(found: Activity, *, is_busy: bool) -> None:
    assert busy(POLICY, SUSPICION, 101.0, found) is is_busy


@pytest.mark.parametrize(
    ("elapsed", "silent", "answers", "works_on_cpu", "verdict"),
    [
        pytest.param(1, 1.4, False, True, "does not answer and does nothing", id="stopped"),
        pytest.param(1, 1.4, False, False, "does not answer", id="stopped-works-elsewhere"),
        pytest.param(0.5, 0.9, False, True, None, id="not-confirmed"),
        pytest.param(1, 1.4, True, True, None, id="answers"),
        pytest.param(9.7, 10.1, True, True, "does nothing, while requests run", id="stuck-behind-its-http"),
        pytest.param(60, 61, True, False, None, id="works-elsewhere"),
    ],
)
def test_a_verdict_needs_all_its_evidence(
    *, elapsed: float, silent: float, answers: bool, works_on_cpu: bool, verdict: str | None
) -> None:
    found = judge(POLICY, elapsed=elapsed, silent=silent, answers=answers, works_on_cpu=works_on_cpu)

    assert (found is None) == (verdict is None)
    assert verdict is None or verdict in (found or "")


class Scene:
    """An engine as the watchdog sees it: silences and activities in turn, the last for ever."""

    def __init__(self, silences: list[float], activities: list[Activity], *, answers: bool = False) -> None:
        self.silences, self.activities, self.answers = silences, activities, answers
        self.probes: list[float] = []
        self.looks = 0

    def silence(self) -> float:
        self.looks += 1
        return self._next(self.silences)

    def _next(self, values: list[T]) -> T:
        return values.pop(0) if len(values) > 1 else values[0]

    async def probe(self, seconds: float) -> bool:
        self.probes.append(seconds)
        return self.answers

    async def verdict(self, looks: int = 40) -> str | None:
        """What is said, or None where nothing is said in so many looks."""
        policy = WatchdogPolicy(tick=0.0, idle_tick=0.0, silence=10, confirm=0.0)
        watching = asyncio.create_task(
            hung(
                policy=policy,
                silence=self.silence,
                probe=self.probe,
                activity=lambda: self._next(self.activities),
                works_on_cpu=True,
            )
        )
        await until(lambda: watching.done() or self.looks > looks)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            return await watching
        return None


IDLE, WORKS = Activity(1.0, 0, works=False), Activity(1.0, 0, works=True)


async def test_a_byte_ends_the_suspicion() -> None:
    scene = Scene([20.0, 20.0, 0.0], [IDLE])

    assert await scene.verdict() is None
    assert len(scene.probes) == 1  # it spoke while it was being asked


async def test_a_silence_that_holds_is_a_hang() -> None:
    assert await Scene([20.0], [IDLE]).verdict() == "it sent nothing for 20.0 s, does not answer and does nothing"


async def test_one_that_works_is_not_even_asked() -> None:
    scene = Scene([20.0], [WORKS])

    assert await scene.verdict() is None
    assert scene.probes == []


async def test_one_that_works_during_the_probe_is_not_hung() -> None:
    assert await Scene([20.0], [IDLE, IDLE, WORKS]).verdict() is None


async def test_one_that_only_works_for_ever_is_asked_patiently() -> None:
    scene = Scene([301.0], [WORKS])

    assert await scene.verdict() == "it sent nothing for 301 s and does not answer"
    assert scene.probes == [POLICY.patient_probe]
    assert await Scene([301.0], [WORKS], answers=True).verdict() is None


def test_a_thread_that_runs_is_work() -> None:
    found = session_activity(os.getsid(0))  # the test itself runs

    assert found.works
    assert found.cpu_seconds >= time.process_time() / 2


STAT = "7 ({}) {} 1 7 7 0 0 0 0 0 3 0 {} {} 0 0"


def thread(proc: Path, number: int, name: str, state: str, schedstat: str = "") -> None:
    """Write what a kernel says of a thread of process 7: 3 page faults, 0.5 s by the clock of 10 ms."""
    folder = proc / "7" / "task" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, proc / "7"):
        (path / "stat").write_text(STAT.format(name, state, 40, 10))
    if schedstat:
        (folder / "schedstat").write_text(schedstat)


@pytest.mark.parametrize(("state", "works"), [("S", False), ("T", False), ("R", True), ("D", True), ("Z", False)])
def test_a_thread_works_that_runs_or_waits_for_a_disk(state: str, works: bool, tmp_path: Path) -> None:
    thread(tmp_path, 8, "a) b", state)

    assert session_activity(7, tmp_path) == Activity(0.5, 3, works=works)
    assert session_activity(9, tmp_path) == Activity(0.0, 0, works=False)


def test_threads_that_only_poll_are_no_work(tmp_path: Path) -> None:
    thread(tmp_path, 7, "engine) (x", "S", "250000000 17 2\n")
    thread(tmp_path, 8, "gloo_tcp_loop", "R", "5000000000 17 2\n")

    assert session_activity(7, tmp_path) == Activity(0.25, 3, works=False)


@pytest.mark.parametrize(("number", "limit"), [(signal.SIGSTOP, 2.0), (signal.SIGKILL, 2.0)])
async def test_a_stopped_or_killed_engine_is_seen_within_two_seconds(number: signal.Signals, limit: float) -> None:
    """With the times that are used in earnest; 50 ms a token, so that it is silent only when it is stopped."""
    async with running(policy=DEFAULT_POLICY) as runtime:
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(runtime.chat("!tokens=1 !wait=60"))
        received: list[str] = []
        stopped = 0.0
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            async with runtime.streaming("!tokens=1000 !delay=0.05") as lines:
                async for line in lines:
                    received.append(line)
                    if len(received) == 9:
                        psutil.Process(runtime.server.service.supervisor.pid).send_signal(number)
                        stopped = loop.time()
        seen = loop.time() - stopped

        assert seen < limit
        assert events(received)[-1]["error"]["code"] == "engine_gone"
        assert (await waiting).status_code == 502
        await until(lambda: runtime.server.service.supervisor.restarts == 1)
        await runtime.ready()
        assert (await runtime.chat("!tokens=1")).status_code == 200
