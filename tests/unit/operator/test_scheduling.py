"""What the scheduler says, in its own words (collected from Kubernetes 1.36)."""

import pytest

from moorage_operator.api.conditions import Reason
from moorage_operator.status.scheduling import cause, claim_in_use, lacks, unschedulable

NO_ROOM = (
    "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu. no new claims to deallocate, "
    "preemption: 0/3 nodes are available: 1 Insufficient memory, 2 No preemption victims found for incoming pod."
)


def test_what_is_lacking_has_accelerators_first_and_leaves_out_what_eviction_would_not_mend() -> None:
    assert lacks(NO_ROOM) == ("nvidia.com/gpu", "cpu")


def test_the_cause_is_told_without_what_the_scheduler_thinks_of_evictions() -> None:
    assert cause(NO_ROOM) == "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu"
    assert cause("0/1 nodes are available: 1 Insufficient cpu.") == "0/1 nodes are available: 1 Insufficient cpu"
    assert cause("") == ""


def test_taints_are_no_lack() -> None:
    assert lacks("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.") == ()


def test_a_claim_that_is_missing_is_named() -> None:
    problem = unschedulable('0/1 nodes are available: persistentvolumeclaim "models" not found. not found')
    assert problem.reason is Reason.VOLUME_NOT_FOUND
    assert 'persistentvolumeclaim "models" not found' in problem.message


def test_all_else_is_in_the_schedulers_words() -> None:
    assert unschedulable(NO_ROOM).message == NO_ROOM
    assert unschedulable(NO_ROOM).reason is Reason.UNSCHEDULABLE


@pytest.mark.parametrize(
    "words",
    [
        "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by "
        "another pod",
        "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
    ],
)
def test_cluster_09_a_claim_of_one_pod_is_told_from_other_causes(words: str) -> None:
    preemption = "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    assert claim_in_use(f"0/2 nodes are available: 2 {words}. no new claims to deallocate, {preemption}")
    assert not claim_in_use(NO_ROOM)
    assert not claim_in_use("0/2 nodes are available: 2 node(s) had volume node affinity conflict.")
