"""During a change of the spec there are pods of two generations: the new ones explain, the old ones may serve."""

import pytest

from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.observe import DeploymentState, Observation, PodState
from moorage_operator.status import status
from tests.unit.operator.support import MODEL_UID, by_type, model, summary

NOW = "2026-01-02T03:04:05Z"
CHANGING = DeploymentState(2, 2, 1, 2, 1, 0, revision="new")
NEW_FAILS = PodState(
    "new",
    "2",
    "2026-01-02T03:00:00Z",
    MODEL_UID,
    "new",
    node="node-1",
    problem=Problem(Reason.MODEL_NOT_FOUND, "no file"),
)
OLD_WAITS = PodState("old", "1", "2026-01-02T02:00:00Z", MODEL_UID, "old", unschedulable='claim "missing" not found')
OLD_FAILS = PodState(
    "old",
    "1",
    "2026-01-02T02:00:00Z",
    MODEL_UID,
    "old",
    node="node-1",
    problem=Problem(Reason.OUT_OF_MEMORY, "too big"),
)
OLD_SERVES = PodState("old", "1", "2026-01-02T02:00:00Z", MODEL_UID, "old", node="node-1", running=True, ready=True)


@pytest.mark.parametrize("old", [OLD_WAITS, OLD_FAILS], ids=["waits", "fails"])
@pytest.mark.parametrize("new_first", [True, False])
def test_an_old_pod_does_not_speak_for_the_new_spec(old: PodState, new_first: bool) -> None:
    pods = (NEW_FAILS, old) if new_first else (old, NEW_FAILS)
    seen = summary(status(model(), Observation(CHANGING, pods), NOW))
    assert seen == {
        "phase": "Failed",
        "Ready": "False ModelNotFound",
        "Scheduled": "True Scheduled",
        "ModelLoaded": "False ModelNotFound",
        "Progressing": "False RolloutStuck",
    }


def test_an_old_pod_serves_while_the_new_one_waits_for_room() -> None:
    waits = PodState(
        *("new", "2", "2026-01-02T03:00:00Z", MODEL_UID, "new"),
        unschedulable="1 Insufficient nvidia.com/gpu",
        lacks=("nvidia.com/gpu",),
    )
    seen = status(model(gpu={"count": 1}), Observation(CHANGING, (OLD_SERVES, waits)), NOW)
    assert summary(seen)["Ready"] == "True Serving"
    assert summary(seen)["Scheduled"] == "False WaitingForGPU"
    assert summary(seen)["Progressing"] == "True RollingOut"


def test_before_the_first_new_pod_nothing_is_wrong_yet() -> None:
    seen = status(model(), Observation(CHANGING, (OLD_FAILS,)), NOW)
    assert summary(seen)["Ready"] == "False Starting"
    assert by_type(seen)["Ready"]["message"] == "the pod has not been placed yet"
