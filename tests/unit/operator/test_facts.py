"""Whom the prober asks and when, and whose facts it forgets; how it asks over HTTP is tested with a real runtime."""

import asyncio
from typing import Any

import msgspec
import pytest

from moorage_common.facts import EngineFacts, Health, Phase
from moorage_common.shape import Shape
from moorage_operator.api.key import Key
from moorage_operator.cluster import facts
from moorage_operator.cluster.cache.store import Store
from moorage_operator.cluster.facts import LOOK_SECONDS, RETRY_LOADING, RETRY_READY, FactsProber
from moorage_operator.workqueue import WorkQueue
from tests.unit.operator.support import NAMESPACE, live_pod
from tests.unit.operator.virtual_time import in_virtual_time, settle

TINY = Key(NAMESPACE, "tiny")
SHAPE = Shape(architecture="llama", stored_bytes=100, tensor_bytes={"F16": 100})
KEPT = Shape(architecture="llama", stored_bytes=100)
LOADED = Health(Phase.READY, EngineFacts("llama.cpp"))
LOADING = Health(Phase.LOADING, shape=SHAPE)
RUNS: dict[str, Any] = {"state": {"running": {}}}


class Bed:
    """A prober whose pods answer what the test says; `asked` are their addresses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.models = Store(), WorkQueue[Key]()
        self.prober = FactsProber(self.store, self.models)
        self.asked: list[str] = []
        self.answer: Health | None = LOADED
        self.answers: list[Health | None] = []
        self.poisoned: set[str] = set()
        self.version = 0

        async def ask(_session: object, ip: str) -> Health | None:
            self.asked.append(ip)
            if ip in self.poisoned:
                raise RuntimeError("a bug in reading an answer")
            return self.answers.pop(0) if self.answers else self.answer

        monkeypatch.setattr(facts, "_detailed_health", ask)

    def pod(self, **fields: Any) -> None:
        """News of a pod; the prober notices."""
        self.version += 1
        self.store.put("Pod", live_pod("a", version=self.version, **fields))
        self.prober.schedule(TINY, self.store.pods(TINY))

    async def work(self, seconds: float = 0) -> None:
        """Let the prober work for a while."""
        running = asyncio.create_task(self.prober.run())
        await settle()
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def news(self) -> int:
        """How many models are to be looked at again; they are taken."""
        count = len(self.models)
        for _ in range(count):
            self.models.done(await self.models.get())
        return count


@in_virtual_time
async def test_a_pod_is_asked_once_when_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.pod(ready=False)
    await bed.work()
    assert bed.asked == []
    bed.pod(ready=True)
    await bed.work()
    assert bed.asked == ["10.0.0.7"]
    assert bed.store.reports(TINY).facts == {"uid-of-a": LOADED}
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
    assert bed.store.reports(TINY).facts == {}
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
    assert len(bed.asked) == 1 + len(RETRY_READY)
    assert bed.store.reports(TINY).facts == {"uid-of-a": None}
    assert len(bed.models) == 1


@in_virtual_time
async def test_a_pod_that_loads_is_asked_for_the_shape_and_not_for_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.answer = LOADING
    bed.pod(container=RUNS)
    await bed.work()
    assert bed.asked == ["10.0.0.7"]
    assert bed.store.reports(TINY).shapes == {"uid-of-a": KEPT}
    assert bed.store.reports(TINY).facts == {}
    assert await bed.news() == 1
    bed.pod(container=RUNS, annotations={"new": "news"})
    await bed.work(600)
    assert len(bed.asked) == 1


@in_virtual_time
async def test_a_pod_whose_process_does_not_listen_yet_is_tried_again_until_it_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = Bed(monkeypatch)
    bed.answers = [None, Health(Phase.STARTING), LOADING]
    bed.pod(container=RUNS)
    await bed.work(60)
    assert len(bed.asked) == 3
    assert bed.store.reports(TINY).shapes == {"uid-of-a": KEPT}
    assert await bed.news() == 1, "only the answer is news"


@in_virtual_time
async def test_news_of_a_pod_do_not_hasten_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.answer = None
    bed.pod(container=RUNS)
    await bed.work()
    for number in range(20):
        bed.pod(container=RUNS, annotations={"new": str(number)})
    await bed.work()
    assert len(bed.asked) == 1


@in_virtual_time
async def test_a_loading_pod_that_never_tells_is_left_alone_without_a_write_but_asked_when_it_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = Bed(monkeypatch)
    bed.answer = None
    bed.pod(container=RUNS)
    await bed.work(3600)
    assert len(bed.asked) == 1 + len(RETRY_LOADING)
    assert bed.store.reports(TINY).shapes == {"uid-of-a": None}
    assert await bed.news() == 0
    bed.answer = Health(Phase.READY, EngineFacts("llama.cpp"), SHAPE)
    bed.pod(ready=True, container=RUNS)
    await bed.work()
    assert bed.store.reports(TINY).facts == {"uid-of-a": LOADED}, "the shape is kept once"
    assert bed.store.reports(TINY).shapes == {"uid-of-a": KEPT}


@in_virtual_time
async def test_a_container_that_starts_anew_is_asked_again_if_it_was_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.answer = None
    bed.pod(container=RUNS)
    await bed.work(3600)
    bed.pod(container={"state": {"waiting": {"reason": "CrashLoopBackOff"}}})
    bed.answer = LOADING
    bed.pod(container=RUNS)
    await bed.work()
    assert bed.store.reports(TINY).shapes == {"uid-of-a": KEPT}
    asked = len(bed.asked)
    bed.pod(container={"state": {"waiting": {"reason": "CrashLoopBackOff"}}})
    bed.pod(container=RUNS)
    await bed.work(3600)
    assert len(bed.asked) == asked, "what is known need not be asked"


@in_virtual_time
async def test_an_engine_that_tells_no_shape_is_asked_once_while_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.answer = Health(Phase.LOADING)
    bed.pod(container=RUNS)
    await bed.work(3600)
    assert len(bed.asked) == 1
    assert await bed.news() == 0


@in_virtual_time
async def test_pods_that_say_the_same_share_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.answer = LOADING
    for name in ("a", "b"):
        bed.store.put("Pod", live_pod(name, container=RUNS))
    bed.prober.schedule(TINY, bed.store.pods(TINY))
    await bed.work()
    one, other = bed.store.reports(TINY).shapes.values()
    assert one is other


@in_virtual_time
async def test_a_pod_that_is_gone_or_has_no_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(monkeypatch)
    bed.pod(ready=True, node=None)
    bed.prober.schedule(TINY, bed.store.pods(TINY))
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
    assert bed.store.reports(TINY).facts == {"uid-of-a": LOADED}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_a_pod_that_unloads_its_model_is_asked_every_few_seconds_whether_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = Bed(monkeypatch)
    stays = msgspec.structs.replace(LOADED, unload_after=60.0)
    bed.answer = stays
    bed.pod(ready=True)
    await bed.work(2.5 * LOOK_SECONDS)
    assert len(bed.asked) == 3
    assert await bed.news() == 1, "what a pod has said already is no news"
    bed.answer = msgspec.structs.replace(stays, status=Phase.UNLOADED)
    await bed.work(LOOK_SECONDS)
    assert bed.store.reports(TINY).facts == {"uid-of-a": bed.answer}
    assert await bed.news() == 1
    bed.answer = stays
    await bed.work(LOOK_SECONDS)
    assert bed.store.reports(TINY).facts == {"uid-of-a": stays}


@in_virtual_time
async def test_a_pod_that_is_not_ready_any_more_is_not_asked_whether_it_has_unloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = Bed(monkeypatch)
    bed.answer = msgspec.structs.replace(LOADED, unload_after=60.0)
    bed.pod(ready=True)
    await bed.work()
    bed.pod(ready=False)
    await bed.work(3 * LOOK_SECONDS)
    assert len(bed.asked) == 1
