"""Whether engines run on what was asked for: the GPU, and the precision. Pure."""

from typing import Final, NamedTuple

from moorage_common.facts import CPU, EngineFacts
from moorage_operator.api.conditions import ConditionType, Reason
from moorage_operator.api.v1alpha1 import MAX_FACT_LENGTH, InferenceModelSpec
from moorage_operator.status.observe import PodState
from moorage_operator.status.view import Verdict, View

NAMED_PODS: Final = 5
"""Pods that a message names; of more it gives the number."""

_NOT_QUANTIZED: Final = {"none", "f32", "f16", "bf16", "float32", "float16", "bfloat16"}


class Fallback(NamedTuple):
    """A pod whose engine does not run as was asked, and in which words."""

    pod: str
    reason: Reason
    message: str


def fallbacks(view: View) -> list[Fallback]:
    """The pods that are slower, or less exact, than was asked for."""
    spec = view.model.spec
    told = [(pod.name, _fallback(spec, facts)) for pod, facts in _asked_for_gpus(view)]
    return [Fallback(pod, *found) for pod, found in told if found]


def _asked_for_gpus(view: View) -> list[tuple[PodState, EngineFacts]]:
    """The engines that have told what they run on; a pod of an earlier spec may not have been to have a GPU."""
    if not view.model.spec.gpu.count:
        return []
    return [(pod, facts) for pod, facts in view.engines if facts.device and pod in view.current]


def accelerated(view: View) -> Verdict | None:
    """Whether the engines run on the device and at the precision that were asked for; None when nothing is known."""
    spec = view.model.spec
    known = _asked_for_gpus(view)
    if not known:
        return view.verdict_before(ConditionType.ACCELERATED) if spec.gpu.count and view.about_to_tell else None
    slow = fallbacks(view)
    if not slow:
        _, facts = known[0]
        return "True", Reason.ACCELERATED, f"the engine runs on {_cut(facts.device)} with {_precision(facts)}"
    first = min(slow, key=lambda fallback: fallback.reason is not Reason.CPU_FALLBACK)
    same = [fallback.pod for fallback in slow if fallback.reason is first.reason]
    more = f" and {len(same) - NAMED_PODS} more" if len(same) > NAMED_PODS else ""
    return "False", first.reason, f"{first.message}, in {', '.join(sorted(same)[:NAMED_PODS])}{more}"


def _fallback(spec: InferenceModelSpec, facts: EngineFacts) -> tuple[Reason, str] | None:
    if facts.device and facts.device.lower().split(":")[0] == CPU:
        asked = f"gpu.count asks for {spec.gpu.count} {spec.gpu.resource_name}"
        return Reason.CPU_FALLBACK, f"{asked}, but the engine runs on {_cut(facts.device)}"
    asked_for, real = spec.quantization, facts.quantization
    if asked_for and real and not _same(asked_for, real):
        return (
            Reason.PRECISION_FALLBACK,
            f"quantization asks for {asked_for}, but the engine runs with {_cut(real)}",
        )
    return None


def _same(asked: str, real: str) -> bool:
    asked, real = asked.lower(), real.lower()
    return asked == real or (asked == "none" and real in _NOT_QUANTIZED)


def _precision(facts: EngineFacts) -> str:
    return f"quantization {_cut(facts.quantization)}" if facts.quantization else "a precision that it does not tell"


def _cut(text: str | None) -> str:
    return (text or "")[:MAX_FACT_LENGTH]
