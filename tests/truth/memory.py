"""What has happened, as far as it has been watched: preemptions, and which changes of a spec were rolled out.

Objects show the present; preempted pods are soon gone. A model whose preemptions are older than the
cluster's Events (an hour) and than this memory cannot be judged by it.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from tests.truth import objects
from tests.truth.objects import Object
from tests.truth.world import World

_WORDS: Final = re.compile(r"Preempted by pod (?P<by>\S+) on node (?P<node>\S+)")


@dataclass
class Preemption:
    """`pod` was preempted on `node` by the pod of uid `preemptor`, at one of `times`; unknown while empty."""

    pod: str
    times: set[datetime] = field(default_factory=set)
    node: str = ""
    preemptor: str = ""

    @property
    def latest(self) -> datetime:
        """The time by which preemptions are ordered."""
        return max(self.times)


@dataclass
class Past:
    """What has happened to one model."""

    preemptions: dict[str, Preemption] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)
    short: bool | None = False
    """Whether replicas are missing after a preemption; None: all were ready for a moment, perhaps unseen."""

    arrived: int = 0
    """The generation of the last spec that is known to have reached all pods, and whose status has said so.

    0 when their number has changed since.
    """

    arrived_pods: int = 0
    """How many pods those were."""


class Memory:
    """Feed it every World in turn; it is asked about models by their uid."""

    def __init__(self) -> None:
        self._models: dict[str, str] = {}
        self._replica_sets: dict[str, str] = {}
        self._replica_set_names: dict[str, str] = {}
        self._pods: dict[str, str] = {}
        self._past: defaultdict[str, Past] = defaultdict(Past)
        self._most: dict[str, int] = {}

    def past(self, model: Object) -> Past:
        """What has happened to a model."""
        return self._past[objects.uid(model)]

    def most(self, resource: str) -> int:
        """The most of a resource that one node has had so far; no memory is older than a day."""
        return self._most.get(resource, 0)

    def preemptor(self, preemption: Preemption) -> str:
        """The preemptor, as a status names it: NAMESPACE/NAME of a model, or `pod UID`."""
        owner = self._pods.get(preemption.preemptor)
        return self._models[owner] if owner else f"pod {preemption.preemptor}" if preemption.preemptor else ""

    def see(self, world: World) -> None:
        """Take in a moment."""
        self._note_owners(world)
        for resource in world.resources:
            self._most[resource] = max(self.most(resource), world.most(resource))
        alive = {objects.uid(pod) for pod in world.found["Pod"] if not objects.is_victim(pod)}
        for pod in world.found["Pod"]:
            owner = self._pods.get(objects.uid(pod))
            if owner and objects.is_victim(pod):
                time = objects.condition(pod, "DisruptionTarget")["lastTransitionTime"]
                self._note_preemption(owner, pod["metadata"]["name"], time, node=objects.node_of(pod))
        for event in world.found["Event"]:
            self._note_event(event, alive)
        for model in world.models:
            self._follow(world, model)

    def _note_owners(self, world: World) -> None:
        self._models |= {objects.uid(model): objects.name_of(model) for model in world.found["InferenceModel"]}
        deployments = {objects.uid(one): objects.controller(one) for one in world.found["Deployment"]}
        for replica_set in world.found["ReplicaSet"]:
            model = deployments.get(objects.controller(replica_set), "")
            if model in self._models:
                self._replica_sets[objects.uid(replica_set)] = model
                self._replica_set_names[objects.name_of(replica_set)] = model
        for pod in world.found["Pod"]:
            if owner := self._replica_sets.get(objects.controller(pod)):
                self._pods[objects.uid(pod)] = owner

    def _note_event(self, event: Object, alive: set[str]) -> None:
        victim, words = event.get("involvedObject") or {}, _WORDS.fullmatch(event.get("message") or "")
        if event.get("reason") != "Preempted" or victim.get("kind") != "Pod" or words is None:
            return
        if victim.get("uid") in alive:
            return  # anyone may write Events; the condition of the pod decides
        named = f"{victim.get('namespace')}/{str(victim.get('name')).rsplit('-', 1)[0]}"
        owner = self._pods.get(str(victim.get("uid"))) or self._replica_set_names.get(named)
        time = event.get("eventTime") or event.get("lastTimestamp") or event["metadata"].get("creationTimestamp")
        if owner and time:
            self._note_preemption(owner, str(victim["name"]), time, words["node"], words["by"])

    def _note_preemption(self, owner: str, pod: str, time: str, node: str = "", preemptor: str = "") -> None:
        preemption = self._past[owner].preemptions.setdefault(pod, Preemption(pod))
        preemption.times.add(datetime.fromisoformat(time))
        preemption.node, preemption.preemptor = node or preemption.node, preemptor or preemption.preemptor

    def _follow(self, world: World, model: Object) -> None:
        past, said = self.past(model), objects.as_map((model.get("status") or {}).get("conditions") or ())
        if past.preemptions.keys() - past.counted:
            past.short = True
            past.counted |= past.preemptions.keys()
        if len(standing(world, model, past)) >= wanted(world, model):
            has_said = said.get("Preempted", {}).get("reason") == "Recovered"
            past.short = False if has_said or past.short is False else None
        complete = said.get("Progressing", {})
        generation = model["metadata"]["generation"]
        told = complete.get("reason") == "Complete" and complete.get("observedGeneration") == generation
        if told and all_arrived(world, model):
            past.arrived, past.arrived_pods = generation, wanted(world, model)
        if wanted(world, model) != past.arrived_pods:
            past.arrived = 0


def asked(model: Object) -> int:
    """The pods that a spec without scaling asks for."""
    return 0 if model["spec"].get("suspend") else int(model["spec"].get("replicas", 1))


def wanted(world: World, model: Object) -> int:
    """The pods that there are to be. With scaling the Deployment says it, within the bounds of the spec."""
    scaling = model["spec"].get("scaling")
    if not scaling or model["spec"].get("suspend"):
        return asked(model)
    least, most = scaling.get("minReplicas", 1), scaling.get("maxReplicas", 1)
    deployment = world.deployment(model)
    chosen = max(1, least) if deployment is None else int(deployment["spec"].get("replicas", 1))
    return int(max(least, min(chosen, most)))


def standing(world: World, model: Object, past: Past) -> list[Object]:
    """The ready pods that go on being so."""
    pods = [pod for pod in world.pods(model) if objects.is_ready(pod) and not objects.is_victim(pod)]
    return [pod for pod in pods if pod["metadata"]["name"] not in past.preemptions]


def all_arrived(world: World, model: Object) -> bool:
    """Whether all pods are of the template as it is now, as many as wanted, and ready."""
    newest = world.newest(model)
    deployment = world.deployment(model)
    pods = [pod for pod in world.pods(model) if not objects.is_ending(pod)]
    if deployment is None or (newest is None and pods):
        return False
    settled = (deployment.get("status") or {}).get("observedGeneration") == deployment["metadata"]["generation"]
    as_told = deployment["spec"].get("replicas", 1) == wanted(world, model) == len(pods)
    of_newest = all(newest and objects.controller(pod) == objects.uid(newest) for pod in pods)
    return settled and as_told and of_newest and all(objects.is_ready(pod) for pod in pods)
