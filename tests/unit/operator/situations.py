"""Observations for tests of the status: pods and Deployments as they were read, with only what matters said."""

from typing import Any, Final

from moorage_common.facts import EngineFacts, Health, Phase
from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.status.observe import DeploymentState, PodState
from moorage_operator.status.scheduling import lacks
from tests.unit.operator.support import MODEL_UID

NO_GPU: Final = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
FACTS: Final = EngineFacts(
    engine="llama.cpp",
    engine_version="b1234",
    device="cpu",
    quantization="Q4_K_M",
    context_length=4096,
    weights_bytes=100,
    memory_bytes=200,
)
LOADED: Final = Health(Phase.READY, FACTS)


def pod(name: str = "new", **fields: Any) -> PodState:
    """A pod that has just been made."""
    made = {"name": name, "uid": name, "created": "2026-01-02T03:04:05Z", "model_uid": MODEL_UID}
    return PodState(**{**made, "lacks": lacks(fields.get("unschedulable") or ""), **fields})


def placed(name: str = "new", **fields: Any) -> PodState:
    """A pod that has a node."""
    return pod(name, **{"node": "node-1", **fields})


def ready(name: str = "new", **fields: Any) -> PodState:
    """A pod that answers requests."""
    return placed(name, **{"running": True, "ready": True, "ip": "10.0.0.7", **fields})


def failing(reason: Reason, name: str = "new", **fields: Any) -> PodState:
    """A pod with a problem."""
    return placed(name, problem=Problem(reason, f"because of {name}"), **fields)


def deployment(replicas: int = 1, **fields: Any) -> DeploymentState:
    """A Deployment that is rolled out, but for what `fields` say; its controller has seen its last change."""
    counts = dict.fromkeys(("current_replicas", "updated_replicas", "available_replicas"), 1)
    return DeploymentState(**{"generation": 1, "observed_generation": 1, "replicas": replicas, **counts, **fields})


STOPPED: Final = deployment(0, current_replicas=0, updated_replicas=0, available_replicas=0)
UNREADY: Final = deployment(1, available_replicas=0)
