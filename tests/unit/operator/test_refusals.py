"""What the API server says when it lets no pod be made, in its own words (collected from Kubernetes 1.36)."""

import pytest

from moorage_operator.api.conditions import Reason
from moorage_operator.status.refusals import over_quota, refused

FORBIDDEN = 'pods "a-5d8f-x7k2p" is forbidden: '


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (f"{FORBIDDEN}exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1", "QuotaExceeded"),
        (f'{FORBIDDEN}violates PodSecurity "restricted:latest": runAsNonRoot != true', "PodSecurityDenied"),
        (f"{FORBIDDEN}denied by the policy of the house", "PodsRefused"),
    ],
)
def test_refusals_have_a_reason_each_and_keep_their_words(words: str, reason: str) -> None:
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


@pytest.mark.parametrize(
    ("what", "remedy"),
    [
        ("limits.cpu for: runtime", "set spec.resources.cpuLimit"),
        ("limits.cpu for: fetch,runtime", "set spec.resources.cpuLimit"),
        ("limits.memory for: runtime; requests.memory for: runtime", "set spec.resources.memory"),
        ("cpu for: runtime; requests.nvidia.com/gpu for: runtime", "set spec.resources.cpu; Moorage has no field"),
        ("requests.ephemeral-storage for: runtime", "give the namespace a LimitRange with a default"),
    ],
)
def test_cluster_07_a_quota_that_wants_what_is_not_specified_says_what_to_set(what: str, remedy: str) -> None:
    words = f"{FORBIDDEN}failed quota: strict: must specify {what}"
    problem = refused(words)
    assert problem.reason.value == "QuotaExceeded"
    assert problem.message.startswith(f"{words}; ")
    assert remedy in problem.message
    assert ("cpuLimit" in problem.message) is ("limits.cpu" in what)


def test_only_a_quota_that_is_used_up_is_one_that_an_old_pod_may_free() -> None:
    assert over_quota(f"{FORBIDDEN}exceeded quota: small, requested: pods=1")
    assert not over_quota(f"{FORBIDDEN}failed quota: strict: must specify limits.cpu for: runtime")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "minimum memory usage per Container is 512Mi, but request is 256Mi",
            "A LimitRange requires at least 512Mi of memory for each container, but the request is 256Mi: "
            "raise spec.resources.memory",
        ),
        (
            "[maximum cpu usage per Container is 2, but limit is 4, maximum cpu usage per Pod is 3, but limit is 4]",
            "A LimitRange requires at most 2 of cpu for each container, but the limit is 4: "
            "lower spec.resources.cpuLimit; "
            "a LimitRange requires at most 3 of cpu for each pod, but the limit is 4: lower spec.resources.cpuLimit",
        ),
        (
            "maximum cpu usage per Pod is 1500m.  No limit is specified",
            "A LimitRange requires at most 1500m of cpu for each pod, but there is no limit: "
            "set spec.resources.cpuLimit",
        ),
        (
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            "A LimitRange requires a limit of cpu of at most 2 times the request for each container, "
            "but it is 4 times: lower spec.resources.cpuLimit, or raise spec.resources.cpu",
        ),
        (
            "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
            "A LimitRange requires a limit of cpu of at most 2 times the request for each container, "
            "but there is none: set spec.resources.cpuLimit",
        ),
        (
            'spec.containers[0].resources.requests: Invalid value: "4": must be less than or equal to cpu limit of 2',
            "A LimitRange sets a limit of 2 CPUs, which is less than the request of 4: lower spec.resources.cpu, or "
            "set spec.resources.cpuLimit",
        ),
    ],
)
def test_cluster_08_a_limit_range_is_told_with_its_remedy(words: str, told: str) -> None:
    problem = refused(f"{FORBIDDEN}{words}")
    assert problem.reason.value == "LimitRangeViolated"
    assert problem.message == told


def test_cluster_08_a_resource_without_a_field_has_another_remedy() -> None:
    words = f"{FORBIDDEN}maximum ephemeral-storage usage per Container is 1Gi.  No limit is specified"
    assert "give the namespace a LimitRange with a default" in refused(words).message
    assert "spec." not in refused(words).message
