"""Makes the cluster match one InferenceModel: `Reconciler.reconcile(key)`, level-triggered, from live state.

get the model → desired() → apply what differs → observe → status() → write it if it differs. Whatever happened before,
and however often it is called, it ends in the same state; when nothing is to be done it writes nothing.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from moorage_common.labels import APPLIED_HASH_ANNOTATION
from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.api.key import Key
from moorage_operator.api.v1alpha1 import API_VERSION, KIND, InferenceModel
from moorage_operator.cluster.admission import rules_of
from moorage_operator.cluster.cache.child import Child
from moorage_operator.cluster.cache.cluster_view import ClusterView
from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from moorage_operator.cluster.failed_pods import delete_failed
from moorage_operator.cluster.kinds import BY_KIND, INFERENCE_MODELS
from moorage_operator.cluster.own_pods import own_pods
from moorage_operator.cluster.pod_events import PodEvents
from moorage_operator.cluster.status_events import StatusEvents
from moorage_operator.desired import desired
from moorage_operator.desired.config import Circumstances, DesiredConfig
from moorage_operator.desired.drift import drifted, with_hash
from moorage_operator.engines.base import image_key
from moorage_operator.metrics import StartMetrics
from moorage_operator.scaling.scaler import Scale
from moorage_operator.status import status
from moorage_operator.status.observe import DeploymentState, Observation, PodState
from moorage_operator.status.rollout import makes_room
from moorage_operator.status.texts import printable

log = logging.getLogger(__name__)

BLOCKED_SECONDS: Final = 10.0
"""How often a blocked model is reconciled: the cause may be an object that is not watched."""

NAMESPACE_ENDS: Final = "because it is being terminated"
"""In the API server's message when an object is created in a namespace that is being deleted."""

NAMESPACE_GONE: Final = 'namespaces "'
"""How the API server's message begins when a namespace is gone. Objects can outlive it when the API server restarts
meanwhile: the namespace controller then lists the kinds to delete, and a custom one is not yet among them."""

NO_VERSION: Final = "1"
"""A resourceVersion that no object has: etcd begins to count there. An apply with it can only create."""


def utc_now() -> str:
    """The time as the API writes it: RFC 3339, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _had_conflict(model: InferenceModel) -> bool:
    """Whether the last reconcile found a foreign object of our name; then the name is read again before a write."""
    return any(condition.get("reason") == Reason.NAME_CONFLICT for condition in model.status.get("conditions", ()))


def _hash(child: dict[str, Any]) -> str | None:
    """The hash of the intent that was last applied to a child."""
    found: str | None = (child["metadata"].get("annotations") or {}).get(APPLIED_HASH_ANNOTATION)
    return found


class _NamespaceEndsError(Exception):
    """The namespace is gone or being deleted: whatever is written would be refused, or be gone in a moment."""


class _BlockedError(Exception):
    """A child cannot be applied for a reason that the user must see."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(reason, message)


