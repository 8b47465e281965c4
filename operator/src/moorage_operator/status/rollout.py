"""Decides how a change of the spec reaches the pods when there is no room for an old and a new one. Pure."""

from collections.abc import Iterable

from moorage_operator.api.conditions import Reason
from moorage_operator.status.observe import DeploymentState, PodState
from moorage_operator.status.scheduling import refused


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
    over_quota = deployment.refused and refused(deployment.refused).reason is Reason.QUOTA_EXCEEDED
    starved = over_quota or any(pod.lacks and pod.revision == deployment.revision for pod in alive if not pod.scheduled)
    return bool(old) and bool(starved)
