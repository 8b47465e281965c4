"""Plays the kubelet for single pods: a test says what their containers do, and when. No kwok meddles.

Such a pod asks for a resource that no node has, so the scheduler leaves it alone, and is bound by hand to a node that
does not exist. (The garbage collector of pods takes it away after 40 s; tests are done by then.)
"""

from datetime import datetime, timedelta
from typing import Any

from tests.support.api import Api, Object

RESOURCE = "moorage.test/gpu"
NODE = "played-by-the-test"


def played(count: int = 1, **gpu: Any) -> Object:
    """What `spec.gpu` says of a model whose pods are played."""
    return {"count": count, "resourceName": RESOURCE, **gpu}


class PlayedPod:
    """One pod of a model. Times are seconds after it was made."""

    def __init__(self, api: Api, model: str) -> None:
        """Wait for the pod, and give it a node."""
        self._api = api
        api.wait("InferenceModel", model, _is_pending, what="a pod that no node takes")
        (pod,) = api.find("Pod", f"moorage.dev/model={model}")
        self.name, self._created = pod["metadata"]["name"], pod["metadata"]["creationTimestamp"]
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.name}, "target": {"name": NODE}}
        api.request("POST", f"{api.path('Pod', self.name)}/binding", json=binding)

    def at(self, seconds: int) -> str:
        """A time after it was made."""
        return (datetime.fromisoformat(self._created) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def runs(self, ip: str, *, scheduled: int = 0, began: int = 0, ready: int | None = None) -> None:
        """Its container runs and listens at `ip`; it is ready if a time is given."""
        state = "False" if ready is None else "True"
        changed = self.at(ready or began)
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.at(scheduled)},
            {"type": "Initialized", "status": "True", "lastTransitionTime": changed},
            {"type": "ContainersReady", "status": state, "lastTransitionTime": changed},
            {"type": "Ready", "status": state, "lastTransitionTime": changed},
        ]
        container = {
            "name": "runtime",
            "image": "played",
            "imageID": "",
            "restartCount": 0,
            "ready": ready is not None,
            "started": ready is not None,
            "state": {"running": {"startedAt": self.at(began)}},
        }
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": conditions,
            "containerStatuses": [container],
        }
        self._api.patch("Pod", self.name, {"status": status}, "status")

    def vanishes(self) -> None:
        """It is deleted and gone at once."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        self._api.request("DELETE", self._api.path("Pod", self.name), json=body)


def _is_pending(model: Object | None) -> bool:
    return bool((model or {}).get("status", {}).get("replicas"))
