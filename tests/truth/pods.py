"""Why pods do not run, in the words of docs/conditions.md: read from pods, and from what refused them. Pure."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from tests.truth import objects
from tests.truth.objects import Object
from tests.truth.world import World

STARTING: Final = "Starting"
NOT_PULLED: Final = {
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
    *("RegistryUnavailable", "SignatureValidationFailed"),
}
NOT_MADE: Final = {
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun"),
    *("PreCreateHookError", "PreStartHookError", "PostStartHookError"),
}
NO_ROOM: Final = {"WaitingForGPU", "Unschedulable", "NoSuchResource", "VolumeNotFound"}
REFUSED: Final = {"QuotaExceeded", "PodSecurityDenied", "LimitRangeViolated", "PodsRefused"}


@dataclass(frozen=True)
class Because:
    """Reasons why a model's pods do not answer, `maybe` those that may be told or left out.

    Several can be true at once, of several pods; the docs do not say which is told, so each is accepted.
    """

    surely: frozenset[str] = frozenset()
    maybe: frozenset[str] = frozenset()

    @property
    def any(self) -> frozenset[str]:
        """All that may be told."""
        return self.surely | self.maybe

    def __or__(self, other: "Because") -> "Because":
        return Because(self.surely | other.surely, self.maybe | other.maybe)

    def without(self, reasons: Iterable[str]) -> "Because":
        """Without some reasons."""
        dropped = frozenset(reasons)
        return Because(self.surely - dropped, self.maybe - dropped)


def because(*surely: str, maybe: Iterable[str] = ()) -> Because:
    """Shorter."""
    return Because(frozenset(surely), frozenset(maybe))


def lacks(words: str) -> list[str]:
    """The resources that no node has enough of, from the scheduler's words about one pod.

    >>> lacks("0/2 nodes: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes: 2 Insufficient x.")
    ['nvidia.com/gpu', 'cpu']
    """
    told = re.findall(r"Insufficient ([^\s,]+?)[.,]?(?=\s|$)", words.partition("preemption:")[0])
    # Accelerators are what people wait for; the docs know one line for each resource, so of several one is chosen.
    return sorted(set(told), key=lambda name: ("/" not in name, name))


def waiting(world: World, model: Object, pods: Iterable[Object], attainable: Callable[[str], float]) -> Because:
    """Why the scheduler has no node for pods; `attainable` is the most of a resource that a node may come to have."""
    found = because()
    for pod in pods:
        words = objects.refusal_of(pod)
        if words is not None:
            found |= _unscheduled(world, model, words, attainable)
    return found


def _unscheduled(world: World, model: Object, words: str, attainable: Callable[[str], float]) -> Because:
    gpu, uri = model["spec"].get("gpu") or {}, str(model["spec"]["source"]["uri"])
    resource, count = str(gpu.get("resourceName", "nvidia.com/gpu")), int(gpu.get("count") or 0)
    claim = f"{model['metadata']['namespace']}/{uri.removeprefix('pvc://').split('/')[0]}"
    if uri.startswith("pvc://") and claim not in world.claims:
        return because("VolumeNotFound")
    too_many = count > attainable(resource)
    if count and resource in lacks(words):
        return because("NoSuchResource" if too_many else "WaitingForGPU")
    # The scheduler names another cause for each node; that none has as many GPUs is true as well.
    return because("Unschedulable", maybe=["NoSuchResource"] if count and too_many else [])


def refused(replica_set: Object | None) -> Because:
    """Why the API server lets no pod of a ReplicaSet be made."""
    failure = objects.condition(replica_set, "ReplicaFailure") if replica_set else {}
    if failure.get("status") != "True":
        return because()
    words = str(failure.get("message", ""))
    if "exceeded quota" in words or "failed quota" in words:
        return because("QuotaExceeded")
    if "violates PodSecurity" in words:
        return because("PodSecurityDenied")
    limits = r"(minimum|maximum) .* usage per (Container|Pod)|limit to request ratio|less than or equal to cpu limit"
    if re.search(limits, words):
        return because("LimitRangeViolated")
    return because("PodsRefused")


def broken(pods: Iterable[Object]) -> Because:
    """What is wrong with the containers of pods that have a node."""
    found = because()
    for pod in pods:
        status = pod.get("status") or {}
        if objects.is_ready(pod):
            continue
        for container in status.get("containerStatuses") or ():
            found |= _wrong_with(container)
        for container in status.get("initContainerStatuses") or ():
            # One that fetches files has not come up because it runs; whether bytes come cannot be seen.
            found |= _wrong_with({**container, "started": False})
    return found


def without_volume(world: World, pods: Iterable[Object]) -> Because:
    """Why pods with a node have no container yet; that it lasts is told after 10 seconds, so it may be left out."""
    stuck = [pod for pod in pods if objects.node_of(pod) and not objects.has_begun(pod)]
    return because(maybe=["VolumeUnavailable"] if any(world.volume_events(pod) for pod in stuck) else [])


def starved(world: World, model: Object, new: Iterable[Object], old: Iterable[Object]) -> Because:
    """MakingRoom, surely or maybe, where new pods wait for what old ones hold."""
    failure = objects.condition(world.newest(model) or {}, "ReplicaFailure")
    if failure.get("status") == "True" and "exceeded quota" in str(failure.get("message")):
        return because("MakingRoom")
    held = {claim: objects.node_of(pod) for pod in old for claim in objects.claims_of(pod)}
    found = because()
    for pod in new:
        words, shared = objects.refusal_of(pod), objects.claims_of(pod) & held.keys()
        if words is not None and shared and "ReadWriteOncePod" in words.partition("preemption:")[0]:
            found |= because("MakingRoom")
        elsewhere = any(held[claim] != objects.node_of(pod) for claim in shared)
        if elsewhere and any("Multi-Attach" in told for told in world.volume_events(pod)):
            found |= because(maybe=["MakingRoom"])
    return found


def fetches(pod: dict[str, Any]) -> bool:
    """Whether the container runs that fetches the model's files."""
    containers: list[dict[str, Any]] = (pod.get("status") or {}).get("initContainerStatuses") or []
    return any(one["name"] == "fetch" and "running" in (one.get("state") or {}) for one in containers)


def _wrong_with(container: dict[str, Any]) -> Because:
    state: dict[str, Any] = container.get("state") or {}
    waits: str = (state.get("waiting") or {}).get("reason", "")
    if waits in NOT_PULLED:
        return because("ImagePullFailed")
    if waits in NOT_MADE:
        return because("ContainerConfigInvalid")
    if "terminated" in state:
        return _died(state["terminated"])
    last = _died((container.get("lastState") or {}).get("terminated") or {})
    if waits == "CrashLoopBackOff":
        return last if last.any else because("CrashLooping")
    # It tries again after a failure: the failure may be told until it has come up.
    return because() if container.get("started") else because(maybe=last.any)


def _died(ended: dict[str, Any]) -> Because:
    if not ended:
        return because()
    try:
        said = json.loads(ended.get("message") or "")
    except ValueError:
        said = None
    if isinstance(said, dict) and said.get("reason"):
        return because(str(said["reason"]))
    if ended.get("reason") in NOT_MADE:
        return because("ContainerConfigInvalid")
    if ended.get("reason") == "OOMKilled":
        return because("OutOfMemory")
    return because("CrashLooping") if ended.get("exitCode") else because(maybe=["CrashLooping"])
