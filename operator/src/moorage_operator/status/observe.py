"""Reads the facts that matter out of live objects: `PodState`, `DeploymentState`, `Observation` of a model. Pure.

Parsing happens here, at the edge, once for each event; what is kept is small, so thousands of models fit in little
memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from moorage_common.download import Download
from moorage_common.facts import Health, Termination
from moorage_common.labels import ASLEEP_ANNOTATION, MODEL_UID_LABEL, REVISION_LABEL, TRIED_UNDER_ANNOTATION
from moorage_common.shape import Shape
from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.desired.fetch import FETCH_CONTAINER
from moorage_operator.desired.storage import VOLUME_NAME
from moorage_operator.desired.workload import CONTAINER_NAME
from moorage_operator.status.preemption import Preemption
from moorage_operator.status.scheduling import lacks
from moorage_operator.status.startup import Start, start_of
from moorage_operator.status.volumes import starting_since

_PULL_FAILURES: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
}
_CONFIG_FAILURES: Final = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_START_FAILURES: Final = {"StartError", "ContainerCannotRun"}
_MESSAGE_LIMIT: Final = 1024


@dataclass(frozen=True, slots=True)
class PodState:
    """What matters of one pod.

    `lacks` are the resources that the scheduler found too little of, `requests` the amounts that it asked for, while it
    has no node; `nominated` is the node where pods are being preempted for it; `preempted` is when it was preempted;
    `shape` is the model's shape as a failed load has left it, `start` the timing of the start of a pod that is ready.
    """

    name: str
    uid: str
    created: str
    model_uid: str
    revision: str = ""
    replica_set: str = ""
    replica_set_uid: str = ""
    ip: str | None = None
    node: str = ""
    claim: str = ""
    """The PersistentVolumeClaim that the model's files are in."""

    starting_since: str | None = None
    """Since when it has a node, while the kubelet has not got as far as a container: it attaches and mounts volumes."""

    nominated: str = ""
    priority: int = 0
    unschedulable: str | None = None
    lacks: tuple[str, ...] = ()
    requests: tuple[tuple[str, str], ...] = ()
    preempted: str | None = None
    downloading: bool = False
    """Whether the container that fetches the model runs."""

    running: bool = False
    ready: bool = False
    terminating: bool = False
    finished: bool = False
    failure: str = ""
    """Why it failed as a whole: a node refused it, or it was evicted. Its ReplicaSet makes another one."""

    restarts: int = 0
    problem: Problem | None = None
    shape: Shape | None = None
    start: Start | None = None

    @property
    def scheduled(self) -> bool:
        """Whether it has a node."""
        return bool(self.node)

    @property
    def loading(self) -> bool:
        """Whether it is on its way to ready: nothing stands in its way but time."""
        return self.scheduled and not (self.ready or self.terminating or self.finished or self.problem)


class QueuePosition(NamedTuple):
    """A position in the scheduling queue: `position`, from 1, `of` all models that wait for the same resource."""

    position: int
    of: int
    waiting_for: str


@dataclass(frozen=True)
class DeploymentState:
    """What matters of the Deployment."""

    generation: int
    observed_generation: int
    replicas: int
    current_replicas: int
    updated_replicas: int
    available_replicas: int
    revision: str = ""
    makes_room: bool = False
    tried_under: str = ""
    asleep: bool = False
    stuck: str | None = None
    refused: str | None = None
    was_complete: bool = False
    """Whether its controller has once seen all pods of the template as it is now available."""

    @property
    def rolled_out(self) -> bool:
        """Whether every pod is of the last template and available, and none of an older one is left."""
        return (
            self.observed_generation >= self.generation
            and self.updated_replicas == self.current_replicas == self.available_replicas == self.replicas
        )

    @property
    def was_rolled_out(self) -> bool:
        """Whether the last template has once reached all pods, whatever has become of them since."""
        settled = self.observed_generation >= self.generation
        return settled and self.was_complete and self.updated_replicas == self.current_replicas


