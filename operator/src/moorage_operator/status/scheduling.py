"""Reads the messages of the scheduler about pods that have no node. Pure.

The cause is only in the message, which `FitError` in Kubernetes' pkg/scheduler/framework/types.go (1.36) makes.
"""

import re
from typing import Final

from moorage_operator.api.conditions import Problem, Reason

_INSUFFICIENT: Final = re.compile(r"Insufficient ([A-Za-z0-9][-A-Za-z0-9_./]*[A-Za-z0-9])")
_EVICTION: Final = "preemption:"
_CLAIMS: Final = "no new claims to deallocate, "
_CLAIM: Final = re.compile(r'persistentvolumeclaim "[^"]*" not found')
_CLAIM_IN_USE: Final = re.compile(r"PersistentVolumeClaim with (the same name and )?ReadWriteOncePod access mode")
"""`… already in-use by another pod`, and of older versions `node has pod using …`."""


def lacks(message: str) -> tuple[str, ...]:
    """The resources that the scheduler found too little of, accelerators first; from its message about one pod."""
    # The rest of the message says in the same words why preemption would not help.
    return tuple(sorted(set(_INSUFFICIENT.findall(cause(message))), key=lambda name: ("/" not in name, name)))


def claim_in_use(message: str) -> bool:
    """Whether a pod waits for a claim that only one pod may have at a time (ReadWriteOncePod)."""
    return _CLAIM_IN_USE.search(cause(message)) is not None


def cause(message: str) -> str:
    """Why no node fits, from the scheduler's message, without its part on preemption."""
    return message.partition(_EVICTION)[0].removesuffix(_CLAIMS).rstrip(" ,.;")


def unschedulable(message: str) -> Problem:
    """Why a pod cannot be scheduled, when it is not for lack of GPUs."""
    if found := _CLAIM.search(message):
        return Problem(Reason.VOLUME_NOT_FOUND, f"{found.group()}: create it, or correct spec.source.uri")
    return Problem(Reason.UNSCHEDULABLE, message)
