"""Writes Kubernetes Events on InferenceModels, for `kubectl describe`. An Event that cannot be written stops nothing.

Their names are made from what they tell, so that whatever is told twice is one Event.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from moorage_common.kube.client import Kube
from moorage_common.kube.errors import ApiError, ConflictError, NotFoundError, UnavailableError
from moorage_common.kube.resources import EVENTS, INFERENCE_MODELS
from moorage_operator.api.conditions import Phase
from moorage_operator.api.key import Key
from moorage_operator.api.v1alpha1 import API_VERSION, KIND
from moorage_operator.cluster.kinds import FIELD_MANAGER
from moorage_operator.desired.drift import digest

log = logging.getLogger(__name__)

NOTE_LIMIT: Final = 1024
"""Characters of an Event's message (https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/)."""


@dataclass(frozen=True)
class Announcement:
    """What is told of a model: `subject` names the occasion, and is the same whenever that is told again."""

    level: Literal["Normal", "Warning"]
    reason: str
    message: str
    subject: str


def event(namespace: str, name: str, uid: str, told: Announcement, now: str) -> dict[str, Any]:
    """The Event on the InferenceModel of that name and uid."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{digest([uid, told.reason, told.subject])}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
        "type": told.level,
        "reason": told.reason,
        "message": told.message[:NOTE_LIMIT],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def slept_or_woke(before: Mapping[str, Any], wanted: Mapping[str, Any], *, asleep: bool) -> Announcement | None:
    """What there is to tell of a model that went to sleep, or was woken."""
    ready: Mapping[str, Any] = wanted["conditions"][0]
    if wanted["phase"] == Phase.SLEEPING != before.get("phase"):
        return Announcement("Normal", "Sleeping", ready["message"], ready["lastTransitionTime"])
    if before.get("phase") == Phase.SLEEPING != wanted["phase"] and not asleep:
        message = "a request through the gateway waits for it, or scaling.minReplicas was raised"
        return Announcement("Normal", "Woken", message, ready["lastTransitionTime"])
    return None


class Announcer:
    """Writes Events by `kube`."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def tell(self, key: Key, uid: str, told: Announcement, now: str) -> None:
        """Writes what is told of the model, once."""
        try:
            await self._kube.create(EVENTS, event(key.namespace, key.name, uid, told, now))
        except ConflictError:
            return  # told already
        except (ApiError, UnavailableError) as error:
            log.warning("an Event could not be written", extra={"model": "/".join(key), "error": str(error)})

    async def tell_other(self, key: Key, told: Announcement, now: str) -> None:
        """The same of a model whose uid is not at hand; one that is gone, or not ours to see, is told nothing."""
        try:
            model = await self._kube.get(INFERENCE_MODELS, key.namespace, key.name)
        except NotFoundError:
            return
        except (ApiError, UnavailableError) as error:
            log.warning("an Event could not be written", extra={"model": "/".join(key), "error": str(error)})
            return
        await self.tell(key, model["metadata"]["uid"], told, now)
