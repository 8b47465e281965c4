"""Asks pods what they really run: `/health/detailed`, once for each change of readiness.

The answer goes into the store and the model is reconciled again. A pod that does not answer is asked a few times and
then left alone until its readiness changes: facts that are missing make a condition Unknown, never a model unready.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, NamedTuple

import aiohttp
import msgspec

from moorage_common.facts import Health
from moorage_common.labels import RUNTIME_PORT
from moorage_operator.observe import PodState
from moorage_operator.store import Key, Store
from moorage_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

WORKERS: Final = 8
ATTEMPTS: Final = 3
RETRY_SECONDS: Final = 1.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, sock_connect=2)
_ANSWER_LIMIT: Final = 64 * 1024


class PodKey(NamedTuple):
    """A pod of a model."""

    model: Key
    uid: str


class FactsProber:
    """Asks pods in the background; `noticed` is called with the pods of a model whenever it is reconciled."""

    def __init__(self, store: Store, models: WorkQueue[Key]) -> None:
        self._store = store
        self._models = models
        self._queue: WorkQueue[PodKey] = WorkQueue()

    def noticed(self, key: Key, pods: Iterable[PodState]) -> None:
        """Forgets the facts of pods that are not ready any more, and asks those that have become ready."""
        known = self._store.facts(key)
        for pod in pods:
            if not pod.ready:
                self._store.drop_facts(key, pod.uid)
            elif pod.uid not in known:
                self._queue.add(PodKey(key, pod.uid))

    async def run(self) -> None:
        """Works until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session, asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work(session))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._ask(session, key)
            except Exception:
                # What a pod says must never stop the asking of the others.
                log.exception("asking a pod failed", extra={"model": "/".join(key.model), "pod_uid": key.uid})
            finally:
                self._queue.done(key)

    async def _ask(self, session: aiohttp.ClientSession, key: PodKey) -> None:
        pod = self._store.pod(key.model, key.uid)
        if pod is None or not pod.ready or not pod.ip:
            return
        health = await _detailed_health(session, pod.ip)
        if health is None and self._queue.failures(key) < ATTEMPTS - 1:
            self._queue.retry(key, RETRY_SECONDS)
            return
        self._queue.succeeded(key)
        self._store.put_facts(key.model, key.uid, health)
        self._models.add(key.model)


async def _detailed_health(session: aiohttp.ClientSession, ip: str) -> Health | None:
    """What the runtime at `ip` says of itself, or None when it does not answer or not in our words."""
    host = f"[{ip}]" if ":" in ip else ip
    try:
        async with session.get(f"http://{host}:{RUNTIME_PORT}/health/detailed", allow_redirects=False) as response:
            # A pod may be hostile: what is longer than any honest answer is cut, and fails to parse.
            content = await response.content.read(_ANSWER_LIMIT)
            return msgspec.json.decode(content, type=Health) if response.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        log.info(
            "a ready pod does not tell its facts", extra={"pod_ip": ip, "error": f"{type(error).__name__}: {error}"}
        )
        return None
