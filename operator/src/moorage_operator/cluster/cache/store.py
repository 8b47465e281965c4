"""The Deployments, Services and pods of models, as the watches have last reported them.

It is fed by watch events, by full lists (which also tell what is gone) and by the answers to our own writes, in any
order: an object that is older than what is known is ignored.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from moorage_common.labels import MODEL_LABEL
from moorage_operator.api.key import Key
from moorage_operator.api.v1alpha1 import MAX_PREEMPTIONS
from moorage_operator.cluster.cache.child import Child, child_of
from moorage_operator.cluster.cache.reports import Reports
from moorage_operator.status.observe import PodState, pod_state
from moorage_operator.status.preemption import Preemption

GONE_KEPT: Final = 4096
"""How many deleted objects are remembered, so that no late event restores one."""


@dataclass
class _Model:
    uid: str | None = None
    version: int = 0
    children: dict[str, Child] = field(default_factory=dict)
    pods: dict[str, PodState] = field(default_factory=dict)
    replica_sets: dict[str, str] = field(default_factory=dict)
    preemptions: dict[str, Preemption] = field(default_factory=dict)
    written: str | None = None
    ending: str | None = None

    def __post_init__(self) -> None:
        self.reports = Reports(self.pods)


class _GonePod(NamedTuple):
    key: Key
    name: str
    marked_preempted: bool | None
    """None when its deletion was not seen."""


def key_of(kind: str, obj: Mapping[str, Any]) -> Key | None:
    """The model that an object belongs to: by name for a child, whatever its labels are; by label for a pod."""
    metadata = obj["metadata"]
    name = (metadata.get("labels") or {}).get(MODEL_LABEL) if kind == "Pod" else metadata["name"]
    return Key(metadata["namespace"], name) if name else None


class Store:
    """The last known state of everything that belongs to InferenceModels."""

    def __init__(self) -> None:
        self._models: dict[Key, _Model] = {}
        self._pod_versions: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._pod_keys: dict[str, Key] = {}
        self._gone_pods: dict[str, _GonePod] = {}

    def models(self) -> list[Key]:
        """The models that are known, or that something is left of."""
        return list(self._models)

    def knows(self, key: Key) -> bool:
        """Whether the model is known, or something is left of it."""
        return key in self._models

    def note_model(self, key: Key, uid: str, version: str) -> bool:
        """Notes that the model exists; False when the event only reflects our own last write."""
        model = self._models.setdefault(key, _Model())
        model.uid, model.version = uid, int(version)
        return model.written != version

    def note_deleted(self, key: Key, uid: str) -> None:
        """Notes that the model of that uid is gone; one that is known by another uid is a new one of its name."""
        model = self._models.get(key)
        if model and model.uid == uid:
            model.uid = model.written = None
            model.preemptions = {}
            self._drop_if_empty(key)

    def retain_models(self, uids: Set[str], namespace: str | None, version: int) -> None:
        """Notes that models are gone that a full list of `namespace` at `version` did not have."""
        for key, model in list(self._models.items()):
            if namespace in (None, key.namespace) and model.uid and model.uid not in uids and model.version <= version:
                self.note_deleted(key, model.uid)

    def _drop_if_empty(self, key: Key) -> None:
        model = self._models[key]
        if model.uid is None and not (model.children or model.pods or model.preemptions):
            del self._models[key]

    def note_written(self, key: Key, version: str) -> None:
        """Keeps the resourceVersion of our last write to the model's status."""
        self._models.setdefault(key, _Model()).written = version

    def note_ending(self, key: Key, uid: str) -> None:
        """Keeps that the model goes with its namespace, which nothing can stop."""
        self._models.setdefault(key, _Model()).ending = uid

    def is_ending(self, key: Key, uid: str) -> bool:
        """Whether the model of that uid goes with its namespace."""
        model = self._models.get(key)
        return model is not None and model.ending == uid

    def child(self, key: Key, kind: str) -> Child | None:
        """The live child of that kind, if one is known."""
        model = self._models.get(key)
        return model.children.get(kind) if model else None

    def pods(self, key: Key) -> tuple[PodState, ...]:
        """The pods of a model, oldest first; an earlier model of that name may have left some."""
        model = self._models.get(key)
        return tuple(sorted(model.pods.values(), key=lambda pod: (pod.created, pod.name))) if model else ()

    def pod(self, key: Key, uid: str) -> PodState | None:
        """One pod of a model."""
        model = self._models.get(key)
        return model.pods.get(uid) if model else None

    def model_of_pod(self, uid: str) -> Key | None:
        """The model that a pod belongs to by its label, or belonged to before it was deleted."""
        gone = self._gone_pods.get(uid)
        return self._pod_keys.get(uid) or (gone.key if gone else None)

    def pod_name(self, uid: str) -> str | None:
        """The name of a pod, also of one that is gone."""
        if key := self._pod_keys.get(uid):
            return self._models[key].pods[uid].name
        gone = self._gone_pods.get(uid)
        return gone.name if gone else None

    def is_ready(self, pod_uid: str) -> bool:
        """Whether that is a pod of a model, and ready."""
        key = self._pod_keys.get(pod_uid)
        return key is not None and self._models[key].pods[pod_uid].ready

    def marked_preempted(self, uid: str) -> bool | None:
        """Whether the condition of a pod says that it was preempted; None if its last state was not seen."""
        if key := self._pod_keys.get(uid):
            return self._models[key].pods[uid].preempted is not None
        gone = self._gone_pods.get(uid)
        return gone.marked_preempted if gone else None

    def preemptions(self, key: Key) -> tuple[Preemption, ...]:
        """The last preemptions of pods of a model."""
        model = self._models.get(key)
        return tuple(model.preemptions.values()) if model else ()

    def preemption_confirmed(self, key: Key, pod: str) -> bool:
        """Whether the condition of a preempted pod has confirmed its preemption."""
        model = self._models.get(key)
        found = model.preemptions.get(pod) if model else None
        return found is not None and found.confirmed

    def note_preemption(self, key: Key, found: Preemption) -> None:
        """Keeps the preemption of a pod; completes what is known of the same pod."""
        kept = self._models.setdefault(key, _Model()).preemptions
        before = kept.pop(found.pod, None)
        kept[found.pod] = before.completed_by(found) if before else found
        while len(kept) > MAX_PREEMPTIONS:
            del kept[next(iter(kept))]

    def reports(self, key: Key) -> Reports:
        """What the pods of a model have reported; nothing, for a model that is not known."""
        model = self._models.get(key)
        return model.reports if model else Reports({})

    def owner_of_replica_set(self, key: Key, uid: str) -> str | None:
        """The uid of the Deployment that a ReplicaSet was last seen to belong to."""
        model = self._models.get(key)
        return model.replica_sets.get(uid) if model else None

    def note_replica_set(self, key: Key, uid: str, owner_uid: str) -> None:
        """Keeps the owner of a ReplicaSet; forgets ReplicaSets without pods."""
        model = self._models.setdefault(key, _Model())
        alive = {pod.replica_set_uid for pod in model.pods.values()}
        model.replica_sets = {known: owner for known, owner in model.replica_sets.items() if known in alive}
        model.replica_sets[uid] = owner_uid

    def put(self, kind: str, obj: Mapping[str, Any]) -> Key | None:
        """Stores a live object; returns its model, or None when nothing relevant changed."""
        key, version = key_of(kind, obj), int(obj["metadata"]["resourceVersion"])
        if version < self._gone.get(obj["metadata"]["uid"], -1):
            return None
        if kind == "Pod":
            return self._put_pod(key, version, obj)
        if key is None:
            return None
        known = self.child(key, kind)
        if known and known.version >= version:
            return None
        found = child_of(kind, version, obj)
        self._models.setdefault(key, _Model()).children[kind] = found
        # Controllers write counters and times that nothing here depends on.
        return None if known and replace(found, version=known.version) == known else key

    def _put_pod(self, key: Key | None, version: int, obj: Mapping[str, Any]) -> Key | None:
        uid, state = obj["metadata"]["uid"], pod_state(obj)
        if self._pod_versions.get(uid, -1) >= version:
            return None
        if (before := self._pod_keys.get(uid)) and (before != key or not state.replica_set_uid):
            # Its labels were changed, or its ReplicaSet has released it for that reason.
            self._forget_pod(before, uid, marked_preempted=state.preempted is not None)
            return before
        if key is None or not state.replica_set_uid:
            return None  # it has our label, but is no pod of ours
        self._pod_versions[uid] = version
        model = self._models.setdefault(key, _Model())
        changed = model.pods.get(uid) != state
        model.pods[uid] = state
        if not state.downloading:
            model.reports.downloads.pop(uid, None)
        self._pod_keys[uid] = key
        self._note_own_preemption(key, state)
        return key if changed else None

    def _note_own_preemption(self, key: Key, pod: PodState) -> None:
        if pod.preempted is not None:
            self.note_preemption(key, Preemption(pod.name, pod.preempted, pod.node))

    def remove(self, kind: str, obj: Mapping[str, Any]) -> Key | None:
        """Removes an object that is gone; returns its model."""
        key = key_of(kind, obj)
        if key is None or key not in self._models:
            return None
        uid = obj["metadata"]["uid"]
        # A list, or the answer to a write, that is older than this may still be on its way. What is not older is true:
        # an object that loses our label is gone for a watch by label, in the version that it has from then on.
        self._note_gone(uid, int(obj["metadata"]["resourceVersion"]))
        if kind == "Pod":
            state = pod_state(obj)
            self._note_own_preemption(key, state)
            self._forget_pod(key, uid, marked_preempted=state.preempted is not None)
        elif (child := self.child(key, kind)) and child.uid == uid:
            del self._models[key].children[kind]
        self._drop_if_empty(key)
        return key

    def forget_child(self, key: Key, kind: str) -> None:
        """Drops a child, so that the next reconcile reads it from the API server."""
        if model := self._models.get(key):
            model.children.pop(kind, None)

    def forget(self, key: Key) -> None:
        """Drops a model that is gone."""
        for uid, pod in list(self._models[key].pods.items()) if key in self._models else ():
            # The pod may outlive its model, and belong to a new model of the same name.
            self._forget_pod(key, uid, marked_preempted=pod.preempted is not None)
        self._models.pop(key, None)

    def retain(self, kind: str, uids: Set[str], namespace: str | None, version: int) -> set[Key]:
        """Drops objects of `kind` that a full list of `namespace` at `version` did not have.

        What is newer than the list was made after it, and stays. Returns the models that lost an object. News that is
        older than the list may still come: kopf hands events on later than it hears of them.
        """
        lost = set[Key]()
        for key, model in list(self._models.items()):
            if namespace not in (None, key.namespace):
                continue
            if kind == "Pod":
                gone = [uid for uid in model.pods if uid not in uids and self._pod_versions[uid] <= version]
                for uid in gone:
                    self._forget_pod(key, uid)
                    self._note_gone(uid, version)
            else:
                child = model.children.get(kind)
                gone = [child.uid] if child and child.uid not in uids and child.version <= version else []
                if child and gone:
                    del model.children[kind]
                    # Not the list's version: a child that has lost our label is in no list, and is read when missed.
                    self._note_gone(child.uid, child.version + 1)
            if gone:
                lost.add(key)
                self._drop_if_empty(key)
        return lost

    def _note_gone(self, uid: str, version: int) -> None:
        """Keeps that an object is gone, so that nothing older than `version` brings it back."""
        self._gone[uid] = version
        _forget_oldest(self._gone)

    def _forget_pod(self, key: Key, uid: str, *, marked_preempted: bool | None = None) -> None:
        pod = self._models[key].pods.pop(uid, None)
        self._models[key].reports.forget(uid)
        self._pod_versions.pop(uid, None)
        if self._pod_keys.pop(uid, None):
            self._gone_pods[uid] = _GonePod(key, pod.name if pod else "", marked_preempted)
            _forget_oldest(self._gone_pods)


def _forget_oldest(kept: dict[str, Any]) -> None:
    while len(kept) > GONE_KEPT:
        del kept[next(iter(kept))]