class Reconciler:
    """Holds what a reconcile needs; it keeps no state between calls but the view's.

    `ask` is given the pods of a model whenever they have been looked at, to ask those that are ready what they run.
    """

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        config: DesiredConfig,
        *,
        ask: Callable[[Key, tuple[PodState, ...]], None] | None = None,
        clock: Callable[[], str] = utc_now,
    ) -> None:
        self._kube = kube
        self._view = view
        self._store = view.store
        self._events = StatusEvents(kube, view.store)
        self._pod_events = PodEvents(kube, clock)
        self._starts = StartMetrics()
        self._config = config
        self._ask = ask
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """Brings one model's children and status up to date. Raises what `Kube` does: call again later.

        Returns the seconds after which to look again although no event may come, or None.
        """
        try:
            live = await self._kube.get(INFERENCE_MODELS, key.namespace, key.name)
        except ForbiddenError as error:
            # Its namespace is lost, which the watches find when they are renewed. That is no failure of ours.
            log.warning("the model cannot be read", extra={"model": "/".join(key), "error": str(error)})
            return BLOCKED_SECONDS
        except NotFoundError:
            self.forget(key)
            return None
        if self._store.is_ending(key, live["metadata"]["uid"]):
            return None
        try:
            model = InferenceModel.model_validate(live)
        except ValidationError as error:
            # Only an object stored under an older schema can get here; there is nothing to parse a status from either.
            log.error("the stored spec cannot be read", extra={"model": "/".join(key), "error": str(error)[:500]})
            return None
        loading = model.spec.scaling is not None and any(pod.loading for pod in await self._own_pods(key, model))
        scale = self._view.scaler.scale(key, model, self._own_deployment(key, model), loading=loading)
        replicas = scale.replicas if scale else None
        try:
            blocked = None if model.metadata.deletion_timestamp else await self._apply_children(key, model, replicas)
        except _NamespaceEndsError:
            self._store.note_ending(key, model.metadata.uid)
            return None
        pods = await self._own_pods(key, model)
        self._view.update_queue(key, pods)
        if self._ask:
            self._ask(key, pods)
        await self._write_status(key, model, self._observe(key, pods, blocked, scale))
        await delete_failed(self._kube, key, pods, model.spec.desired_replicas if scale is None else scale.replicas)
        child = self._store.child(key, "Deployment")
        held_up = blocked or (child and child.state and child.state.refused)
        again = (
            scale.again if scale else None,
            self._pod_events.again(key, pods),
            BLOCKED_SECONDS if held_up else None,
        )
        return min((seconds for seconds in again if seconds is not None), default=None)

    def forget(self, key: Key) -> None:
        """Drops all that is kept of a model that is gone."""
        self._store.forget(key)
        self._starts.forget(key)
        self._pod_events.forget(key)
        self._view.scaler.forget(key)
        self._view.update_queue(key, ())

    async def _circumstances(self, key: Key, model: InferenceModel, replicas: int | None) -> Circumstances:
        state = self._own_deployment(key, model)
        if state is None:
            return Circumstances(replicas=replicas)
        tried_under = await rules_of(self._kube, key.namespace) if state.refused else state.tried_under
        live_image = "" if self._config.image(model.spec) else self._live_image(key)
        return Circumstances(makes_room(state, await self._own_pods(key, model)), tried_under, replicas, live_image)

    def _live_image(self, key: Key) -> str:
        """The image of the live Deployment's first container; empty if it has none."""
        child = self._store.child(key, "Deployment")
        spec = child.body.get("spec") if child else None
        containers: list[dict[str, Any]] = (spec["template"]["spec"].get("containers") if spec else None) or [{}]
        return str(containers[0].get("image") or "")

    def _own_deployment(self, key: Key, model: InferenceModel) -> DeploymentState | None:
        child = self._store.child(key, "Deployment")
        return child.state if child and child.owner_uid == model.metadata.uid else None

    async def _apply_children(self, key: Key, model: InferenceModel, replicas: int | None) -> Problem | None:
        children = desired(model, self._config, await self._circumstances(key, model, replicas))
        blocked = None if self._config.image(model.spec) else self._no_image(model)
        for manifest in children:
            try:
                await self._apply(key, model, with_hash(manifest))
            except _BlockedError as error:
                blocked = blocked or error.problem
                # One that exists but may not be changed does not hold up the others; one that is missing does, for they
                # have no effect: pods that cannot be reached would hold GPUs. Nothing delays the end of pods.
                if not self._store.child(key, manifest["kind"]) and model.spec.desired_replicas:
                    break
        return blocked

    def _no_image(self, model: InferenceModel) -> Problem:
        device, known = image_key(model.spec), ", ".join(sorted(self._config.images)) or "none is configured"
        return Problem(
            Reason.NO_IMAGE_FOR_DEVICE,
            f"No runtime image is configured for {device}; choose a framework and gpu.count that has one ({known}), "
            f"or set runtime.images[{device!r}] in the values of Moorage's Helm chart",
        )

    async def _apply(self, key: Key, model: InferenceModel, manifest: dict[str, Any]) -> None:
        kind = manifest["kind"]
        known = self._store.child(key, kind)
        if (known and known.owner_uid != model.metadata.uid) or (not known and _had_conflict(model)):
            known = await self._look_again(key, manifest)
        # Lists leave out the kind of their items, so only what is below it is compared.
        if known and not drifted({"metadata": manifest["metadata"], "spec": manifest["spec"]}, known.body):
            return
        # Either makes the write fail rather than land on another object of that name: a foreign one that sets none of
        # our fields, such as a Service without a selector, would be merged with ours.
        precondition = {"uid": known.uid} if known else {"resourceVersion": NO_VERSION}
        manifest = {**manifest, "metadata": {**manifest["metadata"], **precondition}}
        try:
            written = await self._kube.apply(BY_KIND[kind], manifest, force=known is not None)
        except (ConflictError, NotFoundError) as error:
            if error.message.startswith(NAMESPACE_GONE):
                raise _NamespaceEndsError from error
            self._store.forget_child(key, kind)
            if isinstance(error, ConflictError) and known is None:
                # An object of that name exists; its owner says whether it is ours.
                await self._look_again(key, manifest)
            raise
        except (ForbiddenError, InvalidError) as error:
            if NAMESPACE_ENDS in error.message:
                raise _NamespaceEndsError from error
            # A missing permission reads `User "NAME" cannot VERB …`; everything else is a rule about the object.
            reason = Reason.FORBIDDEN if 'User "' in error.message else Reason.PODS_REFUSED
            raise _BlockedError(reason, f"The API server refused the {kind}: {error.message}") from error
        log.info("applied", extra={"model": "/".join(key), "kind": kind, "new": known is None})
        self._store.put(kind, written)

    async def _look_again(self, key: Key, manifest: dict[str, Any]) -> Child | None:
        """The live child, or None; raises _BlockedError if an object of another owner has the name."""
        kind = manifest["kind"]
        self._store.forget_child(key, kind)
        try:
            live = await self._kube.get(BY_KIND[kind], key.namespace, key.name)
        except NotFoundError:
            return None
        owners = [ref for ref in live["metadata"].get("ownerReferences") or () if ref.get("controller")]
        if "deletionTimestamp" in live["metadata"]:
            raise ConflictError(409, "Terminating", f"the {kind} {key.name} is being deleted")
        # What an InferenceModel of the same name that was deleted has left is taken over, for the garbage collector may
        # take half a minute to notice; if it is quicker than we, the precondition of the write fails. What has lost its
        # owner is still ours if it bears the hash of our intent, which has the uid of the model in it.
        if any(ref["kind"] == KIND and ref["name"] == key.name for ref in owners) or _hash(live) == _hash(manifest):
            self._store.put(kind, live)
            return self._store.child(key, kind)
        raise _BlockedError(
            Reason.NAME_CONFLICT,
            f"{kind} {key.name} already exists in namespace {key.namespace} and is not controlled by this "
            f"InferenceModel; delete or rename it, or give the InferenceModel another name",
        )

    async def _own_pods(self, key: Key, model: InferenceModel) -> tuple[PodState, ...]:
        own = await own_pods(self._kube, self._store, key, model.metadata.uid)
        return await self._pod_events.explained(key, own)

    def _observe(
        self, key: Key, pods: tuple[PodState, ...], blocked: Problem | None, scale: Scale | None
    ) -> Observation:
        child, reports = self._store.child(key, "Deployment"), self._store.reports(key)
        return Observation(
            deployment=child.state if child else None,
            pods=pods,
            facts=dict(reports.facts) if self._ask else None,
            blocked=blocked,
            replicas=scale.replicas if scale else None,
            woken=scale is not None and scale.woken,
            queue_position=self._view.queue.position(key),
            most=self._view.most,
            attainable=self._view.attainable,
            shapes=dict(reports.shapes),
            downloads=dict(reports.downloads),
            gpu_memory=self._view.gpu_memory,
            preemptions=self._store.preemptions(key),
        )

    async def _write_status(self, key: Key, model: InferenceModel, seen: Observation) -> None:
        now = self._clock()
        after = printable(status(model, seen, now))
        self._starts.observe(key, seen.pods, model.status.get("startup") or {})
        if after == model.status:
            return
        await self._events.record(key, model, seen, after, now)
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": model.metadata.uid},
            "status": after,
        }
        written = await self._kube.apply(INFERENCE_MODELS, manifest, force=True, subresource="status")
        self._events.count(key, model.status, after)
        self._store.note_written(key, written["metadata"]["resourceVersion"])
        ready = after["conditions"][0]
        log.info("status", extra={"model": "/".join(key), "phase": after["phase"], "reason": ready["reason"]})
