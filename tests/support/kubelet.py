"""Plays the kubelet for single pods: a test says what their containers do, and when. No kwok meddles.

Such a pod asks for a resource that no node has (or for a claim that does not exist), so the scheduler leaves it alone,
and is bound by hand to a node that
does not exist. (The garbage collector of pods takes it away after 40 s; tests are done by then.)
"""

import itertools
from datetime import datetime, timedelta
from typing import Any

from tests.support.api import Api, Object

RESOURCE = "moorage.test/gpu"
NODE = "played-by-the-test"
_numbers = itertools.count(1)


def played(count: int = 1, **gpu: Any) -> Object:
    """What `spec.gpu` says of a model whose pods are played."""
    return {"count": count, "resourceName": RESOURCE, **gpu}


class PlayedPod:
    """One pod of a model. Times are seconds after it was made."""

    def __init__(self, api: Api, model: str) -> None:
        """Wait for the pod, the only one of the model without a node, and give it one."""
        self._api = api
        api.wait("InferenceModel", model, _is_pending, what="a pod that no node takes")
        (pod,) = [p for p in api.find("Pod", f"moorage.dev/model={model}") if "nodeName" not in p["spec"]]
        self.name, self._created = pod["metadata"]["name"], pod["metadata"]["creationTimestamp"]
        # A node of its own: the garbage collector counts from when it first missed the node, whichever pod was there.
        node = f"{NODE}-{next(_numbers)}-of-{api.namespace}"
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.name}, "target": {"name": node}}
        api.request("POST", f"{api.path('Pod', self.name)}/binding", json=binding)

    def at(self, seconds: int) -> str:
        """A time after it was made."""
        return (datetime.fromisoformat(self._created) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def fetches(self, ip: str, state: Object, last: Object | None = None) -> None:
        """Its fetching container is in a state, and was in another before; the engine's waits for it."""
        fetching = _container("fetch", state) | {"lastState": last or {}, "restartCount": 1 if last else 0}
        waits = _container("runtime", {"waiting": {"reason": "PodInitializing"}})
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.at(0)},
            {"type": "Initialized", "status": "False", "lastTransitionTime": self.at(0)},
            {"type": "Ready", "status": "False", "lastTransitionTime": self.at(0)},
        ]
        status = {
            "phase": "Pending",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": conditions,
            "initContainerStatuses": [fetching],
            "containerStatuses": [waits],
        }
        self._api.patch("Pod", self.name, {"status": status}, "status")

    def has_fetched(self, began: int, end: int) -> None:
        """Its fetching container has ended well."""
        times = {"startedAt": self.at(began), "finishedAt": self.at(end)}
        state: Object = {"running": None, "terminated": {"exitCode": 0, "reason": "Completed", **times}}
        status = {"initContainerStatuses": [_container("fetch", state)]}
        self._api.patch("Pod", self.name, {"status": status}, "status")

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
        running: Object = {"running": {"startedAt": self.at(began)}}
        container = _container("runtime", running) | {"ready": ready is not None, "started": ready is not None}
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


def _container(name: str, state: Object) -> Object:
    return {
        "name": name,
        "image": "played",
        "imageID": "",
        "restartCount": 0,
        "ready": False,
        "started": "running" in state,
        "state": state,
    }


def _is_pending(model: Object | None) -> bool:
    return bool((model or {}).get("status", {}).get("replicas"))
