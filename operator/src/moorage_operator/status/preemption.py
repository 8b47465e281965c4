"""Reads preemptions by the scheduler, and keeps their history in a status. Pure.

The scheduler reports each of them twice: the condition DisruptionTarget of the preempted pod says that and when, and an
Event on that pod says by which pod and where, in words (`Preempted by pod UID on node NODE`).
https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from moorage_operator.api.v1alpha1 import MAX_PREEMPTIONS

EVENT_REASON: Final = "Preempted"
UNKNOWN: Final = ""
_EVENT_MESSAGE: Final = re.compile(r"Preempted by pod ([0-9A-Za-z-]{1,64}) on node ([a-z0-9.-]{1,253})")
_MOST_UID: Final = 64
_POD_NAME: Final = re.compile(r"[a-z0-9.-]{1,253}")


@dataclass(frozen=True)
class PodRef:
    """A pod by namespace, name and uid."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Preemption:
    """`pod` was preempted on `node` at `time` (RFC 3339, whole seconds) by `by`.

    `by` is a model as NAMESPACE/NAME, or a pod of another workload as `pod UID`, or empty while unknown.
    """

    pod: str
    time: str
    node: str = ""
    by: str = UNKNOWN
    confirmed: bool = True
    """Whether the condition of the pod itself confirms it; an Event alone can be written by anyone who may edit the
    namespace."""

    def completed_by(self, later: "Preemption") -> "Preemption":
        """This, with what `later` adds: the condition of the pod comes first, the Event soon after."""
        confirmed = self.confirmed or later.confirmed
        return Preemption(self.pod, self.time, self.node or later.node, self.by or later.by, confirmed)

    def entry(self) -> dict[str, str]:
        """The entry in the status."""
        # The texts of an Event are not limited in length; those of the status are.
        return {"time": self.time, "pod": self.pod[:253], "node": self.node[:253], "by": self.by[:512]}


def preemption_from_event(event: Mapping[str, Any]) -> tuple[PodRef, Preemption] | None:
    """The preempted pod and the preemption that an Event reports, with the uid of the preempting pod as `by`; None for
    any other Event."""
    victim, match = event.get("involvedObject") or {}, _EVENT_MESSAGE.fullmatch(event.get("message") or "")
    if event.get("reason") != EVENT_REASON or victim.get("kind") != "Pod" or match is None:
        return None
    if victim.get("namespace") != event["metadata"]["namespace"]:
        return None  # the API server requires this of most Events, not of all
    # creationTimestamp is the only one of its times that the API server sets; the others are the client's.
    time = event["metadata"].get("creationTimestamp") or ""
    pod = PodRef(*(str(victim.get(field) or "") for field in ("namespace", "name", "uid")))
    if not _POD_NAME.fullmatch(pod.name) or len(pod.uid) > _MOST_UID:
        return None
    by, node = match.groups()
    return pod, Preemption(pod.name, time, node, by)


def preemption_status(before: Mapping[str, Any], found: Iterable[Preemption]) -> dict[str, Any]:
    """`status.preemption`, given its last value and preemptions of which it may know some; empty if there are none."""
    history: list[dict[str, str]] = [dict(entry) for entry in before.get("history") or ()]
    count = int(before.get("count") or 0)
    for preemption in sorted(found, key=lambda preemption: preemption.time):
        known = next((entry for entry in history if entry["pod"] == preemption.pod), None)
        if known:
            # Only fills gaps: after a restart, an old Event may name a pod that the operator no longer knows.
            known |= {key: value for key, value in preemption.entry().items() if not known[key]}
        elif len(history) < MAX_PREEMPTIONS or preemption.time > history[-1]["time"]:
            history = sorted([preemption.entry(), *history], key=lambda entry: entry["time"], reverse=True)
            history = history[:MAX_PREEMPTIONS]
            count += 1
    return {"count": count, "last": history[0], "history": history} if history else {}


def new_entries(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, str]]:
    """The entries of `after` that `before` does not have, or has without the preemptor, oldest first."""
    known = {(entry["pod"], entry["by"]) for entry in before.get("history") or ()}
    return [entry for entry in reversed(after.get("history") or ()) if (entry["pod"], entry["by"]) not in known]
