"""The conditions of a status, each with its reasons: functions of a `View`. Pure."""

from moorage_common.facts import Health
from moorage_common.facts import Phase as RuntimePhase
from moorage_operator.api.conditions import ConditionType, Reason
from moorage_operator.status.view import WAITING_FOR_RESOURCES, Verdict, View


def ready(view: View) -> Verdict:
    """Whether a request that is sent now is answered."""
    if view.ready:
        return "True", Reason.SERVING, f"{len(view.ready)} of {view.wanted} replicas answer requests"
    if view.asleep:
        return _sleeping(view)
    staying = any(not pod.terminating for pod in view.pods)
    if view.stopped and not (view.seen.blocked and staying):
        if view.pods:
            return "False", Reason.STOPPING, f"{len(view.pods)} pods are finishing their requests"
        return "False", Reason.STOPPED, _why_stopped(view)
    if view.problem:
        return "False", view.problem.reason, view.problem.message
    return "False", Reason.STARTING, _start_message(view)


def _sleeping(view: View) -> Verdict:
    idle = view.model.spec.scaling.sleeps_after if view.model.spec.scaling else ""
    if view.seen.woken:
        return (
            "True",
            Reason.SLEEPING,
            f"without use for {idle}; the next request through the gateway wakes it, and waits",
        )
    return "False", Reason.NO_GATEWAY, "the model sleeps, and there is no gateway that would wake it"


def _why_stopped(view: View) -> str:
    if view.deleted:
        return "the model is being deleted"
    return "spec.suspend is true" if view.model.spec.suspend else "spec.replicas is 0"


def _start_message(view: View) -> str:
    starting = [pod for pod in view.current if not pod.terminating]
    if any(pod.running for pod in starting):
        return "the model is loading"
    if view.download:
        return f"the model is being fetched: {view.download}"
    if any(pod.scheduled for pod in starting):
        return "the container is being started"
    return "the pod has not been placed yet"


def scheduled(view: View) -> Verdict:
    """Whether every wanted pod has a node."""
    wanted = view.wanted
    placed = min(wanted, len([pod for pod in view.current if pod.scheduled and not pod.terminating]))
    if view.asleep:
        return "False", Reason.SLEEPING, "the model sleeps"
    if view.stopped:
        return "False", Reason.STOPPED, _why_stopped(view)
    if placed >= wanted > 0:
        return "True", Reason.SCHEDULED, f"{placed} of {wanted} pods have a node"
    if problem := view.seen.blocked or view.waiting or view.refused:
        return "False", problem.reason, problem.message
    return "False", Reason.STARTING, f"{placed} of {wanted} pods have a node"


def model_loaded(view: View) -> Verdict:
    """Whether an engine has the model in memory."""
    if view.ready:
        return _told(view)
    return _not_loaded(view)


def _not_loaded(view: View) -> Verdict:
    problems = [view.problem_of(pod) for pod in view.current if not pod.terminating]
    if problem := next((problem for problem in problems if problem), None):
        return "False", problem.reason, problem.message
    if any(pod.running and not pod.terminating for pod in view.current):
        return "False", Reason.LOADING, "the model is loading"
    if view.download:
        return "False", Reason.DOWNLOADING, view.download
    if any(pod.running and pod.terminating for pod in view.pods):
        return "False", Reason.STOPPING, "the engines that run are finishing their requests"
    if view.asleep:
        return "False", Reason.UNLOADED, "the model sleeps"
    return "False", Reason.UNLOADED, _why_stopped(view) if view.stopped else "no engine runs"


def _told(view: View) -> Verdict:
    """What the pods that are ready say."""
    facts = view.facts(view.ready)
    states = {health.status for health in facts if health}
    if RuntimePhase.READY in states:
        return "True", Reason.LOADED, "an engine has the model in memory"
    if RuntimePhase.UNLOADED in states:
        return "False", Reason.UNLOADED, "unloaded after an idle time; the next request loads it again, and waits"
    return _loaded_before(view) or ("Unknown", Reason.FACTS_UNAVAILABLE, _why_no_facts(view, facts))


def _loaded_before(view: View) -> Verdict | None:
    before = view.verdict_before(ConditionType.MODEL_LOADED) if view.about_to_tell else None
    return before if before and before[0] == "True" else None


def _why_no_facts(view: View, facts: list[Health | None]) -> str:
    if view.seen.facts is None:
        return "pods are ready; the operator is set not to ask them what they run"
    if facts:
        return "pods are ready, but do not tell what they run"
    return "pods are ready and about to be asked what they run"


def progressing(view: View) -> Verdict:
    """Whether a change of the spec is on its way; a first start is a change too."""
    blocked, deployment = view.seen.blocked, view.seen.deployment
    if blocked:
        return "False", blocked.reason, blocked.message
    if deployment and deployment.rolled_out:
        return "False", Reason.COMPLETE, "all pods are as the spec says"
    if view.arrived:
        return "False", Reason.COMPLETE, "the last change of the spec has reached all pods"
    # Who waits for room is not stuck, however long it takes.
    problem = view.problem
    why = f"{problem.reason}: {problem.message}" if problem else deployment.stuck if deployment else None
    if deployment and why and not (problem and problem.reason in WAITING_FOR_RESOURCES):
        return "False", Reason.ROLLOUT_STUCK, f"new pods do not get ready: {why}"
    if deployment and deployment.makes_room:
        dark = "; with one replica, the model does not answer meanwhile" if view.wanted == 1 else ""
        return "True", Reason.MAKING_ROOM, f"no room for a new pod beside the old ones, so an old one ends first{dark}"
    return "True", Reason.ROLLING_OUT, "pods are being brought to the last change of the spec"


def preempted(view: View) -> Verdict:
    """Whether a pod of this model lost its place and the model has not recovered."""
    if not view.preemption:
        return "False", Reason.NEVER, "no replica has ever lost its place"
    last = view.preemption["last"]
    by, node = last["by"] or "a pod of higher priority", f" on {last['node']}" if last["node"] else ""
    lost = f"{last['pod']} lost its place{node} to {by} at {last['time']}"
    if view.preempted:
        return "True", Reason.PREEMPTED, f"{lost}; {len(view.ready)} of {view.wanted} replicas answer requests"
    return "False", Reason.RECOVERED, f"all replicas are back; {lost}"
