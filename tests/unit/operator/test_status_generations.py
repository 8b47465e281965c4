"""During a change of the spec there are pods of two generations: the new ones explain, the old ones may serve."""

from dataclasses import replace

import pytest

from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.status import status
from moorage_operator.status.observe import DeploymentState, Observation, PodState
from tests.unit.operator.support import MODEL_UID, Object, by_type, model, summary

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
        "Stalled": "True RolloutStuck",
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
    assert by_type(seen)["Ready"]["message"] == "The pod is not scheduled yet"


ARRIVED = DeploymentState(1, 1, 1, 1, 1, 0, revision="old", was_complete=True)
LOST = PodState("next", "2", "2026-01-02T03:00:00Z", MODEL_UID, "old")


def complete() -> Object:
    """A status that has said that the spec, generation 1, has reached all pods."""
    arrived = DeploymentState(1, 1, 1, 1, 1, 1, revision="old")
    return status(model(), Observation(arrived, (OLD_SERVES,)), NOW)


def test_a_pod_that_is_lost_after_the_spec_has_arrived_is_no_change_of_the_spec() -> None:
    seen = status(model(status=complete()), Observation(ARRIVED, (LOST,)), NOW)
    assert summary(seen)["Progressing"] == "False Complete"
    assert by_type(seen)["Progressing"]["message"] == "Generation 1 was rolled out to all replicas"
    broken = replace(LOST, node="node-1", problem=Problem(Reason.CRASH_LOOPING, "the container ended"))
    seen = status(model(status=seen), Observation(ARRIVED, (broken,)), NOW)
    assert summary(seen)["Ready"] == "False CrashLooping"
    assert summary(seen)["Progressing"] == "False Complete"


@pytest.mark.parametrize(
    ("generation", "deployment"),
    [
        (2, ARRIVED),
        (1, replace(ARRIVED, was_complete=False)),
        (1, replace(ARRIVED, generation=2)),
        (1, replace(ARRIVED, updated_replicas=0)),
        (1, replace(ARRIVED, replicas=0)),
    ],
)
def test_it_is_one_when_anything_has_changed_since(generation: int, deployment: DeploymentState) -> None:
    changed = model(status=complete())
    changed = changed.model_copy(update={"metadata": changed.metadata.model_copy(update={"generation": generation})})
    seen = summary(status(changed, Observation(deployment, (LOST,)), NOW))
    assert seen["Progressing"] == "True RollingOut"


def test_a_model_that_is_woken_is_rolled_out_until_its_pod_is_ready() -> None:
    scaled = {"minReplicas": 0, "maxReplicas": 1}
    asleep = DeploymentState(1, 1, 0, 0, 0, 0, revision="old", was_complete=True, asleep=True)
    sleeping = status(model(scaling=scaled), Observation(asleep, (), replicas=0), NOW)
    assert summary(sleeping)["Progressing"] == "False Complete"
    # Also where the Deployment's controller is so quick that the operator never sees it unsettled.
    for observed, pods in ((1, 0), (2, 0), (2, 1)):
        woken = replace(asleep, generation=2, observed_generation=observed, replicas=1, asleep=False)
        woken = replace(woken, current_replicas=pods, updated_replicas=pods)
        seen = status(model(scaling=scaled, status=sleeping), Observation(woken, (LOST,) * pods, replicas=1), NOW)
        assert summary(seen)["Progressing"] == "True RollingOut"


def test_a_status_that_somebody_forged_is_not_believed() -> None:
    seen = status(model(status=complete()), Observation(replace(ARRIVED, was_complete=False), (LOST,)), NOW)
    assert summary(seen)["Progressing"] == "True RollingOut"
