"""What is read out of pods and Deployments as kubelet, scheduler and controllers write them."""

from typing import Any

import pytest

from moorage_common.facts import LoadError, Termination
from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.status.observe import PodState, deployment_state, pod_state
from tests.unit.operator.support import MODEL_UID, live_deployment, live_pod

NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available."


def waiting(reason: str, message: str = "", **container: Any) -> PodState:
    """A pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return pod_state(live_pod(container={"state": state, **container}))


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    """How a container ended."""
    return {"terminated": {"exitCode": code, "reason": reason, **({"message": message} if message else {})}}


def said(reason: LoadError, message: str) -> str:
    """The termination message of a runtime."""
    return Termination(reason, message).encode().decode()


def test_a_ready_pod() -> None:
    state = pod_state(live_pod(ready=True, container={"state": {"running": {"startedAt": "…"}}, "restartCount": 2}))
    assert state == PodState(
        name="tiny-1",
        uid="uid-of-tiny-1",
        created="2026-01-02T03:04:05Z",
        model_uid=MODEL_UID,
        replica_set="tiny-abc",
        replica_set_uid="rs",
        ip="10.0.0.7",
        node="node-1",
        running=True,
        ready=True,
        restarts=2,
    )


def test_a_pod_that_was_just_made_has_neither_node_nor_status() -> None:
    pod = live_pod(node=None)
    del pod["status"]
    state = pod_state(pod)
    assert (state.scheduled, state.ready, state.running, state.ip, state.problem) == (False, False, False, None, None)
    assert state.unschedulable is None


def test_an_unschedulable_pod_says_what_the_scheduler_says() -> None:
    placed = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_GPU}
    state = pod_state(live_pod(node=None, conditions=(placed,)))
    assert (state.scheduled, state.unschedulable) == (False, NO_GPU)


def test_a_pod_behind_a_scheduling_gate_is_not_unschedulable() -> None:
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "waits"}
    assert pod_state(live_pod(node=None, conditions=(gated,))).unschedulable is None


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"]
)
def test_an_image_that_cannot_be_pulled(reason: str) -> None:
    problem = Problem(Reason.IMAGE_PULL_FAILED, 'failed to pull "x": not found')
    assert waiting(reason, 'failed to pull "x": not found').problem == problem
    assert waiting(reason).problem == Problem(Reason.IMAGE_PULL_FAILED, reason)


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
def test_a_container_that_cannot_be_made(reason: str) -> None:
    problem = Problem(Reason.CONTAINER_CONFIG_INVALID, f'{reason}: secret "x" not found')
    assert waiting(reason, 'secret "x" not found').problem == problem


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_made_is_no_problem(reason: str) -> None:
    assert waiting(reason).problem is None


@pytest.mark.parametrize("reason", LoadError)
def test_the_runtimes_own_words_explain_a_death(reason: LoadError) -> None:
    state = pod_state(live_pod(container={"state": ended(1, message=said(reason, "because"))}))
    assert state.problem == Problem(Reason(reason.value), "because")


def test_the_runtimes_own_words_count_for_more_than_the_kernels() -> None:
    container = {"state": ended(137, "OOMKilled", said(LoadError.MODEL_FILE_INVALID, "no GGUF file"))}
    assert pod_state(live_pod(container=container)).problem == Problem(Reason.MODEL_FILE_INVALID, "no GGUF file")


@pytest.mark.parametrize("where", ["state", "lastState"])
def test_the_kernel_has_ended_a_container_for_its_memory(where: str) -> None:
    problem = pod_state(live_pod(container={where: ended(137, "OOMKilled")})).problem
    assert problem is not None
    assert problem.reason is Reason.OUT_OF_MEMORY
    assert "spec.resources.memory" in problem.message


@pytest.mark.parametrize(
    "message", ["", "Traceback (most recent call last):", '{"reason": "Invented", "message": "x"}', "null", '{"a": 1}']
)
def test_a_death_without_the_runtimes_words_tells_its_exit_code(message: str) -> None:
    problem = pod_state(live_pod(container={"state": ended(139, message=message)})).problem
    assert problem == Problem(Reason.CRASH_LOOPING, "The container exited with code 139")


def test_a_container_that_ended_well_once_is_no_problem() -> None:
    assert pod_state(live_pod(container={"state": ended(0, "Completed")})).problem is None


def test_a_container_that_ends_well_again_and_again_loops() -> None:
    state = waiting("CrashLoopBackOff", "back-off 5m0s restarting", lastState=ended(0, "Completed"), restartCount=6)
    assert state.problem == Problem(Reason.CRASH_LOOPING, "The container exited with code 0")


@pytest.mark.parametrize(
    "state", [{"running": {}}, {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}}]
)
def test_a_container_that_starts_again_is_explained_by_its_last_death(state: dict[str, Any]) -> None:
    last = ended(1, message=said(LoadError.MODEL_NOT_FOUND, "/models is empty"))
    seen = pod_state(live_pod(container={"state": state, "lastState": last, "restartCount": 3}))
    assert seen.problem == Problem(Reason.MODEL_NOT_FOUND, "/models is empty")
    assert seen.running == ("running" in state)
    assert seen.restarts == 3


def test_a_new_failure_counts_for_more_than_the_last_death() -> None:
    seen = waiting("ImagePullBackOff", "gone", lastState=ended(1))
    assert seen.problem == Problem(Reason.IMAGE_PULL_FAILED, "gone")


def test_once_ready_the_last_death_is_forgotten() -> None:
    container = {"state": {"running": {}}, "lastState": ended(137, "OOMKilled")}
    assert pod_state(live_pod(ready=True, container=container)).problem is None


def test_a_pod_that_ceases_to_be_ready_is_not_explained_by_a_death_from_before() -> None:
    container = {"state": {"running": {}}, "started": True, "lastState": ended(137, "OOMKilled")}
    assert pod_state(live_pod(container=container)).problem is None
    container["started"] = False
    assert pod_state(live_pod(container=container)).problem is not None


def test_only_the_runtime_container_is_asked() -> None:
    pod = live_pod(container={"state": {"running": {}}})
    sidecar = {"name": "istio-proxy", "state": ended(1), "restartCount": 9}
    pod["status"]["containerStatuses"].insert(0, sidecar)
    state = pod_state(pod)
    assert (state.problem, state.running, state.restarts) == (None, True, 0)


def test_a_pod_that_is_being_deleted_terminates() -> None:
    assert pod_state(live_pod(deletionTimestamp="2026-01-02T03:05:00Z")).terminating
    assert not pod_state(live_pod()).terminating


@pytest.mark.parametrize(("phase", "finished"), [("Failed", True), ("Succeeded", True), ("Running", False)])
def test_an_evicted_or_ended_pod_is_finished(phase: str, finished: bool) -> None:
    pod = live_pod()
    pod["status"] |= {"phase": phase, "reason": "Evicted"}
    assert pod_state(pod).finished is finished


def test_a_text_without_end_is_cut() -> None:
    problem = waiting("ErrImagePull", "x" * 100_000).problem
    assert problem is not None
    assert len(problem.message) == 1024
    assert problem.message.endswith("x…")


ROLLED_OUT = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def test_a_deployment_without_status_is_not_rolled_out() -> None:
    state = deployment_state(live_deployment())
    assert not state.rolled_out
    assert (state.stuck, state.refused) == (None, None)


def test_a_deployment_is_rolled_out_when_all_its_pods_are_new_and_available() -> None:
    assert deployment_state(live_deployment(replicas=2, status=ROLLED_OUT)).rolled_out


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 0},
        {"updatedReplicas": 1},
        {"availableReplicas": 1},
        {"replicas": 3},
        {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
    ],
)
def test_a_deployment_is_not_rolled_out_while(status: dict[str, int]) -> None:
    assert not deployment_state(live_deployment(replicas=2, status={**ROLLED_OUT, **status})).rolled_out


def test_a_stopped_deployment_is_rolled_out_when_it_has_no_pods() -> None:
    assert deployment_state(live_deployment(replicas=0, status={"observedGeneration": 1})).rolled_out
    assert not deployment_state(live_deployment(replicas=0, status={"observedGeneration": 1, "replicas": 1})).rolled_out


def test_a_deployment_whose_pods_are_lost_later_was_rolled_out_until_its_template_changes() -> None:
    arrived = {"conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]}
    lost = {**ROLLED_OUT, "availableReplicas": 0, **arrived}
    state = deployment_state(live_deployment(replicas=2, status=lost))
    assert (state.rolled_out, state.was_rolled_out) == (False, True)
    changes: tuple[dict[str, Any], ...] = ({"observedGeneration": 0}, {"updatedReplicas": 1}, {"conditions": []})
    for changed in changes:
        assert not deployment_state(live_deployment(replicas=2, status={**lost, **changed})).was_rolled_out


def test_a_deployment_says_that_it_does_not_get_on_or_that_pods_are_refused() -> None:
    stuck = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"}
    state = deployment_state(live_deployment(status={"conditions": [stuck, refused]}))
    assert (state.stuck, state.refused) == ("timed out", "exceeded quota: q")


def test_a_deployment_that_gets_on_or_got_its_pods_has_no_problem() -> None:
    good = [
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": "done"},
        {"type": "ReplicaFailure", "status": "False", "message": "was refused"},
    ]
    state = deployment_state(live_deployment(status={"conditions": good}))
    assert (state.stuck, state.refused) == (None, None)
