"""Puts the operator together: watches → store and queue → workers that reconcile, while we hold the Lease."""

import asyncio
import logging
import random
import signal
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from moorage_operator import handlers
from moorage_operator.cluster_view import ClusterView
from moorage_operator.errors import ApiError, ConflictError, ThrottledError, UnavailableError
from moorage_operator.facts import FactsProber
from moorage_operator.handlers import CHILD_SELECTOR, CHILDREN, EVERYWHERE, WatchHealth
from moorage_operator.health import Health, WriteHealth, serve
from moorage_operator.kube import INFERENCE_MODELS, NODES, Kube, Login, Resource, wait_for_crd
from moorage_operator.lease import Elector
from moorage_operator.reconcile import Reconciler
from moorage_operator.settings import Settings
from moorage_operator.store import Key
from moorage_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 600.0
NOT_LEADING_SECONDS: Final = 1.0
MOVED_SECONDS: Final = 0.3
"""How long a model whose place in the line has changed waits, so that many changes are one write."""
LEASE_NAME: Final = "moorage-operator"

Listing = tuple[Resource, str | None]


class Operator:
    """The running operator; also the sink of its watches."""

    def __init__(self, settings: Settings, kube: Kube, login: Login) -> None:
        self._settings = settings
        self._login = login
        self._kube = kube
        self.namespaces: tuple[str | None, ...] = settings.watch_namespaces or EVERYWHERE
        self._view = ClusterView(sees_nodes=self.namespaces == EVERYWHERE, moved=self._add_moved)
        self._store = self._view.store
        self._models: WorkQueue[Key] = WorkQueue()
        self._listings: WorkQueue[Listing] = WorkQueue()
        self._unsynced: set[Listing] = {
            (resource, ns) for resource, ns in handlers.watches(self.namespaces) if resource is not INFERENCE_MODELS
        }
        self._working = asyncio.Event()
        self._prober = FactsProber(self._store, self._models)
        self._reconciler = Reconciler(
            kube,
            self._view,
            settings.desired,
            ask=self._prober.noticed if settings.facts else None,
        )
        self.elector = Elector(kube, settings.namespace, LEASE_NAME, settings.pod_name)
        self.watches = WatchHealth(self.namespaces)
        self.writes = WriteHealth()

    def synced(self) -> bool:
        """Whether every kind but the models themselves has been listed once."""
        return not self._unsynced

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """Takes in an event of a watch; the models that it concerns are reconciled."""
        self._add(self._view.event(resource, kind, obj))

    def _add(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._models.add(key)

    def _add_moved(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._models.add(key, MOVED_SECONDS)

    def listed(self, resource: Resource, namespace: str | None) -> None:
        """Takes in that kopf has listed a kind: whatever went away meanwhile is found by a list of our own."""
        self._listings.add((resource, namespace))

    async def run(self) -> None:
        """Works until told to end by a signal."""
        warn = log.warning
        for namespace in self.namespaces:
            await wait_for_crd(self._kube, namespace, warn)
        health = Health(self.watches, self.elector, self.writes, synced=self.synced)
        probes = await serve(health, self._settings.health_port)
        background = [asyncio.create_task(job) for job in self._jobs()]
        watching = asyncio.create_task(handlers.watch(self._login, self.namespaces, self, self.watches))
        try:
            done, _ = await asyncio.wait({watching, *background}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watching, *background):
                task.cancel()
            await asyncio.gather(watching, *background, return_exceptions=True)
            await self.elector.release()
            await probes.cleanup()

    def _jobs(self) -> list[Coroutine[Any, Any, None]]:
        jobs = [self._lead(), self._list(), self._resync()]
        jobs += [self._work() for _ in range(self._settings.workers)]
        return [*jobs, self._prober.run()] if self._settings.facts else jobs

    async def _lead(self) -> None:
        while True:
            await self.elector.acquire()
            self._begin()
            await self.elector.hold()

    def _begin(self) -> None:
        """Lets the workers work, once everything is known and we lead."""
        if not self.synced():
            return
        self._add(self._view.complete())
        if self.elector.leading:
            self._view.line_up()
            log.info("reconciling", extra={"models": len(self._models)})
            self._working.set()

    async def _work(self) -> None:
        await self._working.wait()
        while True:
            key = await self._models.get()
            try:
                await self._reconcile(key)
            finally:
                self._models.done(key)

    async def _reconcile(self, key: Key) -> None:
        if not self.elector.valid:
            # The process was paused, or the API server is away: whoever leads now, it may not be us. That is no failure
            # of the model, so it does not wait longer each time.
            self._models.add(key, NOT_LEADING_SECONDS)
            return
        extra = {"model": "/".join(key)}
        try:
            # No write of ours may be on its way when another replica may lead.
            async with asyncio.timeout(self.elector.remaining):
                again = await self._reconciler.reconcile(key)
        except TimeoutError:
            self._models.retry(key)
        except ConflictError as error:
            log.debug("changed under our hands; looking again", extra=extra | {"error": str(error)})
            self._models.retry(key)
        except ThrottledError as error:
            self._models.retry(key, error.retry_after)
        except (ApiError, UnavailableError) as error:
            self.writes.refused(key, error)
            delay = self._models.retry(key, error.retry_after)
            log.warning("will try again", extra=extra | {"error": str(error), "in_seconds": round(delay, 2)})
        except Exception:
            # A bug must not stop the other models, nor be hidden: this one is tried again, slower each time.
            log.exception("reconciling failed", extra=extra)
            self._models.retry(key)
        else:
            self.writes.succeeded(key)
            self._models.succeeded(key)
            if again is not None:
                self._models.add(key, again)

    async def _list(self) -> None:
        """Lists what kopf has listed, and drops what is gone."""
        while True:
            listing = await self._listings.get()
            try:
                await self._list_children(*listing)
            except (ApiError, UnavailableError) as error:
                delay = self._listings.retry(listing, error.retry_after)
                log.warning("cannot list", extra={"kind": listing[0].kind, "error": str(error), "in_seconds": delay})
            else:
                self._listings.succeeded(listing)
                self._unsynced.discard(listing)
                self._begin()
            finally:
                self._listings.done(listing)

    async def _list_children(self, resource: Resource, namespace: str | None) -> None:
        if resource is NODES:
            self._add(self._view.listed_nodes(await self._names(resource)))
        elif resource in CHILDREN:
            uids, version = set(), 0
            async for page in self._kube.pages(resource, namespace, CHILD_SELECTOR):
                version = int(page["metadata"]["resourceVersion"])
                for obj in page["items"]:
                    uids.add(obj["metadata"]["uid"])
                    self.event(resource, None, obj)
            self._add(self._store.retain(resource.kind, uids, namespace, version))
        elif resource is INFERENCE_MODELS and self.synced():
            # Models that went away unseen are known by what they have left in the store.
            self._add(self._store.models())

    async def _names(self, resource: Resource) -> set[str]:
        """The names of all objects of a kind, each of which is taken in as well."""
        names = set()
        async for page in self._kube.pages(resource, None):
            for obj in page["items"]:
                names.add(obj["metadata"]["name"])
                self.event(resource, None, obj)
        return names

    async def _resync(self) -> None:
        """Looks at everything again now and then, in case that something was missed."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 - jitter is no secret
            for namespace in self.namespaces:
                for resource in CHILDREN:
                    self._listings.add((resource, namespace))
            for key in self._store.models():
                self._models.add(key, random.uniform(0, 60))  # noqa: S311 - jitter is no secret


async def run(settings: Settings, login: Login) -> None:
    """Runs the operator until SIGTERM or SIGINT."""
    kube = Kube(login)
    try:
        operator = Operator(settings, kube, login)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are inside a coroutine
        for number in (signal.SIGTERM, signal.SIGINT):
            # Until kopf runs and sets its own; then its end is ours.
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await operator.run()
    finally:
        await kube.close()
