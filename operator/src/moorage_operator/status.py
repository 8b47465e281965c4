"""Writes the status from what was observed: `status(model, observation, now)`. Pure.

Reads from top to bottom: each condition with its reasons, then the phase that sums them up. Nothing in a status
changes with the time alone, so a status that is unchanged need not be written.
"""

from typing import Any

from moorage_common.facts import Health
from moorage_common.facts import Phase as RuntimePhase
from moorage_operator.api.conditions import ConditionType, Phase, Reason
from moorage_operator.api.v1alpha1 import MAX_FACT_LENGTH, MAX_MESSAGE_LENGTH, InferenceModel
from moorage_operator.desired import names
from moorage_operator.observe import Observation, PodState, Problem

Verdict = tuple[str, Reason, str]
"""Status (True, False or Unknown), reason and message of a condition."""

_WAITING_FOR_RESOURCES = {Reason.WAITING_FOR_GPU, Reason.UNSCHEDULABLE, Reason.PODS_REFUSED}
_NOT_FAILED = {Reason.STARTING, Reason.LOADING, Reason.STOPPED, Reason.STOPPING}


def status(model: InferenceModel, seen: Observation, now: str) -> dict[str, Any]:
    """The whole status of `model`; `now` (RFC 3339) is the time of transitions."""
    pods = tuple(pod for pod in seen.pods if not pod.finished)
    ready = tuple(pod for pod in pods if pod.ready and not pod.terminating)
    current = _current(seen, pods)
    verdicts = {
        ConditionType.READY: _ready(model, seen, pods, ready),
        ConditionType.SCHEDULED: _scheduled(model, seen, current),
        ConditionType.MODEL_LOADED: _model_loaded(model, seen, current, ready),
        ConditionType.PROGRESSING: _progressing(model, seen, current),
    }
    resolved = _resolved(seen, _current(seen, ready) or ready)
    return {
        "phase": _phase(verdicts[ConditionType.READY]).value,
        "observedGeneration": model.metadata.generation,
        "replicas": len([pod for pod in pods if not pod.terminating]),
        "readyReplicas": len(ready),
        "selector": ",".join(f"{key}={value}" for key, value in names.selector(model.metadata.name).items()),
        "url": names.url(model),
        "servedName": model.served_name,
        **({"resolved": resolved} if resolved else {}),
        "conditions": [_condition(model, kind, verdict, now) for kind, verdict in verdicts.items()],
    }


def _current(seen: Observation, pods: tuple[PodState, ...]) -> tuple[PodState, ...]:
    """The pods of the spec as it is now; those of an earlier one may serve, but do not explain what is wrong now."""
    revision = seen.deployment.revision if seen.deployment else ""
    return tuple(pod for pod in pods if pod.revision == revision)


def _ready(
    model: InferenceModel, seen: Observation, pods: tuple[PodState, ...], ready: tuple[PodState, ...]
) -> Verdict:
    if ready:
        return "True", Reason.SERVING, f"{len(ready)} of {model.spec.replicas} replicas answer requests"
    if model.spec.replicas == 0 and not seen.blocked:
        if pods:
            return "False", Reason.STOPPING, f"{len(pods)} pods are finishing their requests"
        return "False", Reason.STOPPED, "spec.replicas is 0"
    current = _current(seen, pods)
    problem = _problem(model, seen, current)
    if problem:
        return "False", problem.reason, problem.message
    return "False", Reason.STARTING, _start_message(current)


def _start_message(pods: tuple[PodState, ...]) -> str:
    starting = [pod for pod in pods if not pod.terminating]
    if any(pod.running for pod in starting):
        return "the model is loading"
    if any(pod.scheduled for pod in starting):
        return "the container is being started"
    return "the pod has not been placed yet"


def _problem(model: InferenceModel, seen: Observation, pods: tuple[PodState, ...]) -> Problem | None:
    """What keeps the pods of the last change of the spec from getting on; the newest of them speaks."""
    if seen.blocked:
        return seen.blocked
    if seen.deployment and seen.deployment.refused:
        return Problem(Reason.PODS_REFUSED, seen.deployment.refused)
    if waiting := _waiting(model, pods):
        return waiting
    newest = max(pods, key=lambda pod: (not pod.terminating, pod.created, pod.name), default=None)
    return newest.problem if newest else None


