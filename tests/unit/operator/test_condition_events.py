"""Which Events go with a status: one for each cause of a failure, none for what is as it should be."""

from typing import Any

import pytest

from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.status import status
from moorage_operator.status.condition_events import condition_events
from moorage_operator.status.observe import Observation
from tests.unit.operator.situations import NO_GPU, UNREADY, deployment, failing, placed, pod, ready
from tests.unit.operator.support import Object, model

NOW, SOON, LATER = "2026-01-02T03:04:05Z", "2026-01-02T03:04:50Z", "2026-01-02T05:00:00Z"
ROLLING: dict[str, Any] = {"revision": "2", "updated_replicas": 1, "current_replicas": 2}
OLD = ready("old", revision="1")
QUOTA = 'pods "x" is forbidden: exceeded quota: small, requested: pods=1'
GPUS: dict[str, Any] = {"gpu": {"count": 1}}


class Story:
    """The statuses of one model, one after another."""

    def __init__(self, **spec: Any) -> None:
        self._spec = spec
        self.status: Object | None = None

    def then(self, seen: Observation, now: str = NOW) -> list[tuple[str, str]]:
        """Type and reason of the Events that go with the next status."""
        before = model(status=self.status, **self._spec)
        self.status = status(before, seen, now)
        self.told = condition_events(before, seen, self.status)
        return [(event.type, event.reason.value) for event in self.told]


def seen(*pods: Any, **deployed: Any) -> Observation:
    """Pods, and a Deployment."""
    return Observation(deployment(**deployed), pods)


def test_cluster_11_a_model_that_comes_up_has_no_event() -> None:
    story = Story()
    for step in (
        Observation(),
        Observation(UNREADY),
        Observation(UNREADY, (pod(),)),
        Observation(UNREADY, (placed(),)),
    ):
        assert story.then(step) == []
    assert story.then(Observation(UNREADY, (placed(running=True),))) == []
    assert story.then(seen(ready())) == []


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (Observation(UNREADY, (failing(Reason.IMAGE_PULL_FAILED),)), "ImagePullFailed"),
        (Observation(UNREADY, (failing(Reason.VOLUME_UNAVAILABLE),)), "VolumeUnavailable"),
        (seen(available_replicas=0, current_replicas=0, updated_replicas=0, refused=QUOTA), "QuotaExceeded"),
        (Observation(UNREADY, (pod(unschedulable="0/1 nodes: 1 Insufficient cpu."),)), "Unschedulable"),
        (Observation(blocked=Problem(Reason.NAME_CONFLICT, "taken")), "NameConflict"),
        (Observation(UNREADY, (pod(unschedulable=NO_GPU),), attainable={}), "NoSuchResource"),
    ],
)
def test_cluster_11_a_failure_is_one_warning_though_several_conditions_have_it(
    observation: Observation, reason: str
) -> None:
    story = Story(**(GPUS if reason == "NoSuchResource" else {}))
    assert story.then(observation) == [("Warning", reason)]
    assert story.then(observation, SOON) == []


def test_waiting_for_a_gpu_is_normal_and_told_once_whatever_the_position() -> None:
    story = Story(**GPUS)
    assert story.then(Observation(UNREADY, (pod(unschedulable=NO_GPU),))) == [("Normal", "WaitingForGPU")]
    other = pod(unschedulable="0/4 nodes are available: 4 Insufficient nvidia.com/gpu.")
    assert story.then(Observation(UNREADY, (other,)), SOON) == []


def test_cluster_10_a_change_that_does_not_arrive_while_the_old_pod_serves_is_told() -> None:
    story = Story()
    assert story.then(seen(OLD, revision="1")) == []
    broken = failing(Reason.MODEL_NOT_FOUND, revision="2")
    assert story.then(seen(OLD, broken, **ROLLING)) == [("Warning", "RolloutStuck")]
    assert "ModelNotFound: because of new" in story.told[0].message
    gone = seen(broken, revision="2", available_replicas=0)
    assert story.then(gone, SOON) == [("Warning", "ModelNotFound")]


def test_a_change_that_makes_room_for_itself_is_no_failure() -> None:
    story = Story()
    story.then(seen(OLD, revision="1"))
    waits = pod("new", revision="2", unschedulable="0/1 nodes: 1 Insufficient cpu.")
    assert story.then(seen(OLD, waits, **ROLLING, makes_room=True)) == []
    assert story.then(seen(waits, revision="2", available_replicas=0, makes_room=True)) == []


def test_the_same_cause_has_the_same_name_and_another_hour_or_spec_another() -> None:
    def cause(now: str, generation: int) -> str:
        judged = model(**GPUS)
        judged = judged.model_copy(update={"metadata": judged.metadata.model_copy(update={"generation": generation})})
        observation = Observation(UNREADY, (failing(Reason.IMAGE_PULL_FAILED),))
        (event,) = condition_events(judged, observation, status(judged, observation, now))
        return event.cause

    assert cause(NOW, 1) == cause(SOON, 1)
    assert len({cause(NOW, 1), cause(LATER, 1), cause(NOW, 2)}) == 3
