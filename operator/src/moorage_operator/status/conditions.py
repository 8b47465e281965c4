"""The conditions of a status, each with its reasons: functions of a `View`. Pure."""

from moorage_common.facts import Health
from moorage_common.facts import Phase as RuntimePhase
from moorage_operator.api.conditions import ConditionType, Reason
from moorage_operator.status.texts import counted
from moorage_operator.status.view import WAITING_FOR_RESOURCES, ConditionValue, View
from moorage_operator.status.volumes import attached_elsewhere


def ready(view: View) -> ConditionValue:
    """Whether a request that is sent now gets a response."""
    if view.ready:
        return _serving(view)
    if view.asleep:
        return _sleeping(view)
    staying = any(not pod.terminating for pod in view.pods)
    if view.stopped and not (view.seen.blocked and staying):
        if view.pods:
            return "False", Reason.STOPPING, f"Waiting for {counted(len(view.pods), 'pod')} to terminate"
        return "False", Reason.STOPPED, _why_stopped(view)
    if view.problem:
        return "False", view.problem.reason, view.problem.message
    failed = f"; the previous pod failed: {view.failure}" if view.failure else ""
    return "False", Reason.STARTING, f"{_start_message(view)}{failed}"


def _serving(view: View) -> ConditionValue:
    """What ready pods serve may be the spec of before, if a change is stuck behind them."""
    if not is_stuck(view):
        return "True", Reason.SERVING, _ready_replicas(view)
    _, reason, message = progressing(view)
    why = message if reason is Reason.ROLLOUT_STUCK else f"{reason}: {message}"
    return "True", Reason.ROLLOUT_STUCK, f"{_ready_replicas(view)}; the last change is not rolled out: {why}"


def _sleeping(view: View) -> ConditionValue:
    idle = view.model.spec.scaling.sleeps_after if view.model.spec.scaling else ""
    if view.seen.woken:
        return (
            "True",
            Reason.SLEEPING,
            f"Scaled to zero after {idle} without requests; the next request through the gateway wakes the model",
        )
    return "False", Reason.NO_GATEWAY, "Scaled to zero, and no gateway serves the model that could wake it"


def _why_stopped(view: View) -> str:
    if view.deleted:
        return "The model is being deleted"
    return "spec.suspend is true" if view.model.spec.suspend else "spec.replicas is 0"


def _start_message(view: View) -> str:
    starting = [pod for pod in view.current if not pod.terminating]
    if any(pod.running for pod in starting):
        return "Loading the model"
    if view.download:
        return view.download
    if any(pod.scheduled for pod in starting):
        return "Starting the container"
    return "The pod is not scheduled yet"


def scheduled(view: View) -> ConditionValue:
    """Whether all replicas are scheduled."""
    desired = view.desired_replicas
    bound = min(desired, len([pod for pod in view.current if pod.scheduled and not pod.terminating]))
    if view.asleep:
        return "False", Reason.SLEEPING, "Scaled to zero"
    if view.stopped:
        return "False", Reason.STOPPED, _why_stopped(view)
    if bound >= desired > 0:
        return "True", Reason.SCHEDULED, f"{bound} of {desired} replicas scheduled"
    if problem := view.seen.blocked or view.waiting or view.refused:
        return "False", problem.reason, problem.message
    return "False", Reason.STARTING, f"{bound} of {desired} replicas scheduled"


def model_loaded(view: View) -> ConditionValue:
    """Whether an engine has the model in memory."""
    if view.ready:
        return _reported(view)
    return _not_loaded(view)


def _not_loaded(view: View) -> ConditionValue:
    problems = [view.problem_of(pod) for pod in view.current if not pod.terminating]
    if problem := next((problem for problem in problems if problem), None):
        return "False", problem.reason, problem.message
    if any(pod.running and not pod.terminating for pod in view.current):
        return "False", Reason.LOADING, "Loading the model"
    if view.download:
        return "False", Reason.DOWNLOADING, view.download
    if any(pod.running and pod.terminating for pod in view.pods):
        return "False", Reason.STOPPING, "Waiting for running engines to finish their requests"
    if view.asleep:
        return "False", Reason.UNLOADED, "Scaled to zero"
    return "False", Reason.UNLOADED, _why_stopped(view) if view.stopped else "No engine is running"


