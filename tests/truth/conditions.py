"""What each condition of an InferenceModel must say, from docs/conditions.md and what is true for its user. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Final

from tests.truth import memory, objects, pods
from tests.truth.expected import OneOf, verdicts
from tests.truth.memory import Past
from tests.truth.objects import Object
from tests.truth.pods import STARTING, Because
from tests.truth.world import World

JUDGED: Final = ("Ready", "Scheduled", "ModelLoaded", "Progressing", "Preempted")
FOR_KSTATUS: Final = ("Reconciling", "Stalled")
TRIED_AGAIN: Final = {"ImagePullFailed", "DownloadFailed", "CrashLooping", "VolumeUnavailable"}
"""What often passes by itself: not Stalled before the Deployment's deadline."""

NOT_JUDGED: Final = ("Accelerated", "FitsGPU")
"""What an engine says of itself, and an estimate: nothing in the cluster tells whether they are right."""


@dataclass(frozen=True)
class Case:
    """A model, the moment, and its past; `images` are the FRAMEWORK/DEVICE that there is a runtime image for."""

    world: World
    model: Object
    past: Past
    images: Collection[str] | None = None
    attainable: Callable[[str], float] = lambda _resource: inf
    """The most of a resource that a node has, or may come to have."""

    @cached_property
    def wanted(self) -> int:
        """The pods that the spec asks for."""
        return memory.wanted(self.world, self.model)

    @cached_property
    def asleep(self) -> bool:
        """Whether it has no pods because nobody used it."""
        spec = self.model["spec"]
        return self.wanted == 0 and bool(spec.get("scaling")) and not spec.get("suspend")

    @cached_property
    def pods(self) -> list[Object]:
        """All pods that are not finished, those that are ending too."""
        return self.world.pods(self.model)

    @cached_property
    def staying(self) -> list[Object]:
        """The pods that are not ending."""
        return [pod for pod in self.pods if not objects.is_ending(pod)]

    @cached_property
    def ready(self) -> list[Object]:
        """The pods that answer requests."""
        return [pod for pod in self.pods if objects.is_ready(pod)]

    @cached_property
    def current(self) -> list[Object]:
        """The staying pods of the spec as it is now."""
        return [pod for pod in self.staying if self.is_current(pod)]

    def is_current(self, pod: Object) -> bool:
        """Whether a pod is of the spec as it is now."""
        newest = self.world.newest(self.model)
        return newest is not None and objects.controller(pod) == objects.uid(newest)

    @cached_property
    def blocked(self) -> frozenset[str]:
        """Why nothing can be made for the model at all."""
        spec = self.model["spec"]
        device = "gpu" if (spec.get("gpu") or {}).get("count") else "cpu"
        no_image = self.images is not None and f"{spec['framework']}/{device}" not in self.images
        if no_image:
            return frozenset({"NoImageForDevice"})
        return frozenset({"NameConflict"} if self.world.strangers(self.model) else ())

    @cached_property
    def no_room(self) -> Because:
        """Why the pods of the spec as it is now have no node, or cannot be made."""
        return pods.waiting(self.world, self.model, self.current, self.attainable) | pods.refused(
            self.world.newest(self.model)
        )

    @cached_property
    def broken(self) -> Because:
        """What is wrong inside them."""
        return pods.broken(self.current) | pods.without_volume(self.world, self.current)

    @cached_property
    def some_starting(self) -> bool:
        """Whether one of them is merely on its way."""
        fine = [pod for pod in self.current if objects.refusal_of(pod) is None and not pods.broken([pod]).surely]
        return any(not objects.is_ready(pod) for pod in fine)

    @cached_property
    def fetching(self) -> bool:
        """Whether one of them fetches the model's files."""
        return any(pods.fetches(pod) for pod in self.current)

    @cached_property
    def loading(self) -> bool:
        """Whether a container runs in one of them."""
        return any(_runs(pod) for pod in self.current)


def expected(case: Case) -> Mapping[str, OneOf]:
    """Status and reason of every condition that is judged."""
    judges = (_ready, _scheduled, _model_loaded, _progressing, _preempted)
    return {kind: judge(case) for kind, judge in zip(JUDGED, judges, strict=True)}


def _ready(case: Case) -> OneOf:
    if case.ready:
        stuck = {entry[0] == "False" and entry[1] != "Complete" for entry in _pairs(_progressing(case))}
        return verdicts(("True", {"RolloutStuck" if one else "Serving" for one in stuck}))
    if case.wanted == 0:
        if case.asleep and not case.blocked:
            # Whether a gateway would wake it is nothing that an object tells.
            return verdicts(("True", {"Sleeping"}), ("False", {"NoGateway"}))
        if case.asleep:
            return verdicts(("False", case.blocked))
        # What would keep it from running keeps nobody from anything while it is to be stopped.
        return verdicts(("False", {"Stopping"} if case.pods else {"Stopped"}))
    return verdicts(("False", case.blocked or _reasons(case, case.no_room | case.broken)))


def _reasons(case: Case, why: Because) -> frozenset[str]:
    on_its_way = {STARTING} if case.some_starting or not why.surely else set()
    return why.any | on_its_way


def _scheduled(case: Case) -> OneOf:
    if case.wanted == 0:
        return verdicts(("False", case.blocked or {"Sleeping"} if case.asleep else {"Stopped"}))
    if len([pod for pod in case.current if objects.node_of(pod)]) >= case.wanted:
        return verdicts(("True", {"Scheduled"}))
    return verdicts(("False", case.blocked or _reasons(case, case.no_room)))


