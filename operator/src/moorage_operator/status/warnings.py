"""The Warning Events that go with a status, when one of its conditions becomes False. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from moorage_operator.api.conditions import ConditionType, Reason
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.status.acceleration import fallbacks
from moorage_operator.status.observe import Observation
from moorage_operator.status.view import View


class ConditionWarning(NamedTuple):
    """One warning; `cause` is the same whenever the same thing is reported again."""

    reason: Reason
    message: str
    cause: str


def warnings(model: InferenceModel, seen: Observation, after: Mapping[str, Any]) -> list[ConditionWarning]:
    """The warnings that are new in `after`, a status that is about to be written: one for each pod that fell back, and
    one for each way in which the model does not fit."""
    view = View(model, seen)
    found = []
    if _newly_false(view, after, ConditionType.ACCELERATED):
        found += [ConditionWarning(slow.reason, f"{slow.pod}: {slow.message}", slow.pod) for slow in fallbacks(view)]
    if condition := _newly_false(view, after, ConditionType.FITS_GPU):
        message = condition["message"]
        found.append(ConditionWarning(Reason.INSUFFICIENT_GPU_MEMORY, message, message))
    return found


def _newly_false(view: View, after: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """The condition of that kind if it is False, and was not, or with another message; else nothing."""
    condition: Mapping[str, Any] = next((c for c in after["conditions"] if c["type"] == kind), {})
    before = view.before(kind)
    reported = before.get("status") == "False" and before.get("message") == condition.get("message")
    return {} if condition.get("status") != "False" or reported else condition
