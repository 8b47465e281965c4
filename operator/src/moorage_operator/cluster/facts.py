"""Queries pods for what they load and run: `/health/detailed`.

A pod is queried repeatedly for its progress while it downloads the model, for the shape of the model while it loads,
and once for its facts each time that it becomes ready. One that unloads its model when idle is queried every few
seconds, since nothing else reports that. A changed answer goes into the store, and the model is reconciled. A pod that
does not answer is retried a few times with backoff, then not until its readiness changes: missing facts make a
condition Unknown or absent, never a model unready.
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
from moorage_operator.cluster.cache.store import Store
from moorage_operator.status.observe import PodState
from moorage_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

WORKERS: Final = 16
RETRY_READY: Final = (1.0, 1.0)
"""Backoff in seconds for a pod that is ready: it does answer requests."""

RETRY_LOADING: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""The same for one that loads: its process may not listen yet, and reading the header of a large file may take long."""

LOOK_SECONDS: Final = 10.0
"""Seconds between two queries whether a model is unloaded."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, sock_connect=2)
_ANSWER_LIMIT: Final = 64 * 1024

SOONEST: Final = 5.0
LATEST: Final = 30.0
"""Bounds of the seconds between two queries for the progress of a download: each answer is a write to the status."""

SHARE: Final = 0.1
"""The share of the remaining time between two queries, within these bounds."""


class About(Enum):
    """What a pod is queried for."""

    PROGRESS = "the progress of its download"
    SHAPE = "the shape of the model that it loads"
    FACTS = "what it runs, once it is ready"
    PHASE = "whether its model is still in memory"


class Query(NamedTuple):
    """A query to a pod of a model."""

    model: Key
    uid: str
    about: About


class FactsProber:
    """Queries pods in the background; `schedule` is called with the pods of a model whenever it is reconciled."""

    def __init__(self, store: Store, models: WorkQueue[Key]) -> None:
        self._store = store
        self._models = models
        self._queue: WorkQueue[Query] = WorkQueue()
        self._open: set[Query] = set()
        """Queries in flight, or to be retried."""

    def schedule(self, key: Key, pods: Iterable[PodState]) -> None:
        """Queries pods that load or have become ready; forgets the facts of those that are not ready."""
        reports = self._store.reports(key)
        for pod in pods:
            if pod.ready:
                if pod.uid not in reports.facts:
                    self._put(Query(key, pod.uid, About.FACTS))
                continue
            reports.drop_facts(pod.uid)
            if pod.downloading:
                self._put(Query(key, pod.uid, About.PROGRESS))
            if not pod.running:
                reports.drop_missing_shape(pod.uid)
            elif pod.uid not in reports.shapes:
                self._put(Query(key, pod.uid, About.SHAPE))

    def _put(self, query: Query, delay: float = 0.0) -> None:
        # An event of a pod must not shorten a backoff.
        if query not in self._open:
            self._open.add(query)
            self._queue.add(query, delay)

    async def run(self) -> None:
        """Works until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session, asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work(session))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            query = await self._queue.get()
            again: float | None = None
            try:
                again = await self._send(session, query)
            except Exception:
                # The answer of one pod must never stop the queries to others.
                extra = {"model": "/".join(query.model), "pod_uid": query.uid}
                log.exception("querying a pod failed", extra=extra)
            if again is None:
                self._open.discard(query)
                self._queue.succeeded(query)
            else:
                self._queue.retry(query, again)
            self._queue.done(query)

    async def _send(self, session: aiohttp.ClientSession, query: Query) -> float | None:
        """Sends a query; returns the seconds until the next one, or None when there is none."""
        pod = self._store.pod(query.model, query.uid)
        if pod is None or not pod.ip or not _is_of(pod, query.about):
            return None
        health = await _detailed_health(session, pod.ip)
        failures = self._queue.failures(query)
        if query.about is About.PROGRESS:
            return self._take_in_progress(query, health, failures)
        if query.about is About.PHASE:
            return self._take_in_phase(query, health)
        pauses = RETRY_READY if query.about is About.FACTS else RETRY_LOADING
        if not _answers(query, health) and failures < len(pauses):
            return pauses[failures]
        if health is None and query.about is About.FACTS:
            log.info("a ready pod does not report its facts", extra={"pod_ip": pod.ip, "attempts": failures + 1})
        self._take_in(query, health)
        return None

    def _take_in_progress(self, query: Query, health: Health | None, failures: int) -> float:
        """Keeps the progress of a download; returns the seconds until the next query."""
        download = health.download if health else None
        if download is None:
            return RETRY_LOADING[min(failures, len(RETRY_LOADING) - 1)]
        self._queue.succeeded(query)
        reports = self._store.reports(query.model)
        if download != reports.downloads.get(query.uid):
            reports.put_download(query.uid, download)
            self._models.add(query.model)
        left = download.seconds_left
        return SOONEST if left is None else min(LATEST, max(SOONEST, left * SHARE))

    def _take_in_phase(self, query: Query, health: Health | None) -> float:
        """Keeps whether a model is in memory; returns the seconds until the next query."""
        self._queue.succeeded(query)
        known = self._store.reports(query.model).facts.get(query.uid)
        if health and known and health.status is not known.status:
            self._keep(query, health)
            self._models.add(query.model)
        return LOOK_SECONDS

    def _keep(self, query: Query, health: Health | None) -> None:
        self._store.reports(query.model).put_facts(query.uid, health and msgspec.structs.replace(health, shape=None))

    def _take_in(self, query: Query, health: Health | None) -> None:
        key, uid = query.model, query.uid
        shape = msgspec.structs.replace(health.shape, tensor_bytes={}) if health and health.shape else None
        reports = self._store.reports(key)
        # Most pods of a model report the same shape; one copy of it is enough.
        shape = next((other for other in reports.shapes.values() if other == shape), shape)
        if shape is not None or uid not in reports.shapes:
            reports.put_shape(uid, shape)
        if query.about is About.FACTS:
            self._keep(query, health)
            if health and health.unload_after is not None:
                self._put(Query(key, uid, About.PHASE), LOOK_SECONDS)
        if query.about is About.FACTS or shape is not None:
            self._models.add(key)


def _is_of(pod: PodState, about: About) -> bool:
    """Whether the query still applies to the state of the pod."""
    if about is About.PROGRESS:
        return pod.downloading
    return pod.running and not pod.ready if about is About.SHAPE else pod.ready


def _answers(query: Query, health: Health | None) -> bool:
    """Whether the answer has what the query is for; the pod may still be reading its files, or have none to read."""
    if health is None:
        return False
    return query.about is About.FACTS or health.shape is not None or health.status is not Phase.STARTING


async def _detailed_health(session: aiohttp.ClientSession, ip: str) -> Health | None:
    """What the runtime at `ip` reports, or None when it does not answer or its answer is invalid."""
    host = f"[{ip}]" if ":" in ip else ip
    try:
        async with session.get(f"http://{host}:{RUNTIME_PORT}/health/detailed", allow_redirects=False) as response:
            # A pod may be hostile: an answer that is too long is cut, and fails to parse.
            content = await response.content.read(_ANSWER_LIMIT)
            return msgspec.json.decode(content, type=Health) if response.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        log.debug("a pod does not report its facts", extra={"pod_ip": ip, "error": f"{type(error).__name__}: {error}"})
        return None
