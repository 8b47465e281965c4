"""Reads why the volumes of a scheduled pod are unavailable, which only Events on the pod report. Pure.

Anyone who may write Events in a namespace can forge them, so they only explain a pod that is seen to be stuck. https://kubernetes.io/docs/concepts/storage/persistent-volumes/
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from moorage_operator.api.conditions import Problem, Reason

STUCK_SECONDS: Final = 10
"""How long a pod may be on its way to its first container before the operator asks why."""

FAILED_ATTACH: Final = "FailedAttachVolume"
FAILED_MOUNT: Final = "FailedMount"

_ATTACHED_ELSEWHERE: Final = "Multi-Attach error"
_NO_CAUSE: Final = "Unable to attach or mount volumes"
"""How the kubelet begins when it only says that it waits; what it waits for is in another Event."""

_RECENT: Final = timedelta(minutes=5)
"""The kubelet tries again after 2 minutes at most, so what is older than this is over."""

_LIMIT: Final = 1024


def starting_since(conditions: Mapping[str, Mapping[str, Any]], status: Mapping[str, Any]) -> str | None:
    """Since when a pod is on its way from its node to its first container (RFC 3339); None when it is further."""
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    if any(not _not_yet(container) for container in containers):
        return None
    # The kubelet says so once volumes are mounted; pulling an image may take its time.
    if conditions.get("PodReadyToStartContainers", {}).get("status") == "True":
        return None
    return conditions.get("PodScheduled", {}).get("lastTransitionTime")


def _not_yet(container: Mapping[str, Any]) -> bool:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return waiting.get("reason") in ("ContainerCreating", "PodInitializing") and not container.get("restartCount")


def seconds_left(since: str, now: str) -> float:
    """The seconds until a pod that is on its way `since` then counts as stuck; 0 when it does."""
    try:
        age = (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()
    except (TypeError, ValueError):
        return STUCK_SECONDS
    return max(0.0, STUCK_SECONDS - age)


def problem_in(events: Iterable[Mapping[str, Any]]) -> Problem | None:
    """Why the volumes of one pod are not there, from the Events on it; None when none says so."""
    failures = [event for event in events if event.get("reason") in (FAILED_ATTACH, FAILED_MOUNT)]
    timed = [(time, event) for event in failures if (time := _time(event))]
    if not timed:
        return None
    newest = max(time for time, _ in timed)
    recent = [event for time, event in timed if newest - time <= _RECENT]
    # Always the same of several, whichever is the newest: a change of their order must not cause a write.
    chosen = min(recent, key=lambda event: (*_rank(event), event.get("message") or ""))
    return Problem(Reason.VOLUME_UNAVAILABLE, _cut(f"{chosen['reason']}: {chosen.get('message') or ''}"))


def _rank(event: Mapping[str, Any]) -> Sequence[bool]:
    words = event.get("message") or ""
    return (words.startswith(_NO_CAUSE), event["reason"] != FAILED_ATTACH)


def attached_elsewhere(problem: Problem | None) -> bool:
    """Whether a pod waits for a volume that is attached to another node."""
    return (
        problem is not None and problem.reason is Reason.VOLUME_UNAVAILABLE and _ATTACHED_ELSEWHERE in problem.message
    )


def _time(event: Mapping[str, Any]) -> datetime | None:
    time = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    try:
        found = datetime.fromisoformat(time or "")
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None


def _cut(text: str) -> str:
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"
