"""What a person should hear of when a status begins to say it: the Warning Events that go with it. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from moorage_operator.api.conditions import ConditionType, Reason
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.status.acceleration import fallbacks
from moorage_operator.status.observe import Observation
from moorage_operator.status.view import View


class Warned(NamedTuple):
    """One warning; `subject` names its occasion and is the same whenever it is told again."""

    reason: Reason
    message: str
    subject: str


def warnings(model: InferenceModel, seen: Observation, wanted: Mapping[str, Any]) -> list[Warned]:
    """What `wanted`, a status that is about to be written, says newly: one warning for each pod that fell back, and one
    for each way in which the model does not fit."""
    view = View(model, seen)
    found = []
    if _news(view, wanted, ConditionType.ACCELERATED):
        found += [Warned(slow.reason, f"{slow.pod}: {slow.message}", slow.pod) for slow in fallbacks(view)]
    if condition := _news(view, wanted, ConditionType.FITS_GPU):
        found.append(Warned(Reason.INSUFFICIENT_GPU_MEMORY, condition["message"], condition["message"]))
    return found


def _news(view: View, wanted: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """The condition of that kind if it is False, and was not or for another reason; else nothing."""
    condition: Mapping[str, Any] = next((c for c in wanted["conditions"] if c["type"] == kind), {})
    before = view.before(kind)
    told = before.get("status") == "False" and before.get("message") == condition.get("message")
    return {} if condition.get("status") != "False" or told else condition
