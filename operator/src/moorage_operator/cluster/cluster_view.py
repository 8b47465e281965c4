"""What is known of the cluster beyond one model: children and pods, nodes, who waits, who took whose place.

Fed by the watches; every event gives the models that must be looked at again.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from moorage_common.kube.resources import EVENTS, INFERENCE_MODELS, NODES, PODS, Resource
from moorage_operator.api.key import Key
from moorage_operator.cluster.nodes import Nodes
from moorage_operator.cluster.store import Store
from moorage_operator.scaling.scaler import Scaler
from moorage_operator.scaling.usage import Usage
from moorage_operator.status.observe import PodState
from moorage_operator.status.preemption import PodRef, told_by
from moorage_operator.status.waiting import Line, waiting

Object = dict[str, Any]

HELD_SECONDS: Final = 30.0
"""How long an Event that says what its pod does not say (yet) waits for it: they come by different watches."""
MOST_HELD: Final = 1024


class ClusterView:
    """The store of what belongs to models, the nodes, the line of those that wait, and how models are used.

    `sees_nodes`: whether the operator may see nodes. `moved` is given the models whose place in the line has changed
    because of another one.
    """

    def __init__(
        self,
        *,
        sees_nodes: bool = False,
        moved: Callable[[Iterable[Key]], None] = lambda _keys: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._moved = moved
        self._clock = clock
        self.store = Store()
        self.line: Line[Key] = Line()
        self.usage = Usage(clock)
        self.scaler = Scaler(self.usage, clock)
        self._nodes = Nodes() if sees_nodes else None
        self._early: list[Object] | None = []
        self._held: dict[str, tuple[float, Object]] = {}

    @property
    def most(self) -> dict[str, int] | None:
        """The most of each extended resource that one node has; None when the nodes cannot be seen."""
        return self._nodes.most if self._nodes else None

    @property
    def gpu_memory(self) -> Mapping[str, Mapping[int, int]]:
        """Bytes of one GPU by resource and by how many of it a node has; empty when the nodes cannot be seen."""
        return self._nodes.gpu_memory if self._nodes else {}

    def event(self, resource: Resource, kind: str | None, obj: Object) -> Iterable[Key]:
        """Takes in an event of a watch, `kind` as `watch.Sink` says; returns the models that it concerns."""
        if resource is INFERENCE_MODELS:
            key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
            return [key] if self.store.note_model(key, obj["metadata"]["resourceVersion"]) else []
        if resource is EVENTS:
            return self._told(obj) if kind != "DELETED" else []
        if resource is NODES:
            return self._node(kind, obj)
        taken_in = self.store.remove if kind == "DELETED" else self.store.put
        changed = taken_in(resource.kind, obj)
        if resource is PODS:
            self._heard(obj["metadata"]["uid"])
        return [changed] if changed else []

    def listed_nodes(self, names: set[str]) -> Iterable[Key]:
        """Takes in a full list of nodes."""
        return self.line.keys() if self._nodes and self._nodes.retain(names) else []

    def complete(self) -> Iterable[Key]:
        """Takes in that everything has been listed once; returns the models that early Events concern."""
        early, self._early = self._early or [], None
        return [key for event in early for key in self._told(event, early=True)]

    def stand(self, key: Key, pods: Iterable[PodState]) -> None:
        """Takes in all pods of a model; it may get, keep or leave a place in the line."""
        self._moved(self.line.update(key, waiting(pods, self.most)) - {key})

    def line_up(self) -> None:
        """Puts all who wait in line at once: one by one, the first would be told that nobody else waits."""
        for key in self.store.models():
            self.line.update(key, waiting(self._own_pods(key), self.most))

    def _own_pods(self, key: Key) -> list[PodState]:
        deployment = self.store.child(key, "Deployment")
        return [pod for pod in self.store.pods(key) if deployment and pod.model_uid == deployment.owner_uid]

    def _node(self, kind: str | None, node: Object) -> Iterable[Key]:
        if self._nodes is None:
            return []
        changed = self._nodes.remove(node["metadata"]["name"]) if kind == "DELETED" else self._nodes.put(node)
        # Who is told that no node has what it needs stands in no line, so all are looked at.
        return self.store.models() if changed else []

    def _told(self, event: Object, *, early: bool = False) -> Iterable[Key]:
        if self._early is not None:
            # The pods that it is about may not have been listed yet.
            self._early.append(event)
            return []
        if not (told := told_by(event)):
            return []
        victim, found = told
        key, taker = self._model_of(victim), self.store.model_of_pod(found.by)
        if key is None:
            return []
        said = self.store.said_preempted(victim.uid)
        if said is False:
            self._hold(victim, event)
        if not self._is_credible(victim, said, early=early):
            return []
        by = "/".join(taker) if taker else f"pod {found.by}"
        self.store.note_preemption(key, replace(found, by=by, vouched=bool(said)))
        return [key]

    def _is_credible(self, victim: PodRef, said: bool | None, *, early: bool) -> bool:
        """Whether the victim says so too, as anybody may write Events in a namespace who may edit it.

        What cannot be known of the pod, because it went while nobody watched, is believed; of a pod that was never
        seen, nothing is that was written since we watch.
        """
        return bool(said) or (said is None and (early or self.store.model_of_pod(victim.uid) is not None))

    def _hold(self, victim: PodRef, event: Object) -> None:
        """Keep an Event until its pod says so too: the scheduler marks the pod first, but it comes by another watch."""
        self._held[victim.uid] = self._clock() + HELD_SECONDS, event
        while len(self._held) > MOST_HELD:
            del self._held[next(iter(self._held))]

    def _heard(self, pod_uid: str) -> None:
        """A pod has said something: perhaps what an Event has said already."""
        if pod_uid in self._held and self.store.said_preempted(pod_uid):
            until, event = self._held.pop(pod_uid)
            if self._clock() <= until:
                self._told(event)

    def _model_of(self, pod: PodRef) -> Key | None:
        """The model of a pod that is perhaps gone: a Deployment names its pods NAME-REPLICASET-POD."""
        if found := self.store.model_of_pod(pod.uid):
            # An Event speaks for its own namespace, and of a pod by its name.
            return found if (found.namespace, self.store.pod_name(pod.uid)) == (pod.namespace, pod.name) else None
        named = Key(pod.namespace, pod.name.rsplit("-", 2)[0])
        return named if self.store.knows(named) else None