def _waiting(model: InferenceModel, pods: tuple[PodState, ...]) -> Problem | None:
    """Why pods have no node, if the scheduler has said so."""
    pending = [pod for pod in pods if pod.unschedulable is not None and not pod.scheduled and not pod.terminating]
    if not pending:
        return None
    gpu, text = model.spec.gpu, pending[0].unschedulable or ""
    if gpu.count and f"Insufficient {gpu.resource_name}" in text:
        return Problem(Reason.WAITING_FOR_GPU, f"waiting for {gpu.count} {gpu.resource_name}: {text}")
    return Problem(Reason.UNSCHEDULABLE, text)


def _scheduled(model: InferenceModel, seen: Observation, pods: tuple[PodState, ...]) -> Verdict:
    wanted = model.spec.replicas
    placed = min(wanted, len([pod for pod in pods if pod.scheduled and not pod.terminating]))
    if wanted == 0:
        return "False", Reason.STOPPED, "spec.replicas is 0"
    if placed >= wanted:
        return "True", Reason.SCHEDULED, f"{placed} of {wanted} pods have a node"
    problem = seen.blocked or _waiting(model, pods)
    if not problem and seen.deployment and seen.deployment.refused:
        problem = Problem(Reason.PODS_REFUSED, seen.deployment.refused)
    if problem:
        return "False", problem.reason, problem.message
    return "False", Reason.STARTING, f"{placed} of {wanted} pods have a node"


def _model_loaded(
    model: InferenceModel, seen: Observation, pods: tuple[PodState, ...], ready: tuple[PodState, ...]
) -> Verdict:
    facts = _facts(seen, ready)
    if any(health and health.status is RuntimePhase.READY for health in facts):
        return "True", Reason.LOADED, "an engine has the model in memory"
    if ready:
        return "Unknown", Reason.FACTS_UNAVAILABLE, _why_no_facts(seen, facts)
    if model.spec.replicas == 0:
        return "False", Reason.UNLOADED, "spec.replicas is 0"
    problem = next((pod.problem for pod in pods if pod.problem and not pod.terminating), None)
    if problem:
        return "False", problem.reason, problem.message
    if any(pod.running and not pod.terminating for pod in pods):
        return "False", Reason.LOADING, "the model is loading"
    return "False", Reason.UNLOADED, "no engine runs"


def _why_no_facts(seen: Observation, facts: list[Health | None]) -> str:
    if seen.facts is None:
        return "pods are ready; the operator is set not to ask them what they run"
    if facts:
        return "pods are ready, but do not tell what they run"
    return "pods are ready and about to be asked what they run"


def _progressing(model: InferenceModel, seen: Observation, pods: tuple[PodState, ...]) -> Verdict:
    """Whether a change of the spec is on its way; a first start is a change too."""
    if seen.blocked:
        return "False", seen.blocked.reason, seen.blocked.message
    deployment = seen.deployment
    if deployment is None or not deployment.rolled_out:
        problem = _problem(model, seen, pods)
        if deployment and (deployment.stuck or (problem and problem.reason not in _WAITING_FOR_RESOURCES)):
            why = f"{problem.reason}: {problem.message}" if problem else deployment.stuck or ""
            return "False", Reason.ROLLOUT_STUCK, f"new pods do not get ready: {why}"
        return "True", Reason.ROLLING_OUT, "pods are being brought to the last change of the spec"
    return "False", Reason.COMPLETE, "all pods are as the spec says"


def _facts(seen: Observation, pods: tuple[PodState, ...]) -> list[Health | None]:
    """What the pods that were asked have said; None for one that did not answer."""
    return [seen.facts[pod.uid] for pod in pods if seen.facts and pod.uid in seen.facts]


def _resolved(seen: Observation, ready: tuple[PodState, ...]) -> dict[str, Any]:
    facts = next((health.facts for health in _facts(seen, ready) if health and health.facts), None)
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


def _phase(ready: Verdict) -> Phase:
    state, reason, _ = ready
    if state == "True":
        return Phase.RUNNING
    if reason in _WAITING_FOR_RESOURCES:
        return Phase.WAITING_FOR_RESOURCES
    if reason in _NOT_FAILED:
        return {Reason.STOPPED: Phase.STOPPED, Reason.STOPPING: Phase.STOPPING}.get(reason, Phase.STARTING)
    return Phase.FAILED


def _condition(model: InferenceModel, kind: ConditionType, verdict: Verdict, now: str) -> dict[str, Any]:
    state, reason, message = verdict
    before: dict[str, Any] = next((c for c in model.status.get("conditions", ()) if c.get("type") == kind), {})
    return {
        "type": kind.value,
        "status": state,
        "reason": reason.value,
        "message": message[:MAX_MESSAGE_LENGTH],
        "observedGeneration": model.metadata.generation,
        "lastTransitionTime": before["lastTransitionTime"] if before.get("status") == state else now,
    }
