"""When an old pod must end before a new one starts."""

from typing import Any

import pytest

from moorage_operator.api.conditions import Reason
from moorage_operator.status.observe import DeploymentState, PodState
from moorage_operator.status.rollout import makes_room
from tests.unit.operator.situations import deployment, failing, pod, ready

OLD = ready("old", revision="1")
STARVED = pod("new", revision="2", lacks=("nvidia.com/gpu",))
ROLLING: dict[str, Any] = {"revision": "2", "updated_replicas": 1, "current_replicas": 2}
QUOTA = 'pods "x" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=1'

CASES: dict[str, tuple[DeploymentState | None, tuple[PodState, ...], bool]] = {
    "nothing has been made yet": (None, (), False),
    "nothing changes": (deployment(revision="2"), (OLD,), False),
    "the new pod waits for what the old one holds": (deployment(**ROLLING), (OLD, STARVED), True),
    "the quota counts the old pod": (deployment(**ROLLING, refused=QUOTA), (OLD,), True),
    "another rule refuses the pods": (deployment(**ROLLING, refused="no"), (OLD,), False),
    "there is no old pod": (deployment(**ROLLING), (STARVED,), False),
    "the old pod waits too": (deployment(**ROLLING), (pod("old", revision="1"), STARVED), False),
    "the old pod is ending": (deployment(**ROLLING), (ready("old", revision="1", terminating=True), STARVED), False),
    "the new pod fails": (deployment(**ROLLING), (OLD, failing(Reason.IMAGE_PULL_FAILED, revision="2")), False),
    "the new pod has a node": (deployment(**ROLLING), (OLD, ready("new", revision="2")), False),
    "once begun, until the end": (deployment(**ROLLING, makes_room=True), (ready("new", revision="2"),), True),
    "the end": (deployment(revision="2", makes_room=True), (ready("new", revision="2"),), False),
}


@pytest.mark.parametrize("case", CASES)
def test_room_is_made_when_nothing_else_helps(case: str) -> None:
    state, pods, expected = CASES[case]
    assert makes_room(state, pods) is expected
