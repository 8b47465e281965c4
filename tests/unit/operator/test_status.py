"""The status of each situation that a model can be in."""

from dataclasses import replace
from typing import Any

import pytest

from moorage_common.facts import EngineFacts, Health, LoadError, Phase
from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.api.v1alpha1 import MAX_MESSAGE_LENGTH
from moorage_operator.status import status
from moorage_operator.status.observe import Observation, QueuePosition
from tests.unit.operator.situations import (
    FACTS,
    LOADED,
    NO_GPU,
    STOPPED,
    UNREADY,
    deployment,
    failing,
    placed,
    pod,
    ready,
)
from tests.unit.operator.support import by_type, model, summary

NOW = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:05:00Z"
GPU: dict[str, Any] = {"gpu": {"count": 2}}
OFF = {"replicas": 0}
SLEEPER: dict[str, Any] = {"scaling": {"minReplicas": 0, "maxReplicas": 2}}
CONFLICT = Problem(Reason.NAME_CONFLICT, "taken")
FORBIDDEN = Problem(Reason.FORBIDDEN, "no right")
NO_IMAGE = Problem(Reason.NO_IMAGE_FOR_DEVICE, "no image")
OLD = ready("old", created="2026-01-01T00:00:00Z")
ROLLING = deployment(1, current_replicas=2, updated_replicas=1, available_replicas=1)
BAD_FILE = failing(Reason.MODEL_FILE_INVALID)
SURGE = pod("new", unschedulable=NO_GPU)

