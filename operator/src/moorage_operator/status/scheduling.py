"""Reads the messages of the scheduler and the API server about pods that cannot run. Pure.

The cause is only in the message. Messages of the scheduler are made by `FitError` in Kubernetes'
pkg/scheduler/framework/types.go (1.36), those of a quota, of Pod Security and of a LimitRange by the admission plugins
of these names.
"""

import re
from typing import Final

from moorage_operator.api.conditions import Problem, Reason

_INSUFFICIENT: Final = re.compile(r"Insufficient ([A-Za-z0-9][-A-Za-z0-9_./]*[A-Za-z0-9])")
_EVICTION: Final = "preemption:"
_CLAIMS: Final = "no new claims to deallocate, "
_CLAIM: Final = re.compile(r'persistentvolumeclaim "[^"]*" not found')
_REFUSALS: Final = (
    ("exceeded quota: ", Reason.QUOTA_EXCEEDED),
    ("violates PodSecurity ", Reason.POD_SECURITY_DENIED),
    ("usage per Container is ", Reason.LIMIT_RANGE_VIOLATED),
    ("usage per Pod is ", Reason.LIMIT_RANGE_VIOLATED),
)
_CHART: Final = "in the values of Moorage's chart"
_REMEDIES: Final = (
    (
        re.compile(r'RuntimeClass "[^"]*" not found'),
        f"create the RuntimeClass, or change runtime.runtimeClassNames {_CHART}",
    ),
    (
        re.compile(r"no PriorityClass with name \S+ was found"),
        f"create the PriorityClass, or set priorityClasses.create=true {_CHART}",
    ),
    (
        re.compile(r"security context constraint|\b(runAsUser|runAsGroup|fsGroup|supplementalGroups)\b"),
        "where the cluster assigns users and groups, set global.compatibility.openshift.adaptSecurityContext=force "
        + _CHART,
    ),
)
"""What to do about those that a setting of ours can end; the words are of admission plugins, of OpenShift, and those
that a policy cannot avoid."""


def lacks(message: str) -> tuple[str, ...]:
    """The resources that the scheduler found too little of, accelerators first; from its message about one pod."""
    # The rest of the message says in the same words why preemption would not help.
    return tuple(sorted(set(_INSUFFICIENT.findall(cause(message))), key=lambda name: ("/" not in name, name)))


def cause(message: str) -> str:
    """Why no node fits, from the scheduler's message, without its part on preemption."""
    return message.partition(_EVICTION)[0].removesuffix(_CLAIMS).rstrip(" ,.;")


def unschedulable(message: str) -> Problem:
    """Why a pod cannot be scheduled, when it is not for lack of GPUs."""
    if found := _CLAIM.search(message):
        return Problem(Reason.VOLUME_NOT_FOUND, f"{found.group()}: create it, or correct spec.source.uri")
    return Problem(Reason.UNSCHEDULABLE, message)


def refused(message: str) -> Problem:
    """Why the API server refuses to create pods."""
    reason = next((reason for words, reason in _REFUSALS if words in message), Reason.PODS_REFUSED)
    remedy = next((remedy for words, remedy in _REMEDIES if words.search(message)), None)
    return Problem(reason, f"{message}; {remedy}" if remedy and reason is Reason.PODS_REFUSED else message)
