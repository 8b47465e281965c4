"""Puts the operator together: events → store and queue → workers that reconcile, while we hold the Lease."""

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final

from aiohttp import web
from kubernetes.aio.dynamic import Resource

from moorage_operator.api.key import Key
from moorage_operator.cluster.cache.cluster_view import ClusterView
from moorage_operator.cluster.cache.listing import Listing
from moorage_operator.cluster.cache.scope import CHILDREN, SELECTORS, Scope, Watched
from moorage_operator.cluster.cache.sync import REQUIRED, Sync
from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.client import NOTHING, Kube
from moorage_operator.cluster.endpoint_slices import follow
from moorage_operator.cluster.errors import ApiError, ConflictError, ThrottledError, UnavailableError
from moorage_operator.cluster.facts import FactsProber
from moorage_operator.cluster.kinds import DEPLOYMENTS, ENDPOINT_SLICES, INFERENCE_MODELS, NODES, PODS, described
from moorage_operator.cluster.lease import Elector
from moorage_operator.health import Health, WriteHealth, serve
from moorage_operator.reconcile import Reconciler
from moorage_operator.scaling.gateways import Gateways
from moorage_operator.settings import Settings
from moorage_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 600.0
NOT_LEADING_SECONDS: Final = 1.0
MOVED_SECONDS: Final = 0.3
"""How long a model whose queue position has changed waits, so that many changes are one write."""
PAUSE_SECONDS: Final = 0.1
"""How long a model is left alone after it was looked at: news comes in bursts, and each look costs reads and writes."""

LEASE_NAME: Final = "moorage-operator"


