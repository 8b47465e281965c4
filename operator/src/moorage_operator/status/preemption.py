"""Reads who took whose place, and keeps the account of it in a status. Pure.

The scheduler tells it twice: the victim's condition DisruptionTarget says that and when, and an Event on the victim
says for whom and where, in words (`Preempted by pod UID on node NODE`).
https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from moorage_operator.api.v1alpha1 import MAX_PREEMPTIONS

EVENT_REASON: Final = "Preempted"
UNKNOWN: Final = ""
_WORDS: Final = re.compile(r"Preempted by pod ([0-9A-Za-z-]{1,64}) on node ([a-z0-9.-]{1,253})")
_POD_NAME: Final = re.compile(r"[a-z0-9.-]{1,253}")


@dataclass(frozen=True)
class PodRef:
    """A pod by its address."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Preemption:
    """`pod` lost its place on `node` at `time` (RFC 3339, whole seconds) to `by`.

    `by` is a model as NAMESPACE/NAME, or a pod that is none of ours as `pod UID`, or empty while only the victim has
    been seen.
    """

    pod: str
    time: str
    node: str = ""
    by: str = UNKNOWN
    vouched: bool = True
    """Whether the pod was seen to say so itself; an Event of a pod that nobody has seen may be anybody's."""

    def completed_by(self, later: "Preemption") -> "Preemption":
        """This, with what `later` knows beyond it: the pod's condition comes first, the Event soon after."""
        vouched = self.vouched or later.vouched
        return Preemption(self.pod, self.time, self.node or later.node, self.by or later.by, vouched)

    def entry(self) -> dict[str, str]:
        """What the status says of it."""
        # An Event's texts are bounded by nothing; the status is.
        return {"time": self.time, "pod": self.pod[:253], "node": self.node[:253], "by": self.by[:512]}


def told_by(event: Mapping[str, Any]) -> tuple[PodRef, Preemption] | None:
    """The victim, and what an Event tells of it, `by` being the preemptor's uid; None for another Event."""
    victim, words = event.get("involvedObject") or {}, _WORDS.fullmatch(event.get("message") or "")
    if event.get("reason") != EVENT_REASON or victim.get("kind") != "Pod" or words is None:
        return None
    if victim.get("namespace") != event["metadata"]["namespace"]:
        return None  # an Event speaks for its own namespace only; the API server sees to it, for most
    # The only one of its times that the API server has written, and not whoever made the Event.
    time = event["metadata"].get("creationTimestamp") or ""
    pod = PodRef(*(str(victim.get(field) or "") for field in ("namespace", "name", "uid")))
    if not _POD_NAME.fullmatch(pod.name):
        return None
    by, node = words.groups()
    return pod, Preemption(pod.name, time, node, by)


def account(before: Mapping[str, Any], news: Iterable[Preemption]) -> dict[str, Any]:
    """`status.preemption` after `news`, which may hold what is known already; empty when nothing ever happened."""
    history: list[dict[str, str]] = [dict(entry) for entry in before.get("history") or ()]
    count = int(before.get("count") or 0)
    for found in sorted(news, key=lambda preemption: preemption.time):
        known = next((entry for entry in history if entry["pod"] == found.pod), None)
        if known:
            # Only what was not known: after a restart, an old Event may be of a pod that nobody remembers.
            known |= {key: value for key, value in found.entry().items() if not known[key]}
        elif len(history) < MAX_PREEMPTIONS or found.time > history[-1]["time"]:
            history = sorted([found.entry(), *history], key=lambda entry: entry["time"], reverse=True)[:MAX_PREEMPTIONS]
            count += 1
    return {"count": count, "last": history[0], "history": history} if history else {}


def news_in(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, str]]:
    """The entries of `after` that `before` did not have, or did not know the preemptor of, oldest first."""
    known = {(entry["pod"], entry["by"]) for entry in before.get("history") or ()}
    return [entry for entry in reversed(after.get("history") or ()) if (entry["pod"], entry["by"]) not in known]
