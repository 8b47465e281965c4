"""The operator's view of the cluster: children and pods of models, nodes, the scheduling queue and preemptions.

Fed by the watches; each event returns the models to reconcile.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from typing import Any, Final

from kubernetes.aio.dynamic import Resource

from moorage_operator.api.key import Key
from moorage_operator.cluster.cache.nodes import Nodes
from moorage_operator.cluster.cache.store import Store
from moorage_operator.cluster.kinds import EVENTS, INFERENCE_MODELS, NODES, PODS
from moorage_operator.scaling.scaler import Scaler
from moorage_operator.scaling.usage import Usage
from moorage_operator.status.observe import PodState
from moorage_operator.status.preemption import PodRef, Preemption, preemption_from_event
from moorage_operator.status.queue import SchedulingQueue, queue_entry

Object = dict[str, Any]
Reported = tuple[PodRef, Preemption]
"""What an Event of a preemption says; the Event itself may be as large as an object can be."""

HELD_SECONDS: Final = 30.0
"""How long a preemption Event waits for the condition of its pod: they come by different watches, in any order."""
MOST_HELD: Final = 1024
"""Events that wait for that; and of each namespace, those that wait for the first lists."""


class ClusterView:
    """The store of what belongs to models, the nodes, the scheduling queue, and how models are used.

    `sees_nodes`: whether the operator may list nodes. `autoscaled_nodes`: whether nodes of any size may be added.
    `on_queue_change` is called with the models whose queue position has changed because of another model.
    """

    def __init__(
        self,
        *,
        sees_nodes: bool = False,
        autoscaled_nodes: bool = False,
        on_queue_change: Callable[[Iterable[Key]], None] = lambda _keys: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_queue_change = on_queue_change
        self._clock = clock
        self.store = Store()
        self.queue: SchedulingQueue[Key] = SchedulingQueue()
        self.usage = Usage(clock)
        self.scaler = Scaler(self.usage, clock)
        self._nodes = Nodes(clock) if sees_nodes else None
        self._autoscaled_nodes = autoscaled_nodes
        self._early_events: dict[str, deque[Reported]] | None = {}
        self._held_events: dict[str, tuple[float, Reported]] = {}
        self._nodes_lost = False

    @property
    def most(self) -> dict[str, int] | None:
        """The most of each extended resource that one node has; None when the nodes cannot be seen."""
        return self._nodes.most if self._nodes and not self._nodes_lost else None

    @property
    def attainable(self) -> dict[str, int] | None:
        """The most of each extended resource that one node can be hoped to have; None where that has no known end.

        What a node had in the last day may come back, even if no autoscaler is configured.
        """
        if self._nodes is None or self._nodes_lost or self._autoscaled_nodes:
            return None
        return self._nodes.most_lately()

    @property
    def gpu_memory(self) -> Mapping[str, Mapping[int, int]]:
        """Bytes of one GPU by resource and by how many of it a node has; empty when the nodes cannot be seen."""
        return self._nodes.gpu_memory if self._nodes and not self._nodes_lost else {}

    def event(self, resource: Resource, kind: str | None, obj: Object) -> Iterable[Key]:
        """Handles an event of a watch, `kind` as `listing.EventHandler` says; returns the models to reconcile."""
        if resource is INFERENCE_MODELS:
            metadata = obj["metadata"]
            key = Key(metadata["namespace"], metadata["name"])
            if kind == "DELETED":
                self.store.note_deleted(key, metadata["uid"])
                return [key]
            return [key] if self.store.note_model(key, metadata["uid"], metadata["resourceVersion"]) else []
        if resource is EVENTS:
            reported = preemption_from_event(obj) if kind != "DELETED" else None
            return self._preemption_event(reported) if reported else []
        if resource is NODES:
            return self._node(kind, obj)
        update = self.store.remove if kind == "DELETED" else self.store.put
        changed = update(resource.kind, obj)
        if resource is PODS:
            self._release_event(obj["metadata"]["uid"])
        return [changed] if changed else []

    def listed_nodes(self, uids: Set[str], version: int) -> Iterable[Key]:
        """Handles a full list of nodes at `version`."""
        returned, self._nodes_lost = self._nodes_lost, False
        changed = self._nodes is not None and self._nodes.retain(uids, version)
        return self.store.models() if returned else self.queue.keys() if changed else []

    def lost_nodes(self) -> Iterable[Key]:
        """Handles that nodes cannot be watched any more; until they are listed again nothing is said about them."""
        self._nodes_lost = True
        return self.store.models()

    def complete(self) -> Iterable[Key]:
        """Handles the end of the first lists; returns the models that the Events before it concern."""
        early, self._early_events = self._early_events or {}, None
        return [
            key for events in early.values() for event in events for key in self._preemption_event(event, early=True)
        ]

    def update_queue(self, key: Key, pods: Iterable[PodState]) -> None:
        """Updates the scheduling queue from all pods of a model."""
        self._on_queue_change(self.queue.update(key, queue_entry(pods, self.attainable)) - {key})

    def rebuild_queue(self, keys: Iterable[Key]) -> None:
        """Enters those of the models that wait at once: one by one, the first would get position 1 of 1."""
        attainable = self.attainable
        for key in keys:
            self.queue.update(key, queue_entry(self._own_pods(key), attainable))

    def _own_pods(self, key: Key) -> list[PodState]:
        deployment = self.store.child(key, "Deployment")
        return [pod for pod in self.store.pods(key) if deployment and pod.model_uid == deployment.owner_uid]

    def _node(self, kind: str | None, node: Object) -> Iterable[Key]:
        if self._nodes is None:
            return []
        changed = self._nodes.remove(node) if kind == "DELETED" else self._nodes.put(node)
        # A model that requests more than any node has is in no queue, so all models are looked at.
        return self.store.models() if changed else []

    def _preemption_event(self, event: Reported, *, early: bool = False) -> Iterable[Key]:
        victim, preemption = event
        if self._early_events is not None:
            # Its pods may not have been listed yet. Each namespace has a limit, for anybody may write Events in theirs.
            self._early_events.setdefault(victim.namespace, deque(maxlen=MOST_HELD)).append(event)
            return []
        key, preemptor = self._model_of(victim), self.store.model_of_pod(preemption.by)
        if key is None:
            return []
        marked = self.store.marked_preempted(victim.uid)
        if marked is False:
            self._hold_event(victim, event)
        if not self._is_credible(victim, marked, early=early):
            return []
        by = "/".join(preemptor) if preemptor else f"pod {preemption.by}"
        self.store.note_preemption(key, replace(preemption, by=by, confirmed=bool(marked)))
        return [key]

    def _is_credible(self, victim: PodRef, marked: bool | None, *, early: bool) -> bool:
        """Whether to believe an Event: anyone who may edit a namespace can write Events there.

        The pod's own condition confirms it. Where that is unknown, because the pod was deleted while nothing watched,
        the Event is believed; but not a new Event on a pod that was never seen.
        """
        return bool(marked) or (marked is None and (early or self.store.model_of_pod(victim.uid) is not None))

    def _hold_event(self, victim: PodRef, event: Reported) -> None:
        """Keeps an Event until the condition of its pod confirms it: the two come by different watches."""
        self._held_events[victim.uid] = self._clock() + HELD_SECONDS, event
        while len(self._held_events) > MOST_HELD:
            del self._held_events[next(iter(self._held_events))]

    def _release_event(self, pod_uid: str) -> None:
        """Handles the Event that was kept for a pod, if its condition now confirms it."""
        if pod_uid in self._held_events and self.store.marked_preempted(pod_uid):
            until, event = self._held_events.pop(pod_uid)
            if self._clock() <= until:
                self._preemption_event(event)

    def _model_of(self, pod: PodRef) -> Key | None:
        """The model of a pod that may be gone: a Deployment names its pods NAME-REPLICASET-POD."""
        if found := self.store.model_of_pod(pod.uid):
            # An Event is only valid for its own namespace, and for the pod of that name.
            return found if (found.namespace, self.store.pod_name(pod.uid)) == (pod.namespace, pod.name) else None
        named = Key(pod.namespace, pod.name.rsplit("-", 2)[0])
        return named if self.store.knows(named) else None
