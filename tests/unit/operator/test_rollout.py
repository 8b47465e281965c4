"""When an old pod must end before a new one starts."""

from typing import Any

import pytest

from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.status.observe import DeploymentState, PodState
from moorage_operator.status.rollout import makes_room
from tests.unit.operator.situations import deployment, failing, placed, pod, ready

OLD = ready("old", revision="1")
STARVED = pod("new", revision="2", lacks=("nvidia.com/gpu",))
ROLLING: dict[str, Any] = {"revision": "2", "updated_replicas": 1, "current_replicas": 2}
QUOTA = 'pods "x" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=1'

RWOP = (
    "0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
    "already in-use by another pod."
)
UNSPECIFIED = 'pods "x" is forbidden: failed quota: strict: must specify limits.cpu for: runtime'
MULTI_ATTACH = Problem(
    Reason.VOLUME_UNAVAILABLE,
    'FailedAttachVolume: Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) old',
)
HOLDER = ready("old", revision="1", claim="models", node="node-1")
SECOND: dict[str, Any] = {"revision": "2", "claim": "models", "node": "node-2"}

CASES: dict[str, tuple[DeploymentState | None, tuple[PodState, ...], bool]] = {
    "nothing has been made yet": (None, (), False),
    "nothing changes": (deployment(revision="2"), (OLD,), False),
    "the new pod waits for what the old one holds": (deployment(**ROLLING), (OLD, STARVED), True),
    "the quota counts the old pod": (deployment(**ROLLING, refused=QUOTA), (OLD,), True),
    "a quota wants what is not specified": (deployment(**ROLLING, refused=UNSPECIFIED), (OLD,), False),
    "the old pod has the claim of one pod": (
        deployment(**ROLLING),
        (HOLDER, pod("new", revision="2", claim="models", unschedulable=RWOP)),
        True,
    ),
    "somebody else has the claim, the spec having changed to it": (
        deployment(**ROLLING),
        (HOLDER, pod("new", revision="2", claim="others", unschedulable=RWOP)),
        False,
    ),
    "the volume is attached to the old pod's node": (
        deployment(**ROLLING),
        (HOLDER, placed("new", problem=MULTI_ATTACH, **SECOND)),
        True,
    ),
    "the volume is attached elsewhere, not by the old pod": (
        deployment(**ROLLING),
        (HOLDER, placed("new", problem=MULTI_ATTACH, **{**SECOND, "claim": "others"})),
        False,
    ),
    "the old pod is on the new pod's node": (
        deployment(**ROLLING),
        (HOLDER, placed("new", problem=MULTI_ATTACH, **{**SECOND, "node": "node-1"})),
        False,
    ),
    "the volume cannot be mounted for another reason": (
        deployment(**ROLLING),
        (HOLDER, failing(Reason.VOLUME_UNAVAILABLE, **SECOND)),
        False,
    ),
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
