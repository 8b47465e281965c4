"""The Events that go with a status, when one of its conditions becomes False. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from moorage_operator.api.conditions import ConditionType, Reason
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.status.acceleration import fallbacks
from moorage_operator.status.observe import Observation
from moorage_operator.status.view import View

_NO_FAILURES: Final = {
    *(Reason.STARTING, Reason.STOPPED, Reason.STOPPING, Reason.SLEEPING, Reason.COMPLETE),
}
"""Reasons of a condition that is False although nothing is wrong."""

_HOUR: Final = len("2026-01-02T03")


class ConditionEvent(NamedTuple):
    """One Event; `cause` is the same whenever the same thing is reported again."""

    reason: Reason
    message: str
    cause: str
    type: Literal["Normal", "Warning"] = "Warning"


def condition_events(model: InferenceModel, seen: Observation, after: Mapping[str, Any]) -> list[ConditionEvent]:
    """The Events for what is new in `after`, a status that is about to be written: one for each cause of a failure, one
    for each pod that fell back, and one for each way in which the model does not fit."""
    view = View(model, seen)
    found = list({event.reason: event for event in _failures(view, after)}.values())
    if _newly_false(view, after, ConditionType.ACCELERATED):
        found += [ConditionEvent(slow.reason, f"{slow.pod}: {slow.message}", slow.pod) for slow in fallbacks(view)]
    if condition := _newly_false(view, after, ConditionType.FITS_GPU):
        message = condition["message"]
        found.append(ConditionEvent(Reason.INSUFFICIENT_GPU_MEMORY, message, message))
    return found


def _failures(view: View, after: Mapping[str, Any]) -> Iterator[ConditionEvent]:
    """One for each condition that begins to report a failure. A rollout that makes room for itself is none."""
    if _condition(after, ConditionType.PROGRESSING).get("reason") == Reason.MAKING_ROOM:
        return
    failed = _failed(_condition(after, ConditionType.READY))
    for kind in (ConditionType.READY, ConditionType.SCHEDULED, ConditionType.PROGRESSING):
        condition = _condition(after, kind)
        if not _failed(condition) or view.before(kind).get("reason") == condition["reason"]:
            continue
        reason = Reason(condition["reason"])
        if reason is Reason.ROLLOUT_STUCK and failed:
            continue  # Ready has the cause
        # Not the message: it has counts and names of pods in it. What fails again an hour later is reported again.
        cause = f"{condition['observedGeneration']} {condition['lastTransitionTime'][:_HOUR]}"
        if reason is not Reason.WAITING_FOR_GPU:
            yield ConditionEvent(reason, condition["message"], cause)
        elif kind is ConditionType.READY:
            yield ConditionEvent(reason, condition["message"], cause, "Normal")


def _failed(condition: Mapping[str, Any]) -> bool:
    return condition.get("status") == "False" and condition["reason"] not in _NO_FAILURES


def _condition(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    return next((c for c in status["conditions"] if c["type"] == kind), {})


def _newly_false(view: View, after: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """The condition of that kind if it is False, and was not, or with another message; else nothing."""
    condition, before = _condition(after, kind), view.before(kind)
    reported = before.get("status") == "False" and before.get("message") == condition.get("message")
    return {} if condition.get("status") != "False" or reported else condition
