"""A model and what was observed of it, with derived properties that all parts of the status use. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

from moorage_common.facts import EngineFacts, Health, Phase
from moorage_common.shape import Shape
from moorage_operator.api.conditions import ConditionType, Problem, Reason
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.status.observe import Observation, PodState
from moorage_operator.status.preemption import preemption_status
from moorage_operator.status.refusals import refused
from moorage_operator.status.scheduling import cause, unschedulable

LOADED_ONCE: Final = {Phase.READY, Phase.UNLOADED}
"""States of a runtime in which the facts of its engine are known."""

ConditionValue = tuple[str, Reason, str]
"""Status (True, False or Unknown), reason and message of a condition."""

WAITING_FOR_RESOURCES: Final = {
    Reason.WAITING_FOR_GPU,
    Reason.UNSCHEDULABLE,
    Reason.NO_SUCH_RESOURCE,
    Reason.VOLUME_NOT_FOUND,
    Reason.QUOTA_EXCEEDED,
    Reason.POD_SECURITY_DENIED,
    Reason.LIMIT_RANGE_VIOLATED,
    Reason.PODS_REFUSED,
}


@dataclass(frozen=True)
class View:
    """A model and what was seen of it."""

    model: InferenceModel
    seen: Observation

    @property
    def desired_replicas(self) -> int:
        """Pods that there are to be; none by a model that is being deleted and has stopped answering."""
        if self.deleted and not self.ready:
            return 0
        return self.model.spec.desired_replicas if self.seen.replicas is None else self.seen.replicas

    @property
    def asleep(self) -> bool:
        """Whether it is scaled to zero because it was not used."""
        return self.seen.replicas == 0 and not self.deleted and not self.seen.blocked

    @property
    def stopped(self) -> bool:
        """Whether the spec stops it, unlike scaling to zero: errors that prevent a start are then no failure."""
        return self.desired_replicas == 0 and (self.deleted or self.seen.replicas is None)

    @property
    def deleted(self) -> bool:
        """Whether the model is being deleted: it stays until finalizers of others and its children are gone."""
        return bool(self.model.metadata.deletion_timestamp)

    @cached_property
    def pods(self) -> tuple[PodState, ...]:
        """The pods that run or will."""
        return tuple(pod for pod in self.seen.pods if not pod.finished)

    @cached_property
    def ready(self) -> tuple[PodState, ...]:
        """The pods that answer requests and go on doing so."""
        return tuple(pod for pod in self.pods if pod.ready and not pod.terminating)

    @cached_property
    def current(self) -> tuple[PodState, ...]:
        """The pods of the current spec; those of an earlier one may serve, but do not explain a current problem."""
        revision = self.seen.deployment.revision if self.seen.deployment else ""
        return tuple(pod for pod in self.pods if pod.revision == revision)

    @cached_property
    def reporting(self) -> tuple[PodState, ...]:
        """The ready pods whose facts are the model's: of the spec as it is now, or else of an earlier one."""
        return tuple(pod for pod in self.ready if pod in self.current) or self.ready

    def facts(self, pods: tuple[PodState, ...]) -> list[Health | None]:
        """What those of `pods` that were queried have reported; None for one that did not answer."""
        facts = self.seen.facts
        return [facts[pod.uid] for pod in pods if facts and pod.uid in facts]

    @cached_property
    def engines(self) -> list[tuple[PodState, EngineFacts]]:
        """The pods whose facts are the model's, each with what its engine has reported after loading."""
        reported = [(pod, health) for pod in self.reporting for health in self.facts((pod,)) if health]
        return [(pod, health.facts) for pod, health in reported if health.facts and health.status in LOADED_ONCE]

    @cached_property
    def facts_pending(self) -> bool:
        """Whether a ready pod has not been queried yet, so that the last written status may still be true.

        An operator that has just started knows no facts; it must not remove what is true.
        """
        facts = self.seen.facts
        return facts is not None and any(pod.uid not in facts for pod in self.reporting)

    @cached_property
    def shape(self) -> Shape | None:
        """The shape of the model: by a pod of the spec as it is now, or else as it was last written."""
        shapes = [self.seen.shapes.get(pod.uid) or pod.shape for pod in reversed(self.current)]
        return next((shape for shape in shapes if shape), None) or self._shape_before

    @property
    def _shape_before(self) -> Shape | None:
        kept = self.model.status.get("shape") or {}
        if kept.get("source") != self.model.spec.files:
            return None
        try:
            return msgspec.convert(kept, Shape)
        except msgspec.ValidationError:
            return None  # written by an operator of another version

    def before(self, kind: ConditionType) -> dict[str, Any]:
        """The condition as it was last written; empty when it was not."""
        return next((c for c in self.model.status.get("conditions", ()) if c.get("type") == kind), {})

    def value_before(self, kind: ConditionType) -> ConditionValue | None:
        """The same as a verdict; None when it was not, or for a reason that is none any more."""
        before = self.before(kind)
        reason = next((known for known in Reason if known == before.get("reason")), None)
        return (before["status"], reason, before["message"]) if reason else None

    @cached_property
    def preemption(self) -> Mapping[str, Any]:
        """`status.preemption`; empty when no pod was ever preempted."""
        # Preemptions of pods of an earlier model of this name do not count.
        since = self.model.metadata.creation_timestamp
        found = [preemption for preemption in self.seen.preemptions if preemption.time >= since]
        return preemption_status(self.model.status.get("preemption") or {}, found)

    @cached_property
    def preempted(self) -> bool:
        """Whether a pod was preempted since all replicas were last ready."""
        if not self.preemption:
            return False
        known = {entry["pod"] for entry in (self.model.status.get("preemption") or {}).get("history", ())}
        victims = {entry["pod"] for entry in self.preemption["history"]}
        unaffected = [pod for pod in self.ready if pod.name not in victims and not pod.preempted]
        preempted = self.before(ConditionType.PREEMPTED).get("status") == "True" or victims - known
        return bool(preempted) and len(unaffected) < self.desired_replicas

    @property
    def arrived(self) -> bool:
        """Whether the spec was rolled out to as many pods, by the last status: a pod that is lost later is no rollout.

        Another number of replicas is one, as it is for a Deployment: also that of a model that is woken.
        """
        deployment, before = self.seen.deployment, self.before(ConditionType.PROGRESSING)
        if deployment is None or deployment.replicas != self.desired_replicas:
            return False
        _, _, desired_before = str(self.model.status.get("readyOfDesired", "")).partition("/")
        if desired_before != str(self.desired_replicas):
            return False
        completed = before.get("reason") == Reason.COMPLETE
        same_spec = before.get("observedGeneration") == self.model.metadata.generation
        return deployment.was_rolled_out and completed and same_spec

    @cached_property
    def problem(self) -> Problem | None:
        """What prevents the pods of the current spec from starting: the problem of the newest."""
        if self.seen.blocked:
            return self.seen.blocked
        if self.refused:
            return self.refused
        if self.waiting:
            return self.waiting
        newest = max(self.current, key=lambda pod: (not pod.terminating, pod.created, pod.name), default=None)
        return self.problem_of(newest) if newest else None

    def problem_of(self, pod: PodState) -> Problem | None:
        """What prevents a pod from starting; a failed download is no problem any more once bytes arrive again."""
        download = self.seen.downloads.get(pod.uid) if pod.downloading else None
        return None if download and download.bytes_per_second > 0 else pod.problem

    @cached_property
    def download(self) -> str:
        """The progress of the download as a message; empty while no pod downloads the model."""
        fetching = [pod for pod in self.current if pod.downloading and not pod.terminating]
        downloads = [self.seen.downloads[pod.uid] for pod in fetching if pod.uid in self.seen.downloads]
        farthest = max(downloads, key=lambda download: download.bytes_done, default=None)
        if not fetching or farthest:
            return f"Downloading the model: {farthest.words()}" if farthest else ""
        # An operator that has just started has not queried the pod yet, and must not replace the last progress by none.
        before = self.before(ConditionType.MODEL_LOADED)
        reported = before.get("reason") == Reason.DOWNLOADING and self.seen.facts is not None
        return before["message"] if reported else "Downloading the model"

    @property
    def failure(self) -> str:
        """Why the newest failed pod of the spec as it is now failed; empty if none is left."""
        revision = self.seen.deployment.revision if self.seen.deployment else ""
        failed = [pod for pod in self.seen.pods if pod.failure and pod.revision == revision]
        newest = max(failed, key=lambda pod: (pod.created, pod.name), default=None)
        return newest.failure if newest else ""

    @property
    def refused(self) -> Problem | None:
        """Why the API server refuses to create pods, if it does."""
        deployment = self.seen.deployment
        return refused(deployment.refused) if deployment and deployment.refused else None

    @cached_property
    def waiting(self) -> Problem | None:
        """Why pods are not scheduled, by the scheduler."""
        pending = [pod for pod in self.current if pod.unschedulable is not None and not pod.scheduled]
        pod = next((pod for pod in pending if not pod.terminating), None)
        if pod is None or pod.unschedulable is None:
            return None
        gpu = self.model.spec.gpu
        if not gpu.count or gpu.resource_name not in pod.lacks:
            return unschedulable(pod.unschedulable)
        attainable, most = self.seen.attainable, (self.seen.most or {}).get(gpu.resource_name, 0)
        if attainable is not None and attainable.get(gpu.resource_name, 0) < gpu.count:
            text = f"Each replica requests {gpu.count} {gpu.resource_name}, but no node has more than {most}"
            return Problem(Reason.NO_SUCH_RESOURCE, text)
        return Problem(Reason.WAITING_FOR_GPU, self._waiting_for_gpu(pod))

    def _waiting_for_gpu(self, pod: PodState) -> str:
        queue, gpu = self.seen.queue_position, self.model.spec.gpu
        if queue is None:
            what = f"Waiting for {gpu.count} {gpu.resource_name}"
        else:
            what = f"Waiting for {queue.waiting_for}, queue position {queue.position} of {queue.of}"
        if self.seen.most is not None and self.seen.most.get(gpu.resource_name, 0) < gpu.count:
            return f"{what}; no node has so many now, but an autoscaler may add one"
        if pod.nominated:
            return f"{what}; preempting pods on node {pod.nominated}"
        return f"{what}: {cause(pod.unschedulable or '')}"