@dataclass(frozen=True)
class Observation:
    """Everything that the status of one model is made from.

    `facts` are by pod uid, None for a pod that did not answer; no mapping at all means that pods are not queried.
    """

    deployment: DeploymentState | None = None
    pods: tuple[PodState, ...] = ()
    facts: Mapping[str, Health | None] | None = None
    blocked: Problem | None = None
    """Why the operator could not, or would not, apply the children."""

    replicas: int | None = None
    """How many replicas the operator has decided on, where the spec leaves it to the operator; 0 is asleep."""

    woken: bool = False
    """Whether a gateway would wake it, if it sleeps."""

    queue_position: QueuePosition | None = None
    """Its position in the queue of the models that wait for the same resource."""

    most: Mapping[str, int] | None = None
    """The most of each extended resource that one node has; None when the nodes cannot be seen."""

    attainable: Mapping[str, int] | None = None
    """The same of a node that can be hoped for; None where that has no known end."""

    shapes: Mapping[str, Shape | None] = field(default_factory=dict)
    """The shapes of the model that pods have reported, by pod uid."""

    downloads: Mapping[str, Download] = field(default_factory=dict)
    """The progress of downloads that pods have reported, by pod uid."""

    gpu_memory: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Bytes of one GPU by resource and by how many of it a node has; empty where nodes do not say."""

    preemptions: tuple[Preemption, ...] = ()
    """Preemptions of its pods; the status may not have them yet."""


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ownerReference of the object's controller; empty when it has none."""
    owners: list[Mapping[str, Any]] = obj["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def pod_state(pod: Mapping[str, Any]) -> PodState:
    """The state of a pod as the API hands it out."""
    metadata, status = pod["metadata"], pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled, labels, owner = conditions.get("PodScheduled", {}), metadata.get("labels") or {}, controller_of(pod)
    container = _named(status.get("containerStatuses"), CONTAINER_NAME)
    fetching = _named(status.get("initContainerStatuses"), FETCH_CONTAINER)
    ready = conditions.get("Ready", {}).get("status") == "True"
    node: str = pod.get("spec", {}).get("nodeName") or ""
    waits = not node and scheduled.get("reason") == "Unschedulable"
    unschedulable: str | None = scheduled.get("message", "") if waits else None
    return PodState(
        name=metadata["name"],
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp", ""),
        model_uid=labels.get(MODEL_UID_LABEL, ""),
        revision=labels.get(REVISION_LABEL, ""),
        replica_set=owner.get("name", "") if owner.get("kind") == "ReplicaSet" else "",
        replica_set_uid=owner.get("uid", "") if owner.get("kind") == "ReplicaSet" else "",
        ip=status.get("podIP"),
        node=node,
        claim=_claim(pod),
        starting_since=starting_since(conditions, status) if node and not ready else None,
        nominated="" if node else status.get("nominatedNodeName") or "",
        priority=pod.get("spec", {}).get("priority") or 0,
        unschedulable=unschedulable,
        lacks=lacks(unschedulable or ""),
        requests=() if node else _requests(pod),
        preempted=_preempted(conditions.get("DisruptionTarget", {})),
        downloading="running" in fetching.get("state", {}),
        running="running" in container.get("state", {}),
        ready=ready,
        terminating="deletionTimestamp" in metadata,
        finished=status.get("phase") in ("Succeeded", "Failed"),
        failure=_failure(status) if status.get("phase") == "Failed" else "",
        restarts=container.get("restartCount", 0),
        problem=None if ready else _fetch_problem(fetching) or _container_problem(container),
        shape=None if ready else _shape_left(container),
        start=start_of(pod, container) if ready else None,
    )


def _failure(status: Mapping[str, Any]) -> str:
    told = (status.get("reason"), status.get("message"))
    return _cut(": ".join(str(text) for text in told if text)) or "Failed"


def _named(containers: Sequence[Mapping[str, Any]] | None, name: str) -> Mapping[str, Any]:
    return next((container for container in containers or () if container["name"] == name), {})


def _claim(pod: Mapping[str, Any]) -> str:
    volume = _named(pod.get("spec", {}).get("volumes"), VOLUME_NAME)
    name: str = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
    return name


def _requests(pod: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    containers: list[Mapping[str, Any]] = pod.get("spec", {}).get("containers") or []
    container = next((c for c in containers if c.get("name") == CONTAINER_NAME), {})
    return tuple(sorted((container.get("resources", {}).get("requests") or {}).items()))


def _preempted(condition: Mapping[str, Any]) -> str | None:
    if condition.get("status") == "True" and condition.get("reason") == "PreemptionByScheduler":
        return str(condition.get("lastTransitionTime", ""))
    return None


def _shape_left(container: Mapping[str, Any]) -> Shape | None:
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    termination = Termination.decode(ended.get("message", ""))
    return termination.shape if termination else None


def _fetch_problem(container: Mapping[str, Any]) -> Problem | None:
    """Why the model cannot be fetched. A new attempt is explained by the last failure until it says that bytes come."""
    return _container_problem({**container, "started": False})


def _container_problem(container: Mapping[str, Any]) -> Problem | None:
    state = container.get("state", {})
    waiting = state.get("waiting", {})
    why, text = waiting.get("reason", ""), waiting.get("message", "")
    if why in _PULL_FAILURES:
        return Problem(Reason.IMAGE_PULL_FAILED, _cut(text or why))
    if why in _CONFIG_FAILURES:
        return Problem(Reason.CONTAINER_CONFIG_INVALID, _cut(f"{why}: {text}"))
    # A container that starts again after a failure is still explained by that failure, until it was ready once
    # (`started` is the startup probe's word); if it ceases to be ready later, that is another matter.
    last = {} if container.get("started") else container.get("lastState", {})
    ended = state.get("terminated") or last.get("terminated")
    return _death(ended, again=why == "CrashLoopBackOff") if ended else None


def _death(ended: Mapping[str, Any], *, again: bool) -> Problem | None:
    if termination := Termination.decode(ended.get("message", "")):
        return Problem(Reason(termination.reason), _cut(termination.message))
    code, why, text = ended.get("exitCode", 0), ended.get("reason", ""), ended.get("message", "")
    if why in _START_FAILURES:
        return Problem(Reason.CONTAINER_CONFIG_INVALID, _cut(f"{why}: {text}"))
    if ended.get("reason") == "OOMKilled":
        return Problem(
            Reason.OUT_OF_MEMORY,
            "The container was killed because it exceeded its memory limit; raise spec.resources.memory",
        )
    # A server that ends by itself with code 0 is told to, once; again and again is a failure like any other.
    return Problem(Reason.CRASH_LOOPING, f"The container exited with code {code}") if code or again else None


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"


def deployment_state(deployment: Mapping[str, Any]) -> DeploymentState:
    """The state of a Deployment as the API hands it out."""
    metadata, spec, status = deployment["metadata"], deployment["spec"], deployment.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    template: Mapping[str, Any] = spec.get("template", {})
    surge = (spec.get("strategy", {}).get("rollingUpdate") or {}).get("maxSurge", 1)
    progressing, failure = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    return DeploymentState(
        generation=metadata.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        replicas=spec.get("replicas", 1),
        current_replicas=status.get("replicas", 0),
        updated_replicas=status.get("updatedReplicas", 0),
        available_replicas=status.get("availableReplicas", 0),
        revision=(template.get("metadata", {}).get("labels") or {}).get(REVISION_LABEL, ""),
        makes_room=surge == 0,
        tried_under=(metadata.get("annotations") or {}).get(TRIED_UNDER_ANNOTATION, ""),
        asleep=spec.get("replicas", 1) == 0 and ASLEEP_ANNOTATION in (metadata.get("annotations") or {}),
        stuck=_cut(progressing.get("message", "")) if progressing.get("reason") == "ProgressDeadlineExceeded" else None,
        refused=_cut(failure.get("message", "")) if failure.get("status") == "True" else None,
        # The controller keeps this reason until the template changes.
        was_complete=progressing.get("reason") == "NewReplicaSetAvailable",
    )