class Operator:
    """The running operator; also the sink of its watches."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self.scope = Scope(settings.watch_namespaces)
        clock = asyncio.get_running_loop().time
        self._kube = kube
        self._view = ClusterView(
            sees_nodes=self.scope.clusterwide,
            autoscaled_nodes=settings.autoscaled_nodes,
            on_queue_change=self._add_moved,
            clock=clock,
        )
        self._store = self._view.store
        self._models: WorkQueue[Key] = WorkQueue(PAUSE_SECONDS, lambda key: key.namespace, settings.workers)
        self._relists: WorkQueue[Watched] = WorkQueue()
        self._working = asyncio.Event()
        self._prober = FactsProber(self._store, self._models)
        self.gateways = Gateways(self._view.usage, self._use_changed, settings.gateway_token_file)
        ask = self._prober.schedule if settings.facts else None
        self._reconciler = Reconciler(self._kube, self._view, settings.desired, ask=ask)
        self.elector = Elector(self._kube, settings.namespace, LEASE_NAME, settings.pod_name)
        self.writes = WriteHealth()
        gateways = [(ENDPOINT_SLICES, settings.namespace)] if settings.gateway_service else []
        self.watches = Watches([*self.scope.watched(), *gateways])
        self._sync = Sync(self.scope, self.watches)
        self.health = Health(self.watches, self.elector, self.writes, synced=lambda: self._sync.begun)
        self.jobs: list[asyncio.Task[None]] = []
        self._probes: web.AppRunner | None = None

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """Takes in an event of a watch; the models that it concerns are reconciled."""
        before = self._is_done(resource, obj)
        keys = self._view.event(resource, kind, obj)
        self._add(keys, urgent=self._is_done(resource, obj) != before)

    def _is_done(self, resource: Resource, obj: dict[str, Any]) -> bool:
        """Whether a pod is ready, or a rollout finished: what others act on, so it is told at once."""
        metadata = obj["metadata"]
        if resource is DEPLOYMENTS:
            child = self._store.child(Key(metadata["namespace"], metadata["name"]), resource.kind)
            return bool(child and child.state and child.state.rolled_out)
        return resource is PODS and self._store.is_ready(metadata["uid"])

    def _add(self, keys: Iterable[Key], *, urgent: bool = False) -> None:
        if not self._working.is_set():
            return  # once we work, all models are looked at; a queue of a standby would never be emptied
        for key in keys:
            self._models.add(key, urgent=urgent)

    def _use_changed(self, keys: Iterable[Key] | None) -> None:
        """Takes in that models are used otherwise than before; None: perhaps all."""
        scaler = self._view.scaler
        for key, delay, urgent in scaler.news(scaler.keys() if keys is None else keys):
            self._models.add(key, delay, urgent=urgent)

    def _add_moved(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._models.add(key, MOVED_SECONDS)

    def listed(self, resource: Resource, namespace: str | None, found: Mapping[str, str], version: int) -> None:
        """Takes in that a list is complete: what is not in it is gone."""
        if resource is NODES:
            self._add(self._view.listed_nodes(found.keys(), version))
        elif resource in CHILDREN:
            self._add(self._store.retain(resource.kind, found.keys(), namespace, version))
        elif resource is INFERENCE_MODELS:
            there = set(found.values())
            gone = [key for key in self._in(namespace) if "/".join(key) not in there]
            self._store.retain_models(found.keys(), namespace, version)
            self._add(gone)
        if self._sync.listed((resource, namespace)):
            self._begin(namespace)

    def lost(self, watched: Watched) -> None:
        """Takes in that the API server refuses to show something: models that it decides about are left alone."""
        resource, namespace = watched
        self._sync.lost(watched)
        if resource is NODES:
            self._add(self._view.lost_nodes())
        elif resource in REQUIRED:
            for key in self._in(namespace):
                self.writes.succeeded(key)
                self._view.update_queue(key, ())
        if not self._working.is_set():
            self._begin()  # all else may be known by now

    def recovered(self, watched: Watched) -> None:
        """Takes in that something is watched again: what went meanwhile is known by a list only."""
        self._relists.add(watched)

    def _in(self, namespace: str | None) -> list[Key]:
        return [key for key in self._store.models() if namespace in (None, key.namespace)]

    async def start(self) -> None:
        """Begins to work in the background."""
        self._probes = await serve(self.health, self._settings.health_port)
        self.jobs = [asyncio.create_task(job) for job in self._jobs()]

    async def stop(self, *, release: bool) -> None:
        """Ends the work; with `release`, another replica may begin at once."""
        for job in self.jobs:
            job.cancel()
        await asyncio.gather(*self.jobs, return_exceptions=True)
        if release:
            await self.elector.release()
        if self._probes:
            await self._probes.cleanup()

    def ended_jobs(self) -> list[str]:
        """Background tasks that have ended, which none of them should."""
        ended = [job for job in self.jobs if job.done()]
        return [f"{job.get_name()} ended: {'cancelled' if job.cancelled() else job.exception()!r}" for job in ended]

    def _jobs(self) -> list[Coroutine[Any, Any, None]]:
        settings = self._settings
        jobs = [self._lead(), self._resync(), self._relist()]
        # One namespace has as many as are set; slow models of one hold up no other.
        jobs += [self._work() for _ in range(2 * settings.workers)]
        if service := settings.gateway_service:
            jobs += [
                self.gateways.run(),
                follow(self._kube, settings.namespace, service, self.gateways, self.watches),
            ]
        return [*jobs, self._prober.run()] if settings.facts else jobs

    async def _lead(self) -> None:
        while True:
            await self.elector.acquire()
            self._begin()
            await self.elector.hold()

    def _begin(self, namespace: str | None = None) -> None:
        """Lets the workers work, once all is known that can be and we lead; looks at what has become known since."""
        if not self._sync.begun:
            return
        self._add(self._view.complete())
        if not self.elector.leading:
            return
        self._view.rebuild_queue(key for key in self._store.models() if self._sync.has(key.namespace))
        if self._working.is_set():
            self._add(self._in(namespace))
            return
        self._working.set()
        self._add(self._store.models())
        log.info("reconciling", extra={"models": len(self._models)})

    async def _work(self) -> None:
        await self._working.wait()
        while True:
            key = await self._models.get()
            try:
                await self._reconcile(key)
            finally:
                self._models.done(key)

    async def _reconcile(self, key: Key) -> None:
        if not self._sync.has(key.namespace):
            self.writes.succeeded(key)
            return  # it is queued again when what is missing has been listed
        if not self.elector.valid:
            if self.elector.held_by_other:
                self.writes.succeeded(key)
                if not self._store.knows(key):
                    self._reconciler.forget(key)
                    return
            # The process was paused, or the API server is away: another replica may lead now. That is no failure
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

    async def _relist(self) -> None:
        """Lists what a watch alone may not have told."""
        while True:
            watched = await self._relists.get()
            resource, namespace = watched
            listing = Listing(watched, self)
            try:
                async for page in self._kube.pages(resource, namespace, SELECTORS.get(resource, NOTHING)):
                    listing.page(page)
            except (ApiError, UnavailableError) as error:
                delay = self._relists.retry(watched, error.retry_after)
                extra = {"what": described(*watched), "error": str(error), "in_seconds": round(delay, 2)}
                log.warning("cannot list; trying again", extra=extra)
            else:
                self._relists.succeeded(watched)
            finally:
                self._relists.done(watched)

    async def _resync(self) -> None:
        """Lists everything and looks at every model again now and then, in case that something was missed."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 - jitter is no secret
            for watched in self.scope.watched():
                if not self.watches.is_refused(watched):
                    self._relists.add(watched)
            for key in self._store.models() if self._working.is_set() else ():
                self._models.add(key, random.uniform(0, 60))  # noqa: S311 - jitter is no secret
