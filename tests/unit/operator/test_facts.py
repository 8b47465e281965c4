"""Whom the prober asks, and whose facts it forgets; how it asks over HTTP is tested with a real runtime."""

import asyncio
from typing import Any

import pytest

from moorage_common.facts import EngineFacts, Health, Phase
from moorage_operator import facts
from moorage_operator.facts import ATTEMPTS, FactsProber
from moorage_operator.store import Key, Store
from moorage_operator.workqueue import WorkQueue
from tests.unit.operator.support import NAMESPACE, live_pod
from tests.unit.operator.virtual_time import in_virtual_time, settle

TINY = Key(NAMESPACE, "tiny")
LOADED = Health(Phase.READY, EngineFacts("llama.cpp"))


class Bed:
    """A prober whose pods answer what the test says; `asked` are their addresses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.models = Store(), WorkQueue[Key]()
        self.prober = FactsProber(self.store, self.models)
        self.asked: list[str] = []
        self.answer: Health | None = LOADED
        self.poisoned: set[str] = set()
        self.version = 0

        async def ask(_session: object, ip: str) -> Health | None:
            self.asked.append(ip)
            if ip in self.poisoned:
                raise RuntimeError("a bug in reading an answer")
            return self.answer

        monkeypatch.setattr(facts, "_detailed_health", ask)

    def pod(self, **fields: Any) -> None:
        """News of a pod; the prober notices."""
        self.version += 1
        self.store.put("Pod", live_pod("a", version=self.version, **fields))
        self.prober.noticed(TINY, self.store.pods(TINY))

    async def work(self, seconds: float = 0) -> None:
        """Let the prober work for a while."""
        running = asyncio.create_task(self.prober.run())
        await settle()
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_a_pod_is_asked_once_when_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.pod(ready=False)
    await bed.work()
    assert bed.asked == []
    bed.pod(ready=True)
    await bed.work()
    assert bed.asked == ["10.0.0.7"]
    assert bed.store.facts(TINY) == {"uid-of-a": LOADED}
    assert await bed.models.get() == TINY
    bed.pod(ready=True, annotations={"new": "news"})
    await bed.work()
    assert bed.asked == ["10.0.0.7"]


@in_virtual_time
async def test_a_pod_that_was_not_ready_meanwhile_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.pod(ready=True)
    await bed.work()
    bed.pod(ready=False)
    assert bed.store.facts(TINY) == {}
    bed.pod(ready=True)
    await bed.work()
    assert len(bed.asked) == 2


@in_virtual_time
async def test_a_pod_that_does_not_answer_is_asked_a_few_times_and_then_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = Bed(monkeypatch)
    bed.answer = None
    bed.pod(ready=True)
    await bed.work(60)
    assert len(bed.asked) == ATTEMPTS
    assert bed.store.facts(TINY) == {"uid-of-a": None}
    assert len(bed.models) == 1


@in_virtual_time
async def test_a_pod_that_is_gone_or_has_no_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.pod(ready=True, node=None)
    bed.prober.noticed(TINY, bed.store.pods(TINY))
    await bed.work()
    bed.pod(ready=True)
    bed.store.forget(TINY)
    await bed.work()
    assert bed.asked == []
    assert bed.store.models() == []


@in_virtual_time
async def test_a_bug_in_reading_one_answer_does_not_stop_the_asking_of_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bed = Bed(monkeypatch)
    bed.poisoned = {"10.0.0.7"}
    running = asyncio.create_task(bed.prober.run())
    bed.pod(ready=True)
    await settle()
    assert "a bug in reading an answer" in caplog.text
    bed.poisoned = set()
    bed.pod(ready=False)
    bed.pod(ready=True)
    await settle()
    assert not running.done()
    assert bed.store.facts(TINY) == {"uid-of-a": LOADED}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
