"""Decides how a change of the spec reaches the pods when there is no room for an old and a new one. Pure."""

from collections.abc import Iterable

from moorage_operator.status.observe import DeploymentState, PodState
from moorage_operator.status.refusals import over_quota
from moorage_operator.status.scheduling import claim_in_use
from moorage_operator.status.volumes import attached_elsewhere


def makes_room(deployment: DeploymentState | None, pods: Iterable[PodState]) -> bool:
    """Whether an old pod must end before a new one starts, given the Deployment as it is and all pods of the model.

    So it is once a new pod waits for what old pods hold, until the change is complete; a new pod that fails for another
    reason never costs an old one.
    """
    if deployment is None or deployment.rolled_out:
        return False
    if deployment.makes_room:
        return True
    alive = [pod for pod in pods if not (pod.terminating or pod.finished)]
    old = [pod for pod in alive if pod.revision != deployment.revision and pod.scheduled]
    new = [pod for pod in alive if pod.revision == deployment.revision]
    if old and deployment.refused and over_quota(deployment.refused):
        return True
    return any(_waits_for(pod, old) for pod in new)


def _waits_for(pod: PodState, old: Iterable[PodState]) -> bool:
    """Whether a new pod waits for what a pod of `old` holds: resources, or the volume of the same claim."""
    if pod.lacks and not pod.scheduled:
        return any(old)
    holders = [other for other in old if pod.claim and other.claim == pod.claim]
    if not pod.scheduled:
        return bool(holders) and claim_in_use(pod.unschedulable or "")
    return attached_elsewhere(pod.problem) and any(other.node != pod.node for other in holders)
