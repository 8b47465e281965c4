"""The parts of a status that are no conditions: functions of a `View`, empty when there is nothing to say. Pure."""

from typing import Any

from moorage_operator.api.conditions import Reason
from moorage_operator.api.v1alpha1 import MAX_FACT_LENGTH
from moorage_operator.desired import names
from moorage_operator.status.view import View


def url(view: View) -> str:
    """Base address of the model's API; none while a stranger's Service may have it."""
    blocked = view.seen.blocked
    return "" if blocked and blocked.reason is Reason.NAME_CONFLICT else names.url(view.model)


def queue(view: View) -> dict[str, Any]:
    """Where the model stands among those that wait for the same resource."""
    place = view.seen.place
    if place is None:
        return {}
    return {
        "position": place.position,
        "of": place.of,
        "place": f"{place.position}/{place.of}",
        "waitingFor": place.waiting_for[:256],
    }


def preemption(view: View) -> dict[str, Any]:
    """How often pods lost their place, and the last times to whom."""
    return dict(view.preemption)


def preempted_by(view: View) -> str:
    """Who has the place that the model has lost and not made up for."""
    return str(view.preemption["last"]["by"]) if view.preempted else ""


def resolved(view: View) -> dict[str, Any]:
    """What the engine said of itself after loading."""
    facts = next((health.facts for health in view.facts(view.speaking) if health and health.facts), None)
    if not facts:
        return {}
    values = {
        "engine": facts.engine,
        "engineVersion": facts.engine_version,
        "device": facts.device,
        "quantization": facts.quantization,
        "contextLength": facts.context_length,
        "weightsBytes": facts.weights_bytes,
        "memoryBytes": facts.memory_bytes,
    }
    return {name: fitting for name, value in values.items() if (fitting := _fitting(value)) is not None}


def _fitting(value: str | int | None) -> str | int | None:
    """`value` within the bounds of the schema: a pod that says too much must not keep its status from being written."""
    if isinstance(value, str):
        return value[:MAX_FACT_LENGTH]
    return value if value is not None and 0 <= value < 2**63 else None