SITUATIONS: dict[str, tuple[dict[str, Any], Observation, str]] = {
    # name: (spec, what is seen, "phase | Ready | Scheduled | ModelLoaded | Progressing")
    "nothing has been made yet": (
        {},
        Observation(),
        "Starting | False Starting | False Starting | False Unloaded | True RollingOut",
    ),
    "a pod without a node": (
        {},
        Observation(UNREADY, (pod(),)),
        "Starting | False Starting | False Starting | False Unloaded | True RollingOut",
    ),
    "a pod with a node": (
        {},
        Observation(UNREADY, (placed(),)),
        "Starting | False Starting | True Scheduled | False Unloaded | True RollingOut",
    ),
    "a container that runs": (
        {},
        Observation(UNREADY, (placed(running=True),)),
        "Starting | False Starting | True Scheduled | False Loading | True RollingOut",
    ),
    "serving, with facts": (
        {},
        Observation(deployment(), (ready(),), {"new": LOADED}),
        "Running | True Serving | True Scheduled | True Loaded | False Complete",
    ),
    "serving, its model unloaded": (
        {},
        Observation(deployment(), (ready(),), {"new": Health(Phase.UNLOADED, FACTS)}),
        "Running | True Serving | True Scheduled | False Unloaded | False Complete",
    ),
    "serving, one of two unloaded": (
        {"replicas": 2},
        Observation(
            deployment(2, current_replicas=2, updated_replicas=2, available_replicas=2),
            (ready(), ready("other")),
            {"new": Health(Phase.UNLOADED, FACTS), "other": LOADED},
        ),
        "Running | True Serving | True Scheduled | True Loaded | False Complete",
    ),
    "serving, not asked yet": (
        {},
        Observation(deployment(), (ready(),), {}),
        "Running | True Serving | True Scheduled | Unknown FactsUnavailable | False Complete",
    ),
    "serving, asked in vain": (
        {},
        Observation(deployment(), (ready(),), {"new": None}),
        "Running | True Serving | True Scheduled | Unknown FactsUnavailable | False Complete",
    ),
    "serving, facts switched off": (
        {},
        Observation(deployment(), (ready(),), None),
        "Running | True Serving | True Scheduled | Unknown FactsUnavailable | False Complete",
    ),
    "ready, but the runtime says that it drains": (
        {},
        Observation(deployment(), (ready(),), {"new": Health(Phase.DRAINING, FACTS)}),
        "Running | True Serving | True Scheduled | Unknown FactsUnavailable | False Complete",
    ),
    "one of two replicas serves": (
        {"replicas": 2},
        Observation(deployment(2, current_replicas=2, updated_replicas=2), (ready("a"), placed("b")), {"a": LOADED}),
        "Running | True Serving | True Scheduled | True Loaded | True RollingOut",
    ),
    "one serves, the other waits for a GPU": (
        {"replicas": 2, **GPU},
        Observation(deployment(2, current_replicas=2, updated_replicas=2), (ready("a"), SURGE), {"a": LOADED}),
        "Running | True Serving | False WaitingForGPU | True Loaded | True RollingOut",
    ),
    "stopped": (
        OFF,
        Observation(STOPPED),
        "Stopped | False Stopped | False Stopped | False Unloaded | False Complete",
    ),
    "stopping": (
        OFF,
        Observation(STOPPED, (ready(terminating=True),), {"new": LOADED}),
        "Stopping | False Stopping | False Stopped | False Stopping | False Complete",
    ),
    "told to stop, and the pod still serves": (
        OFF,
        Observation(deployment(0), (ready(),), {"new": LOADED}),
        "Running | True Serving | False Stopped | True Loaded | True RollingOut",
    ),
    "told to stop, and there is a stranger of that name": (
        OFF,
        Observation(blocked=CONFLICT),
        "Stopped | False Stopped | False Stopped | False Unloaded | False NameConflict",
    ),
    "suspended, and there is no image for the device": (
        {"suspend": True, **GPU},
        Observation(blocked=NO_IMAGE),
        "Stopped | False Stopped | False Stopped | False Unloaded | False NoImageForDevice",
    ),
    "told to stop, and the operator may not": (
        OFF,
        Observation(UNREADY, (placed(),), blocked=FORBIDDEN),
        "Failed | False Forbidden | False Stopped | False Unloaded | False Forbidden",
    ),
    "told to stop under a rule that refuses the children, and the pod ends": (
        OFF,
        Observation(STOPPED, (ready(terminating=True),), blocked=FORBIDDEN),
        "Stopping | False Stopping | False Stopped | False Stopping | False Forbidden",
    ),
    "asleep": (
        SLEEPER,
        Observation(STOPPED, replicas=0, woken=True),
        "Sleeping | True Sleeping | False Sleeping | False Unloaded | False Complete",
    ),
    "asleep, and the last pod finishes its requests": (
        SLEEPER,
        Observation(STOPPED, (ready(terminating=True, running=True),), replicas=0, woken=True),
        "Sleeping | True Sleeping | False Sleeping | False Stopping | False Complete",
    ),
    "asleep, and nobody would wake it": (
        SLEEPER,
        Observation(STOPPED, replicas=0),
        "Sleeping | False NoGateway | False Sleeping | False Unloaded | False Complete",
    ),
    "asleep, and a stranger has its name": (
        SLEEPER,
        Observation(STOPPED, replicas=0, woken=True, blocked=CONFLICT),
        "Failed | False NameConflict | False NameConflict | False Unloaded | False NameConflict",
    ),
    "woken, and the pod waits for a GPU": (
        SLEEPER | GPU,
        Observation(UNREADY, (SURGE,), replicas=1, woken=True),
        "WaitingForResources | False WaitingForGPU | False WaitingForGPU | False Unloaded | True RollingOut",
    ),
    "waiting for a GPU": (
        GPU,
        Observation(UNREADY, (SURGE,)),
        "WaitingForResources | False WaitingForGPU | False WaitingForGPU | False Unloaded | True RollingOut",
    ),
    "no room, for another reason than GPUs": (
        GPU,
        Observation(UNREADY, (pod(unschedulable="0/3 nodes are available: 3 Insufficient memory."),)),
        "WaitingForResources | False Unschedulable | False Unschedulable | False Unloaded | True RollingOut",
    ),
    "a GPU is short that the model did not ask for": (
        {},
        Observation(UNREADY, (SURGE,)),
        "WaitingForResources | False Unschedulable | False Unschedulable | False Unloaded | True RollingOut",
    ),
    "refused by a quota": (
        {},
        Observation(
            deployment(1, current_replicas=0, updated_replicas=0, available_replicas=0, refused="exceeded quota: small")
        ),
        "WaitingForResources | False QuotaExceeded | False QuotaExceeded | False Unloaded | True RollingOut",
    ),
    "a quota that leaves no room for a second pod while the old one ends": (
        {},
        Observation(
            deployment(revision="new", updated_replicas=0, refused="exceeded quota: small", makes_room=True), (OLD,)
        ),
        "Running | True Serving | False QuotaExceeded | Unknown FactsUnavailable | True MakingRoom",
    ),
    "waiting for a GPU past the deadline of a rollout": (
        GPU,
        Observation(deployment(available_replicas=0, stuck="timed out"), (SURGE,)),
        "WaitingForResources | False WaitingForGPU | False WaitingForGPU | False Unloaded | True RollingOut",
    ),
    "suspended": (
        {"suspend": True, "replicas": 3},
        Observation(STOPPED),
        "Stopped | False Stopped | False Stopped | False Unloaded | False Complete",
    ),
    "more GPUs than any node has": (
        GPU,
        Observation(UNREADY, (SURGE,), most={"nvidia.com/gpu": 1}, attainable={"nvidia.com/gpu": 1}),
        "WaitingForResources | False NoSuchResource | False NoSuchResource | False Unloaded | True RollingOut",
    ),
    "more GPUs than any node has, but one had them": (
        GPU,
        Observation(UNREADY, (SURGE,), most={}, attainable={"nvidia.com/gpu": 2}),
        "WaitingForResources | False WaitingForGPU | False WaitingForGPU | False Unloaded | True RollingOut",
    ),
    "more GPUs than any node has, and nodes of any size may come": (
        GPU,
        Observation(UNREADY, (SURGE,), most={}),
        "WaitingForResources | False WaitingForGPU | False WaitingForGPU | False Unloaded | True RollingOut",
    ),
    "a claim that does not exist": (
        {},
        Observation(UNREADY, (pod(unschedulable='persistentvolumeclaim "models" not found'),)),
        "WaitingForResources | False VolumeNotFound | False VolumeNotFound | False Unloaded | True RollingOut",
    ),
    "a stranger has the name": (
        {},
        Observation(blocked=CONFLICT),
        "Failed | False NameConflict | False NameConflict | False Unloaded | False NameConflict",
    ),
    "no image for the device": (
        GPU,
        Observation(blocked=NO_IMAGE),
        "Failed | False NoImageForDevice | False NoImageForDevice | False Unloaded | False NoImageForDevice",
    ),
    "no image for the new spec, and the old pod still serves": (
        GPU,
        Observation(deployment(), (OLD,), {"old": LOADED}, NO_IMAGE),
        "Running | True RolloutStuck | True Scheduled | True Loaded | False NoImageForDevice",
    ),
    "a rollout that fails while an old pod still serves": (
        {},
        Observation(ROLLING, (OLD, BAD_FILE), {"old": LOADED}),
        "Running | True RolloutStuck | True Scheduled | True Loaded | False RolloutStuck",
    ),
    "a rollout past its deadline while an old pod still serves": (
        {},
        Observation(
            deployment(1, current_replicas=2, updated_replicas=1, stuck="timed out"), (OLD, placed()), {"old": LOADED}
        ),
        "Running | True RolloutStuck | True Scheduled | True Loaded | False RolloutStuck",
    ),
    "a rollout that waits for a GPU while an old pod still serves": (
        GPU,
        Observation(ROLLING, (OLD, SURGE), {"old": LOADED}),
        "Running | True Serving | True Scheduled | True Loaded | True RollingOut",
    ),
    "a rollout whose old pod is on its way out": (
        {},
        Observation(ROLLING, (ready("old", terminating=True), ready()), {"new": LOADED, "old": LOADED}),
        "Running | True Serving | True Scheduled | True Loaded | True RollingOut",
    ),
    "the only pod was deleted, and its successor starts": (
        {},
        Observation(UNREADY, (ready("old", terminating=True), placed())),
        "Starting | False Starting | True Scheduled | False Stopping | True RollingOut",
    ),
    "a failing pod on its way out does not speak for one that starts": (
        {},
        Observation(UNREADY, (failing(Reason.CRASH_LOOPING, "z", terminating=True), placed("a"))),
        "Starting | False Starting | True Scheduled | False Unloaded | True RollingOut",
    ),
    "an evicted pod is not counted": (
        {},
        Observation(UNREADY, (placed("old", finished=True, ready=True),)),
        "Starting | False Starting | False Starting | False Unloaded | True RollingOut",
    ),
    "the newest pod speaks for the last change of the spec": (
        {},
        Observation(ROLLING, (failing(Reason.IMAGE_PULL_FAILED, "old", created="2026-01-01T00:00:00Z"), placed())),
        "Starting | False Starting | True Scheduled | False ImagePullFailed | True RollingOut",
    ),
    **{
        f"{reason} of the only pod": (
            {},
            Observation(UNREADY, (failing(reason),)),
            f"Failed | False {reason} | True Scheduled | False {reason} | False RolloutStuck",
        )
        for reason in (
            *(Reason(error.value) for error in LoadError),
            Reason.IMAGE_PULL_FAILED,
            Reason.CONTAINER_CONFIG_INVALID,
            Reason.CRASH_LOOPING,
        )
    },
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation(name: str) -> None:
    spec, seen, expected = SITUATIONS[name]
    words = ("phase", "Ready", "Scheduled", "ModelLoaded", "Progressing")
    found = summary(status(model(**spec), seen, NOW))
    assert {word: found[word] for word in words} == dict(zip(words, expected.split(" | "), strict=True))


def test_a_status_names_address_selector_and_replicas() -> None:
    seen = Observation(deployment(2), (ready("a"), placed("b"), ready("c", terminating=True)), {"a": LOADED})
    found = status(model(replicas=2, servedName="qwen"), seen, NOW)
    assert found["url"] == "http://tiny.team-a.svc/v1"
    assert found["selector"] == "app.kubernetes.io/managed-by=moorage,moorage.dev/model=tiny"
    assert found["servedName"] == "qwen"
    assert (found["replicas"], found["readyReplicas"], found["readyOfDesired"]) == (2, 1, "1/2")


def test_the_name_of_a_strangers_service_is_no_address() -> None:
    assert "url" not in status(model(), Observation(blocked=CONFLICT), NOW)
    assert "url" in status(model(), Observation(blocked=NO_IMAGE), NOW)


def test_facts_are_shown_as_far_as_they_are_known() -> None:
    everything = status(model(), Observation(deployment(), (ready(),), {"new": LOADED}), NOW)
    assert everything["resolved"] == {
        "engine": "llama.cpp",
        "engineVersion": "b1234",
        "device": "cpu",
        "quantization": "Q4_K_M",
        "contextLength": 4096,
        "weightsBytes": 100,
        "memoryBytes": 200,
    }
    nothing = status(model(), Observation(deployment(), (ready(),), {"new": Health(Phase.READY)}), NOW)
    assert "resolved" not in nothing
    assert by_type(nothing)["ModelLoaded"]["status"] == "True"


def test_facts_that_say_too_much_are_cut_or_left_out() -> None:
    odd = EngineFacts(
        "x" * 100, engine_version="v" * 64, weights_bytes=2**63, memory_bytes=-1, context_length=2**63 - 1
    )
    found = status(model(), Observation(deployment(), (ready(),), {"new": Health(Phase.READY, odd)}), NOW)
    assert found["resolved"] == {"engine": "x" * 64, "engineVersion": "v" * 64, "contextLength": 2**63 - 1}


def test_a_message_without_end_is_cut() -> None:
    found = status(model(), Observation(UNREADY, (pod(unschedulable="long " * 2000),)), NOW)
    assert len(by_type(found)["Ready"]["message"]) == MAX_MESSAGE_LENGTH


def test_facts_of_the_last_spec_are_shown_rather_than_those_of_an_earlier_one() -> None:
    pods = (ready("old", revision="1"), ready("new", revision="2"))
    answers = {"old": Health(Phase.READY, EngineFacts("old")), "new": Health(Phase.READY, EngineFacts("new"))}
    found = status(model(), Observation(deployment(revision="2"), pods, answers), NOW)
    assert found["resolved"] == {"engine": "new"}
    alone = status(model(), Observation(deployment(revision="2"), pods[:1], answers), NOW)
    assert alone["resolved"] == {"engine": "old"}


def test_facts_of_a_pod_that_is_not_ready_are_not_shown() -> None:
    assert "resolved" not in status(model(), Observation(UNREADY, (placed(),), {"new": LOADED}), NOW)


@pytest.mark.parametrize(
    ("seen", "kind", "text"),
    [
        (Observation(UNREADY, (SURGE,)), "Ready", f"Waiting for 2 nvidia.com/gpu: {NO_GPU.rstrip('.')}"),
        (
            Observation(UNREADY, (SURGE,), queue_position=QueuePosition(2, 5, "2 nvidia.com/gpu")),
            "Ready",
            f"Waiting for 2 nvidia.com/gpu, queue position 2 of 5: {NO_GPU.rstrip('.')}",
        ),
        (
            Observation(
                UNREADY, (replace(SURGE, nominated="gpu-7"),), queue_position=QueuePosition(1, 5, "2 nvidia.com/gpu")
            ),
            "Scheduled",
            "Waiting for 2 nvidia.com/gpu, queue position 1 of 5; preempting pods on node gpu-7",
        ),
        (
            Observation(UNREADY, (SURGE,), most={"nvidia.com/gpu": 1}, attainable={"nvidia.com/gpu": 1}),
            "Ready",
            "Each replica requests 2 nvidia.com/gpu, but no node has more than 1",
        ),
        (
            Observation(UNREADY, (SURGE,), most={"nvidia.com/gpu": 1}),
            "Ready",
            "Waiting for 2 nvidia.com/gpu; no node has so many now, but an autoscaler may add one",
        ),
        (Observation(UNREADY, (BAD_FILE,)), "Ready", "because of new"),
        (Observation(ROLLING, (OLD, BAD_FILE)), "Progressing", "ModelFileInvalid: because of new"),
        (
            Observation(ROLLING, (OLD, BAD_FILE)),
            "Ready",
            "1 of 1 replicas ready; the last change is not rolled out: New pods do not become ready: ModelFileInvalid",
        ),
        (
            Observation(deployment(), (OLD,), {"old": LOADED}, NO_IMAGE),
            "Ready",
            "1 of 1 replicas ready; the last change is not rolled out: NoImageForDevice: no image",
        ),
        (Observation(deployment(available_replicas=0, stuck="timed out")), "Progressing", "timed out"),
        (Observation(deployment(), (ready(),)), "ModelLoaded", "configured not to query them"),
        (Observation(deployment(), (ready(),), {}), "ModelLoaded", "has not queried them yet"),
        (Observation(deployment(), (ready(),), {"new": None}), "ModelLoaded", "do not report what they run"),
        (Observation(UNREADY, (placed(running=True),)), "Ready", "Loading the model"),
        (Observation(UNREADY, (placed(),)), "Ready", "Starting the container"),
        (Observation(UNREADY, (pod(),)), "Ready", "is not scheduled yet"),
    ],
)
def test_a_message_says_why(seen: Observation, kind: str, text: str) -> None:
    assert text in by_type(status(model(**GPU), seen, NOW))[kind]["message"]


def test_the_time_of_a_transition_changes_with_the_status_only() -> None:
    loading = status(model(), Observation(UNREADY, (placed(running=True),)), NOW)
    failed = status(model(status=loading), Observation(UNREADY, (BAD_FILE,)), LATER)
    times = {kind: found["lastTransitionTime"] for kind, found in by_type(failed).items()}
    # Ready was and is False, though for another reason; Progressing has become False.
    assert times == {"Ready": NOW, "Scheduled": NOW, "ModelLoaded": NOW, "Progressing": LATER, "Preempted": NOW} | {
        "Stalled": LATER
    }
    assert by_type(failed)["Ready"]["reason"] == "ModelFileInvalid"


def test_each_condition_tells_the_generation_that_it_is_about() -> None:
    changed = model().model_copy(update={"metadata": model().metadata.model_copy(update={"generation": 7})})
    found = status(changed, Observation(), NOW)
    assert {condition["observedGeneration"] for condition in found["conditions"]} == {7}
    assert found["observedGeneration"] == 7
