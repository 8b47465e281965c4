"""Asks pods what they are loading and what they really run: `/health/detailed`.

A pod is asked while it fetches its model, again and again, for how far it is; while it loads, for the shape of its
model; and once for each time that it becomes ready, for its facts. One that says that it unloads its model when nobody
uses it is asked every few seconds whether it has, because nothing else tells. An answer that is news goes into the
store and the model is reconciled again. A pod that does not answer is asked a few times, ever later, and then left
alone until its readiness changes: what is missing makes a condition Unknown or leaves it out, never a model unready.
"""

import asyncio
import logging
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

import aiohttp
import msgspec

from moorage_common.facts import Health, Phase
from moorage_common.labels import RUNTIME_PORT
from moorage_operator.api.key import Key
from moorage_operator.cluster.store import Store
from moorage_operator.status.observe import PodState
from moorage_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

WORKERS: Final = 16
RETRY_READY: Final = (1.0, 1.0)
"""Seconds before each further attempt to ask a pod that is ready: it does answer requests."""

RETRY_LOADING: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""The same for one that loads: its process may not listen yet, and reading the header of a large file may take long."""

LOOK_SECONDS: Final = 10.0
"""Between two questions whether a model is unloaded."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, sock_connect=2)
_ANSWER_LIMIT: Final = 64 * 1024

SOONEST: Final = 5.0
LATEST: Final = 30.0
"""Seconds between two questions for the progress of one download: each answer is a write to the status."""

SHARE: Final = 0.1
"""Between the two, of the time that is left."""


class About(Enum):
    """What a pod is asked for."""

    PROGRESS = "how far it is with fetching its model"
    SHAPE = "the shape of the model that it loads"
    FACTS = "what it runs, as it is ready"
    PHASE = "whether its model is still in memory"


class Question(NamedTuple):
    """What is to be asked, of a pod of a model."""

    model: Key
    uid: str
    about: About


class FactsProber:
    """Asks pods in the background; `noticed` is called with the pods of a model whenever it is reconciled."""

    def __init__(self, store: Store, models: WorkQueue[Key]) -> None:
        self._store = store
        self._models = models
        self._queue: WorkQueue[Question] = WorkQueue()
        self._open: set[Question] = set()
        """What is being asked, or will be tried again."""

    def noticed(self, key: Key, pods: Iterable[PodState]) -> None:
        """Asks pods that have begun to load or have become ready; forgets the facts of those that are not ready."""
        facts, shapes = self._store.facts(key), self._store.shapes(key)
        for pod in pods:
            if pod.ready:
                if pod.uid not in facts:
                    self._put(Question(key, pod.uid, About.FACTS))
                continue
            self._store.drop_facts(key, pod.uid)
            if pod.downloading:
                self._put(Question(key, pod.uid, About.PROGRESS))
            if not pod.running:
                self._store.drop_missing_shape(key, pod.uid)
            elif pod.uid not in shapes:
                self._put(Question(key, pod.uid, About.SHAPE))

    def _put(self, question: Question, delay: float = 0.0) -> None:
        # News of a pod must not hasten an attempt that waits for its time.
        if question not in self._open:
            self._open.add(question)
            self._queue.add(question, delay)

    async def run(self) -> None:
        """Works until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session, asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work(session))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            question = await self._queue.get()
            again: float | None = None
            try:
                again = await self._ask(session, question)
            except Exception:
                # What a pod says must never stop the asking of the others.
                extra = {"model": "/".join(question.model), "pod_uid": question.uid}
                log.exception("asking a pod failed", extra=extra)
            if again is None:
                self._open.discard(question)
                self._queue.succeeded(question)
            else:
                self._queue.retry(question, again)
            self._queue.done(question)

    async def _ask(self, session: aiohttp.ClientSession, question: Question) -> float | None:
        """Asks once; gives the seconds after which to ask again, or None when the question is settled."""
        pod = self._store.pod(question.model, question.uid)
        if pod is None or not pod.ip or not _is_of(pod, question.about):
            return None
        health = await _detailed_health(session, pod.ip)
        failures = self._queue.failures(question)
        if question.about is About.PROGRESS:
            return self._take_in_progress(question, health, failures)
        if question.about is About.PHASE:
            return self._take_in_phase(question, health)
        pauses = RETRY_READY if question.about is About.FACTS else RETRY_LOADING
        if not _answers(question, health) and failures < len(pauses):
            return pauses[failures]
        if health is None and question.about is About.FACTS:
            log.info("a ready pod does not report its facts", extra={"pod_ip": pod.ip, "attempts": failures + 1})
        self._take_in(question, health)
        return None

    def _take_in_progress(self, question: Question, health: Health | None, failures: int) -> float:
        """Keeps how far a pod is; gives the seconds after which to ask again, which ends with the download."""
        download = health.download if health else None
        if download is None:
            return RETRY_LOADING[min(failures, len(RETRY_LOADING) - 1)]
        self._queue.succeeded(question)
        if download != self._store.downloads(question.model).get(question.uid):
            self._store.put_download(question.model, question.uid, download)
            self._models.add(question.model)
        left = download.seconds_left
        return SOONEST if left is None else min(LATEST, max(SOONEST, left * SHARE))

    def _take_in_phase(self, question: Question, health: Health | None) -> float:
        """Keeps whether a model is in memory; gives the seconds after which to ask again, while the pod is ready."""
        self._queue.succeeded(question)
        known = self._store.facts(question.model).get(question.uid)
        if health and known and health.status is not known.status:
            self._keep(question, health)
            self._models.add(question.model)
        return LOOK_SECONDS

    def _keep(self, question: Question, health: Health | None) -> None:
        self._store.put_facts(question.model, question.uid, health and msgspec.structs.replace(health, shape=None))

    def _take_in(self, question: Question, health: Health | None) -> None:
        key, uid = question.model, question.uid
        shape = msgspec.structs.replace(health.shape, tensor_bytes={}) if health and health.shape else None
        known = self._store.shapes(key)
        # Most pods of a model say the same of its files; one copy of it is enough.
        shape = next((told for told in known.values() if told == shape), shape)
        if shape is not None or uid not in known:
            self._store.put_shape(key, uid, shape)
        if question.about is About.FACTS:
            self._keep(question, health)
            if health and health.unload_after is not None:
                self._put(Question(key, uid, About.PHASE), LOOK_SECONDS)
        if question.about is About.FACTS or shape is not None:
            self._models.add(key)


def _is_of(pod: PodState, about: About) -> bool:
    """Whether a pod is still where it is asked for that."""
    if about is About.PROGRESS:
        return pod.downloading
    return pod.running and not pod.ready if about is About.SHAPE else pod.ready


def _answers(question: Question, health: Health | None) -> bool:
    """Whether what a pod has said is what was asked for; it may still be reading its files, or has none to read."""
    if health is None:
        return False
    return question.about is About.FACTS or health.shape is not None or health.status is not Phase.STARTING


async def _detailed_health(session: aiohttp.ClientSession, ip: str) -> Health | None:
    """What the runtime at `ip` says of itself, or None when it does not answer or not in our words."""
    host = f"[{ip}]" if ":" in ip else ip
    try:
        async with session.get(f"http://{host}:{RUNTIME_PORT}/health/detailed", allow_redirects=False) as response:
            # A pod may be hostile: what is longer than any honest answer is cut, and fails to parse.
            content = await response.content.read(_ANSWER_LIMIT)
            return msgspec.json.decode(content, type=Health) if response.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        log.debug("a pod does not report its facts", extra={"pod_ip": ip, "error": f"{type(error).__name__}: {error}"})
        return None
