"""Objects as the API server hands them out, with only what a test needs said in the test."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from hypothesis import HealthCheck, settings

from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, MODEL_UID_LABEL
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.desired.config import DesiredConfig

Object = dict[str, Any]

NAMESPACE: Final = "team-a"
MODEL_UID: Final = "uid-of-tiny"
OCI: Final = "oci://localhost/models/smollm2:135m-q4"
CONFIG: Final = DesiredConfig(
    images={"llamacpp/cpu": "runtime:1", "llamacpp/gpu": "runtime-cuda:1", "vllm/gpu": "vllm:1"}
)

thorough = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
"""Properties are checked without a time limit for each example: a busy machine must not fail them."""


class Clock:
    """A monotonic clock that stands still until it is told to go on."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def live_model(name: str = "tiny", *, uid: str = MODEL_UID, status: Object | None = None, **spec: Any) -> Object:
    """An InferenceModel with the defaults of its schema and the fields of `spec`."""
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "generation": 1, "resourceVersion": "1"},
        "spec": {"framework": "llamacpp", "source": {"uri": OCI}, **spec},
        **({"status": status} if status is not None else {}),
    }


def model(name: str = "tiny", **fields: Any) -> InferenceModel:
    """The same, parsed."""
    return InferenceModel.model_validate(live_model(name, **fields))


def labels(name: str = "tiny") -> dict[str, str]:
    """The labels of a child of the model `name`."""
    return {MANAGED_BY_LABEL: MANAGED_BY, MODEL_LABEL: name}


def live_pod(
    name: str = "tiny-1",
    *,
    model_name: str = "tiny",
    model_uid: str = MODEL_UID,
    version: int = 1,
    node: str | None = "node-1",
    ready: bool = False,
    container: Mapping[str, Any] | None = None,
    conditions: tuple[Object, ...] = (),
    controller: str = "ReplicaSet",
    **metadata: Any,
) -> Object:
    """A pod of a model; `container` is the status of its runtime container."""
    status: Object = {
        "phase": "Running" if node else "Pending",
        "conditions": [*conditions, {"type": "Ready", "status": "True" if ready else "False"}],
    }
    if node:
        status["podIP"] = "10.0.0.7"
    if container is not None:
        status["containerStatuses"] = [{"name": "runtime", "restartCount": 0, "ready": ready, **container}]
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-of-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {**labels(model_name), MODEL_UID_LABEL: model_uid},
            "ownerReferences": [{"kind": controller, "name": f"{model_name}-abc", "uid": "rs", "controller": True}],
            **metadata,
        },
        "spec": {"nodeName": node} if node else {},
        "status": status,
    }


def live_deployment(
    name: str = "tiny",
    *,
    version: int = 1,
    uid: str = "uid-of-deployment",
    owner_uid: str | None = MODEL_UID,
    namespace: str = NAMESPACE,
    replicas: int = 1,
    status: Object | None = None,
) -> Object:
    """A Deployment of a model; an `owner_uid` of None makes it somebody else's."""
    owner = {"kind": "InferenceModel", "name": name, "uid": owner_uid, "controller": True}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
            "labels": labels(name),
            "ownerReferences": [owner] if owner_uid else [],
        },
        "spec": {"replicas": replicas},
        "status": status or {},
    }


def by_type(status: Object) -> dict[str, Object]:
    """The conditions of a status by their type."""
    return {condition["type"]: condition for condition in status["conditions"]}


def summary(status: Object) -> dict[str, str]:
    """The conditions of a status as `True Serving`, by their type, and the phase; not what never happened."""
    words = {kind: f"{found['status']} {found['reason']}" for kind, found in by_type(status).items()}
    words = {kind: said for kind, said in words.items() if said != "False Never"}
    return {"phase": status["phase"], **words}


def ticks() -> Callable[[], str]:
    """A clock that tells a later second each time it is asked."""
    seconds = iter(range(60))
    return lambda: f"2026-01-02T03:04:{next(seconds):02d}Z"
