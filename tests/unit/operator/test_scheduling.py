"""What the scheduler and the API server say, in their own words (collected from Kubernetes 1.36)."""

import pytest

from moorage_operator.api.conditions import Reason
from moorage_operator.status.scheduling import cause, lacks, refused, unschedulable

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
    ("words", "reason"),
    [
        (
            'pods "a" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1',
            "QuotaExceeded",
        ),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true', "PodSecurityDenied"),
        ("maximum memory usage per Container is 1Gi, but limit is 2Gi", "LimitRangeViolated"),
        ('pods "a" is forbidden: denied by the policy of the house', "PodsRefused"),
    ],
)
def test_refusals_have_a_reason_each(words: str, reason: str) -> None:
    assert refused(words).reason.value == reason
    assert refused(words).message == words


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (
            'pods "a" is forbidden: unable to validate against any security context constraint: [provider '
            "restricted-v2: .containers[0].runAsUser: Invalid value: 65532: must be in the ranges: [1000700000]]",
            "global.compatibility.openshift.adaptSecurityContext=force",
        ),
        (
            "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: runAsUser is set",
            "global.compatibility.openshift.adaptSecurityContext=force",
        ),
        ('pods "a" is forbidden: pod rejected: RuntimeClass "nvidia" not found', "runtime.runtimeClassNames"),
        ('pods "a" is forbidden: no PriorityClass with name moorage-5 was found', "priorityClasses.create=true"),
    ],
)
def test_cluster_05_06_12_a_refusal_that_a_value_of_the_chart_ends_names_the_value(words: str, value: str) -> None:
    problem = refused(words)
    assert problem.reason is Reason.PODS_REFUSED
    assert problem.message.startswith(f"{words}; ")
    assert value in problem.message
    assert "Moorage's chart" in problem.message
