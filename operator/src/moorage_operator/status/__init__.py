"""Writes the status from what was observed: `status(model, observation, now)`. Pure.

Each condition is a function of a `View` in `conditions`, each other part of the status one in `sections`; the phase
sums the conditions up. Nothing in a status changes with the time alone, so that one that is unchanged is not written.
"""

from collections.abc import Callable
from typing import Any, Final

from moorage_operator.api.conditions import ConditionType, Phase, Reason
from moorage_operator.api.v1alpha1 import MAX_MESSAGE_LENGTH, InferenceModel
from moorage_operator.desired import names
from moorage_operator.status import acceleration, conditions, kstatus, memory, sections
from moorage_operator.status.observe import Observation
from moorage_operator.status.view import WAITING_FOR_RESOURCES, ConditionValue, View

_CONDITIONS: Final[dict[ConditionType, Callable[[View], ConditionValue | None]]] = {
    ConditionType.READY: conditions.ready,
    ConditionType.SCHEDULED: conditions.scheduled,
    ConditionType.MODEL_LOADED: conditions.model_loaded,
    ConditionType.PROGRESSING: conditions.progressing,
    ConditionType.PREEMPTED: conditions.preempted,
    ConditionType.FITS_GPU: memory.fits_gpu,
    ConditionType.ACCELERATED: acceleration.accelerated,
    ConditionType.RECONCILING: kstatus.reconciling,
    ConditionType.STALLED: kstatus.stalled,
}
"""A condition is absent while its function gives None."""

_SECTIONS: Final[dict[str, Callable[[View], Any]]] = {
    "url": sections.url,
    "queue": sections.queue,
    "preemption": sections.preemption,
    "preemptedBy": sections.preempted_by,
    "resolved": sections.resolved,
    "shape": memory.shape,
    "estimate": memory.estimate,
    "startup": sections.startup,
}
"""A section is absent while its function gives nothing."""

_NOT_FAILED: Final = {Reason.STARTING, Reason.LOADING, Reason.STOPPED, Reason.STOPPING}


def status(model: InferenceModel, seen: Observation, now: str) -> dict[str, Any]:
    """The whole status of `model`; `now` (RFC 3339) is the time of transitions."""
    view = View(model, seen)
    values = {kind: value for kind, evaluate in _CONDITIONS.items() if (value := evaluate(view))}
    parts = {name: part for name, write in _SECTIONS.items() if (part := write(view))}
    return {
        "phase": _phase(values[ConditionType.READY]).value,
        "observedGeneration": model.metadata.generation,
        "replicas": len([pod for pod in view.pods if not pod.terminating]),
        "readyReplicas": len(view.ready),
        "readyOfDesired": f"{len(view.ready)}/{view.desired_replicas}",
        "selector": ",".join(f"{key}={value}" for key, value in names.selector(model.metadata.name).items()),
        "servedName": model.served_name,
        **parts,
        "conditions": [_condition(view, kind, value, now) for kind, value in values.items()],
    }


def _phase(ready: ConditionValue) -> Phase:
    state, reason, _ = ready
    if reason in (Reason.SLEEPING, Reason.NO_GATEWAY):
        return Phase.SLEEPING
    if state == "True":
        return Phase.RUNNING
    if reason in WAITING_FOR_RESOURCES:
        return Phase.WAITING_FOR_RESOURCES
    if reason in _NOT_FAILED:
        return {Reason.STOPPED: Phase.STOPPED, Reason.STOPPING: Phase.STOPPING}.get(reason, Phase.STARTING)
    return Phase.FAILED


def _condition(view: View, kind: ConditionType, value: ConditionValue, now: str) -> dict[str, Any]:
    state, reason, message = value
    before = view.before(kind)
    return {
        "type": kind.value,
        "status": state,
        "reason": reason.value,
        "message": message[:MAX_MESSAGE_LENGTH],
        "observedGeneration": view.model.metadata.generation,
        "lastTransitionTime": before["lastTransitionTime"] if before.get("status") == state else now,
    }