def _model_loaded(case: Case) -> OneOf:
    if case.ready:
        # That the probe is answered means that the model is loaded; whether the engine was asked cannot be seen.
        return verdicts(("True", {"Loaded"}), ("Unknown", {"FactsUnavailable"}))
    under_way = ({"Loading"} if case.loading else set()) | ({"Downloading"} if case.fetching else set())
    if case.broken.surely or under_way:
        return verdicts(("False", case.broken.any | under_way))
    if any(_runs(pod) for pod in case.pods if objects.is_ending(pod)):
        # The engine is there until its last request is answered: "no engine runs" would be false.
        return verdicts(("False", case.broken.maybe | {"Stopping"}))
    return verdicts(("False", case.broken.maybe | {"Unloaded"}))


def _progressing(case: Case) -> OneOf:
    if case.blocked:
        return verdicts(("False", case.blocked))
    complete = verdicts(("False", {"Complete"}))
    if memory.all_arrived(case.world, case.model):
        return complete
    if case.past.arrived == case.model["metadata"]["generation"] and len(case.current) == len(case.staying):
        return complete  # a pod that is lost later is no change of the spec
    if case.past.short is not False and len(case.current) == len(case.staying) and _was_available(case):
        # It had arrived for a moment; whether the status could say so before the loss is a matter of milliseconds.
        return OneOf(complete.values + _on_its_way(case).values)
    return _on_its_way(case)


def _was_available(case: Case) -> bool:
    """Whether the Deployment says that its newest pods were available once; it says so until its template changes."""
    deployment = case.world.deployment(case.model) or {}
    settled = (deployment.get("status") or {}).get("observedGeneration") == deployment.get("metadata", {}).get(
        "generation"
    )
    return settled and objects.condition(deployment, "Progressing").get("reason") == "NewReplicaSetAvailable"


def for_kstatus(case: Case, progressing: object) -> Mapping[str, OneOf]:
    """Reconciling and Stalled, one of which is there while a change is not rolled out, given what Progressing says."""
    true = _progressing(case)
    reconciling, stalled, none = set[str](), set[str](), False
    # Where Progressing is false, that is found already.
    for state, reason in _pairs(OneOf((progressing, *(() if true.allows(progressing) else true.values)))):
        if state == "True":
            reconciling.add(reason)
        elif reason == "Complete" or (case.wanted == 0 and not case.asleep):
            none = True
        else:
            reconciling |= (
                {reason} if case.broken.any & TRIED_AGAIN and not case.blocked and not _is_late(case) else set()
            )
            stalled |= set() if case.broken.any and case.broken.any <= TRIED_AGAIN and not _is_late(case) else {reason}
    return {
        "Reconciling": _present(reconciling, absent=none or bool(stalled)),
        "Stalled": _present(stalled, absent=none or bool(reconciling)),
    }


def _present(reasons: set[str], *, absent: bool) -> OneOf:
    return OneOf((*(("True", reason) for reason in sorted(reasons)), *((None,) if absent else ())))


def _pairs(said: OneOf) -> list[tuple[str, str]]:
    return [(str(entry[0]), str(entry[1])) for entry in said.values if isinstance(entry, tuple)]


def _is_late(case: Case) -> bool:
    deployment = case.world.deployment(case.model) or {}
    return objects.condition(deployment, "Progressing").get("reason") == "ProgressDeadlineExceeded"


def _on_its_way(case: Case) -> OneOf:
    deployment = case.world.deployment(case.model) or {"spec": {}}
    moving = _moving(case, deployment)
    late = _is_late(case)
    if case.broken.surely or (late and not case.no_room.any):
        on = ("True", moving if (case.some_starting and not late) or case.no_room.any else set[str]())
        return verdicts(("False", {"RolloutStuck"}), on)
    # Who waits for room is not stuck, however long it takes.
    told = {"RolloutStuck"} if case.broken.any or case.no_room.any & pods.REFUSED else set[str]()
    return verdicts(("True", moving), ("False", told))


def _moving(case: Case, deployment: Object) -> set[str]:
    """How the change gets on: beside the old pods, or after one of them has made room."""
    surge = (deployment["spec"].get("strategy") or {}).get("rollingUpdate", {}).get("maxSurge", 1)
    old = [pod for pod in case.staying if not case.is_current(pod) and objects.node_of(pod)]
    if surge == 0:
        return {"MakingRoom"} if old else {"MakingRoom", "RollingOut"}
    starved = pods.starved(case.world, case.model, case.current, old)
    if old and (starved.surely or "WaitingForGPU" in case.no_room.surely):
        return {"MakingRoom"}
    return {"RollingOut", *(starved.maybe if old else ())}


def _preempted(case: Case) -> OneOf:
    past = case.past
    if not past.preemptions:
        return verdicts(("False", {"Never"}))
    back = len(memory.standing(case.world, case.model, past)) >= case.wanted
    if back or past.short is False:
        return verdicts(("False", {"Recovered"}))
    if past.short is None:
        return verdicts(("True", {"Preempted"}), ("False", {"Recovered"}))
    return verdicts(("True", {"Preempted"}))


def _runs(pod: Object) -> bool:
    containers: list[Object] = (pod.get("status") or {}).get("containerStatuses") or []
    return any("running" in (container.get("state") or {}) for container in containers)
