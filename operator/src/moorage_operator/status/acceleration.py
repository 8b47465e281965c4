"""Whether engines run as requested: on the GPU, and at the precision of the spec. Pure."""

from typing import Final, NamedTuple

from moorage_common.facts import CPU, EngineFacts
from moorage_operator.api.conditions import ConditionType, Reason
from moorage_operator.api.v1alpha1 import MAX_FACT_LENGTH, InferenceModelSpec
from moorage_operator.status.observe import PodState
from moorage_operator.status.view import ConditionValue, View

NAMED_PODS: Final = 5
"""Pods that a message names; it counts the others."""

_NOT_QUANTIZED: Final = {"none", "f32", "f16", "bf16", "float32", "float16", "bfloat16"}


class Fallback(NamedTuple):
    """A pod whose engine does not run as requested, with the reason and message."""

    pod: str
    reason: Reason
    message: str


def fallbacks(view: View) -> list[Fallback]:
    """The pods that are slower, or less exact, than requested."""
    spec = view.model.spec
    found = [(pod.name, _fallback(spec, facts)) for pod, facts in _gpu_engines(view)]
    return [Fallback(pod, *fallback) for pod, fallback in found if fallback]


def _gpu_engines(view: View) -> list[tuple[PodState, EngineFacts]]:
    """The engines that report their device. Those of an earlier spec, which may have requested no GPU, do not count."""
    if not view.model.spec.gpu.count:
        return []
    return [(pod, facts) for pod, facts in view.engines if facts.device and pod in view.current]


def accelerated(view: View) -> ConditionValue | None:
    """Whether the engines run on the requested device and at the requested precision; None while unknown."""
    spec = view.model.spec
    known = _gpu_engines(view)
    if not known:
        return view.value_before(ConditionType.ACCELERATED) if spec.gpu.count and view.facts_pending else None
    slow = fallbacks(view)
    if not slow:
        _, facts = known[0]
        return "True", Reason.ACCELERATED, f"The engine runs on {_cut(facts.device)} with {_precision(facts)}"
    first = min(slow, key=lambda fallback: fallback.reason is not Reason.CPU_FALLBACK)
    same = [fallback.pod for fallback in slow if fallback.reason is first.reason]
    more = f" and {len(same) - NAMED_PODS} more" if len(same) > NAMED_PODS else ""
    return "False", first.reason, f"{first.message}, in {', '.join(sorted(same)[:NAMED_PODS])}{more}"


def _fallback(spec: InferenceModelSpec, facts: EngineFacts) -> tuple[Reason, str] | None:
    if facts.device and facts.device.lower().split(":")[0] == CPU:
        gpus = f"{spec.gpu.count} {spec.gpu.resource_name}"
        return Reason.CPU_FALLBACK, f"Requested {gpus}, but the engine runs on {_cut(facts.device)}"
    requested, actual = spec.quantization, facts.quantization
    if requested and actual and not _same(requested, actual):
        return (
            Reason.PRECISION_FALLBACK,
            f"Requested quantization {requested}, but the engine runs with {_cut(actual)}",
        )
    return None


def _same(asked: str, real: str) -> bool:
    asked, real = asked.lower(), real.lower()
    return asked == real or (asked == "none" and real in _NOT_QUANTIZED)


def _precision(facts: EngineFacts) -> str:
    return f"quantization {_cut(facts.quantization)}" if facts.quantization else "an unknown precision"


def _cut(text: str | None) -> str:
    return (text or "")[:MAX_FACT_LENGTH]