def _reported(view: View) -> ConditionValue:
    """What the ready pods report."""
    facts = view.facts(view.ready)
    states = {health.status for health in facts if health}
    if RuntimePhase.READY in states:
        return "True", Reason.LOADED, "The engine has the model in memory"
    if RuntimePhase.UNLOADED in states:
        return "False", Reason.UNLOADED, "Unloaded after its idle time; the next request loads the model again"
    return _loaded_before(view) or ("Unknown", Reason.FACTS_UNAVAILABLE, _why_no_facts(view, facts))


def _loaded_before(view: View) -> ConditionValue | None:
    before = view.value_before(ConditionType.MODEL_LOADED) if view.facts_pending else None
    return before if before and before[0] == "True" else None


def _why_no_facts(view: View, facts: list[Health | None]) -> str:
    if view.seen.facts is None:
        return "Pods are ready; the operator is configured not to query them"
    if facts:
        return "Pods are ready, but do not report what they run"
    return "Pods are ready, but the operator has not queried them yet"


def progressing(view: View) -> ConditionValue:
    """Whether a change of the spec is being rolled out; a first start is a change too."""
    blocked, deployment = view.seen.blocked, view.seen.deployment
    if blocked:
        return "False", blocked.reason, blocked.message
    if deployment and deployment.rolled_out:
        return "False", Reason.COMPLETE, f"All replicas are updated to generation {view.model.metadata.generation}"
    if view.arrived:
        return "False", Reason.COMPLETE, f"Generation {view.model.metadata.generation} was rolled out to all replicas"
    problem = view.problem
    why = f"{problem.reason}: {problem.message}" if problem else deployment.stuck if deployment else None
    if deployment and why and not _waits_for_room(view):
        return "False", Reason.ROLLOUT_STUCK, f"New pods do not become ready: {why}"
    if deployment and deployment.makes_room:
        return "True", Reason.MAKING_ROOM, _making_room(view)
    return "True", Reason.ROLLING_OUT, _rolling_out(view)


def _making_room(view: View) -> str:
    unavailable = "; the model is unavailable until the new pod is ready" if view.desired_replicas == 1 else ""
    return f"The old pods hold what a new pod needs; an old pod is terminated first{unavailable}"


def _rolling_out(view: View) -> str:
    # Only ready ones count: pods come and go in moments, and each other message is a write.
    generation, desired = view.model.metadata.generation, view.desired_replicas
    updated = min(desired, len([pod for pod in view.ready if pod in view.current]))
    return f"Rolling out generation {generation}: {updated} of {desired} replicas updated"


def _waits_for_room(view: View) -> bool:
    """Whether the rollout is not stuck, however long it takes: it waits for resources, or for a volume's detachment."""
    problem, deployment = view.problem, view.seen.deployment
    if problem is None or problem.reason in WAITING_FOR_RESOURCES:
        return problem is not None
    making = deployment is not None and deployment.makes_room and not deployment.stuck
    return making and attached_elsewhere(problem)


def is_stuck(view: View) -> bool:
    """Whether a change of the spec is not rolled out, for whatever reason, while nothing is on its way."""
    state, reason, _ = progressing(view)
    return state == "False" and reason is not Reason.COMPLETE


def preempted(view: View) -> ConditionValue:
    """Whether a pod of this model was preempted and the model has not recovered."""
    if not view.preemption:
        return "False", Reason.NEVER, "No replicas have been preempted"
    last = view.preemption["last"]
    by, node = last["by"] or "a pod of higher priority", f" on node {last['node']}" if last["node"] else ""
    preemption = f"pod {last['pod']} was preempted by {by}{node} at {last['time']}"
    if view.preempted:
        return "True", Reason.PREEMPTED, f"P{preemption[1:]}; {_ready_replicas(view)}"
    return "False", Reason.RECOVERED, f"All replicas have recovered; {preemption}"


def _ready_replicas(view: View) -> str:
    return f"{len(view.ready)} of {view.desired_replicas} replicas ready"
