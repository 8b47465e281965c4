"""The parts of a status that are no conditions: functions of a `View`, empty when there is nothing to say. Pure."""

from typing import Any

from moorage_operator.api.conditions import Reason
from moorage_operator.api.v1alpha1 import MAX_FACT_LENGTH
from moorage_operator.desired import names
from moorage_operator.status.view import View


def url(view: View) -> str:
    """Base address of the model's API; none while the Service of another owner may have it."""
    blocked = view.seen.blocked
    return "" if blocked and blocked.reason is Reason.NAME_CONFLICT else names.url(view.model)


def queue(view: View) -> dict[str, Any]:
    """Its position in the queue of the models that wait for the same resource."""
    queue = view.seen.queue_position
    if queue is None:
        return {}
    return {
        "position": queue.position,
        "of": queue.of,
        "summary": f"{queue.position}/{queue.of}",
        "waitingFor": queue.waiting_for[:256],
    }


def preemption(view: View) -> dict[str, Any]:
    """How many pods were preempted, and the last preemptions."""
    return dict(view.preemption)


def preempted_by(view: View) -> str:
    """The preemptor, until all replicas are ready again."""
    return str(view.preemption["last"]["by"]) if view.preempted else ""


def resolved(view: View) -> dict[str, Any]:
    """What the engine reported after loading."""
    if not view.engines:
        return dict(view.model.status.get("resolved") or {}) if view.facts_pending else {}
    _, facts = view.engines[0]
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


def startup(view: View) -> dict[str, Any]:
    """How long the last start took, phase by phase. The last is the one that began last, so that a pod that only was
    not ready for a while has not started again."""
    before: dict[str, Any] = dict(view.model.status.get("startup") or {})
    starts = [(pod.start.began, pod.name, pod.start) for pod in view.ready if pod.start]
    last = max(starts, default=None)
    if last is None or (last[0], last[1]) <= (before.get("startedAt", ""), before.get("pod", "")):
        return before
    began, pod, start = last
    return {"pod": pod, "startedAt": began, **{f"{phase}Seconds": n for phase, n in start.phases().items()}}


def _fitting(value: str | int | None) -> str | int | None:
    """`value` within the bounds of the schema: a pod that says too much must not keep its status from being written."""
    if isinstance(value, str):
        return value[:MAX_FACT_LENGTH]
    return value if value is not None and 0 <= value < 2**63 else None
