"""Puts the operator together: watches → store and queue → workers that reconcile, while we hold the Lease."""

import asyncio
import logging
import random
import signal
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final

from moorage_common.kube.client import Kube, Login, wait_for_crd
from moorage_common.kube.errors import ApiError, ConflictError, ThrottledError, UnavailableError
from moorage_common.kube.resources import DEPLOYMENTS, ENDPOINT_SLICES, INFERENCE_MODELS, NODES, PODS, Resource
from moorage_common.kube.watch import WatchHealth
from moorage_operator.api.key import Key
from moorage_operator.cluster.cluster_view import ClusterView
from moorage_operator.cluster.facts import FactsProber
from moorage_operator.cluster.kinds import FIELD_MANAGER
from moorage_operator.cluster.lease import Elector
from moorage_operator.health import Health, WriteHealth, serve
from moorage_operator.reconcile import Reconciler
from moorage_operator.scaling.gateways import Gateways
from moorage_operator.settings import Settings
from moorage_operator.watch import CHILDREN, EVERYWHERE, Scope, watch
from moorage_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 600.0
NOT_LEADING_SECONDS: Final = 1.0
MOVED_SECONDS: Final = 0.3
"""How long a model whose place in the line has changed waits, so that many changes are one write."""
PAUSE_SECONDS: Final = 0.1
"""How long a model is left alone after it was looked at: news comes in bursts, and each look costs reads and writes."""

LEASE_NAME: Final = "moorage-operator"


class Operator:
    """The running operator; also the sink of its watches."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube
        self.namespaces: tuple[str | None, ...] = settings.watch_namespaces or EVERYWHERE
        self._scope = Scope(self.namespaces, settings.gateway_service, settings.namespace)
        clock = asyncio.get_running_loop().time
        self._view = ClusterView(
            sees_nodes=self.namespaces == EVERYWHERE,
            autoscaled_nodes=settings.autoscaled_nodes,
            on_queue_change=self._add_moved,
            clock=clock,
        )
        self._store = self._view.store
        self._models: WorkQueue[Key] = WorkQueue(PAUSE_SECONDS, lane=lambda key: key.namespace)
        self._unsynced = {(resource, ns) for resource, ns in self._scope.watches() if resource is not INFERENCE_MODELS}
        self._working = asyncio.Event()
        self._prober = FactsProber(self._store, self._models)
        self._gateways = Gateways(self._view.usage, self._use_changed, settings.gateway_token_file)
        self._reconciler = Reconciler(
            kube,
            self._view,
            settings.desired,
            ask=self._prober.noticed if settings.facts else None,
        )
        self.elector = Elector(kube, settings.namespace, LEASE_NAME, settings.pod_name)
        self.watches = WatchHealth(self._scope.watches())
        self.writes = WriteHealth()

    def synced(self) -> bool:
        """Whether every kind but the models themselves has been listed once."""
        return not self._unsynced

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """Takes in an event of a watch; the models that it concerns are reconciled."""
        if resource is ENDPOINT_SLICES:
            self._gateways.event(kind, obj)
            return
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
        if resource is ENDPOINT_SLICES:
            self._gateways.listed(found.keys())
        elif resource is NODES:
            self._add(self._view.listed_nodes({name.lstrip("/") for name in found.values()}))
        elif resource in CHILDREN:
            self._add(self._store.retain(resource.kind, found.keys(), namespace, version))
        elif resource is INFERENCE_MODELS:
            there = set(found.values())
            self._add(
                key for key in self._store.models() if namespace in (None, key.namespace) and "/".join(key) not in there
            )
        if (resource, namespace) in self._unsynced:
            self._unsynced.discard((resource, namespace))
            self._begin()

    async def run(self) -> None:
        """Works until told to end by a signal."""
        warn = log.warning
        for namespace in self.namespaces:
            await wait_for_crd(self._kube, INFERENCE_MODELS, namespace, warn)
        health = Health(self.watches, self.elector, self.writes, synced=self.synced)
        probes = await serve(health, self._settings.health_port)
        background = [asyncio.create_task(job) for job in self._jobs()]
        watching = asyncio.create_task(watch(self._kube, self._scope, self, self.watches))
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
        jobs = [self._lead(), self._resync()]
        jobs += [self._work() for _ in range(self._settings.workers)]
        jobs += [self._gateways.run()] if self._scope.gateway_service else []
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
            self._view.rebuild_queue()
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

    async def _resync(self) -> None:
        """Looks at every model again now and then, in case that something was missed; so do the watches by lists."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 - jitter is no secret
            for key in self._store.models():
                self._models.add(key, random.uniform(0, 60))  # noqa: S311 - jitter is no secret


async def run(settings: Settings, login: Login) -> None:
    """Runs the operator until SIGTERM or SIGINT."""
    kube = Kube(login, FIELD_MANAGER)
    try:
        operator = Operator(settings, kube)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are inside a coroutine
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await operator.run()
    finally:
        await kube.close()
