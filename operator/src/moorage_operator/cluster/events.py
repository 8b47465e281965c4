"""Records Kubernetes Events on InferenceModels, for `kubectl describe`. An Event that cannot be written is only logged.

The name of an Event is a hash of its cause, so that the same cause is recorded once, also after a restart.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from moorage_operator.api.conditions import Phase
from moorage_operator.api.key import Key
from moorage_operator.api.v1alpha1 import API_VERSION, KIND
from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.errors import ApiError, ConflictError, NotFoundError, UnavailableError
from moorage_operator.cluster.kinds import EVENTS, FIELD_MANAGER, INFERENCE_MODELS
from moorage_operator.desired.drift import digest

log = logging.getLogger(__name__)

NOTE_LIMIT: Final = 1024
"""Characters of an Event's message (https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/)."""


@dataclass(frozen=True)
class Event:
    """An Event on a model. `cause` identifies what it reports: two Events of one reason and cause are the same."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    cause: str


def event_manifest(namespace: str, name: str, uid: str, event: Event, now: str) -> dict[str, Any]:
    """The manifest of an Event on the InferenceModel of that name and uid."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{digest([uid, event.reason, event.cause])}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:NOTE_LIMIT],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def sleep_event(before: Mapping[str, Any], after: Mapping[str, Any], *, asleep: bool) -> Event | None:
    """The Event for a model that goes to sleep or is woken between two statuses."""
    ready: Mapping[str, Any] = after["conditions"][0]
    if after["phase"] == Phase.SLEEPING != before.get("phase"):
        return Event("Normal", "Sleeping", ready["message"], ready["lastTransitionTime"])
    if before.get("phase") == Phase.SLEEPING != after["phase"] and not asleep:
        message = "A request through the gateway waits for the model, or scaling.minReplicas was raised"
        return Event("Normal", "Woken", message, ready["lastTransitionTime"])
    return None


class EventRecorder:
    """Writes Events to the API server."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def record(self, key: Key, uid: str, event: Event, now: str) -> None:
        """Writes an Event on a model; does nothing if it was written before."""
        try:
            await self._kube.create(EVENTS, event_manifest(key.namespace, key.name, uid, event, now))
        except ConflictError:
            return  # recorded before
        except (ApiError, UnavailableError) as error:
            _log_failure(key, error)

    async def record_by_name(self, key: Key, event: Event, now: str) -> None:
        """Writes an Event on a model whose uid is not at hand; does nothing if the model is gone."""
        try:
            model = await self._kube.get(INFERENCE_MODELS, key.namespace, key.name)
        except NotFoundError:
            return
        except (ApiError, UnavailableError) as error:
            _log_failure(key, error)
            return
        await self.record(key, model["metadata"]["uid"], event, now)


def _log_failure(key: Key, error: Exception) -> None:
    log.warning("failed to record an Event", extra={"model": "/".join(key), "error": str(error)})
