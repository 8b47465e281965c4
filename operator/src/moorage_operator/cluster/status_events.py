"""Records the Events that go with a new status: preemptions, going to sleep and being woken, conditions that fail."""

from collections.abc import Mapping
from typing import Any

from moorage_operator.api.key import Key
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.cluster.cache.store import Store
from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.events import Event, EventRecorder, sleep_event
from moorage_operator.metrics import PREEMPTIONS
from moorage_operator.status.condition_events import condition_events
from moorage_operator.status.observe import Observation
from moorage_operator.status.preemption import new_entries
from moorage_operator.status.texts import printable


class StatusEvents:
    """Writes the Events that a status is the cause of; `store` knows which preemptions are confirmed."""

    def __init__(self, kube: Kube, store: Store) -> None:
        self._recorder = EventRecorder(kube)
        self._store = store

    async def record(
        self, key: Key, model: InferenceModel, seen: Observation, after: Mapping[str, Any], now: str
    ) -> None:
        """Records what is new in `after`, a status that is about to be written."""
        await self._record_preemptions(key, model, after, now)
        if event := sleep_event(model.status, after, asleep=seen.replicas == 0):
            await self._recorder.record(key, model.metadata.uid, event, now)
        for found in condition_events(model, seen, after):
            event = Event(found.type, found.reason, printable(found.message), found.cause)
            await self._recorder.record(key, model.metadata.uid, event, now)

    def count(self, key: Key, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Counts what is new in `after`, a status that was written: one that is refused is written again."""
        found = new_entries(before.get("preemption") or {}, after.get("preemption") or {})
        if named := sum(bool(entry["by"]) for entry in found):
            PREEMPTIONS.labels(*key).inc(named)

    async def _record_preemptions(self, key: Key, model: InferenceModel, after: Mapping[str, Any], now: str) -> None:
        """Records each new preemption on the preempted model and on the preemptor."""
        for entry in new_entries(model.status.get("preemption") or {}, after.get("preemption") or {}):
            if not entry["by"]:
                continue  # the scheduler's Event, which names the preemptor, is on its way
            pod, on = entry["pod"], f" on node {entry['node']}" if entry["node"] else ""
            victim = Event("Warning", "Preempted", f"Pod {pod} was preempted by {entry['by']}{on}", pod)
            await self._recorder.record(key, model.metadata.uid, victim, now)
            if not entry["by"].startswith("pod ") and self._store.preemption_confirmed(key, pod):
                preemptor = Event("Normal", "Preempting", f"Preempted pod {pod} of {'/'.join(key)}{on}", pod)
                await self._recorder.record_by_name(Key(*entry["by"].split("/", 1)), preemptor, now)
