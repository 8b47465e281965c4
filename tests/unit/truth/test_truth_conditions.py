"""In every situation the true status passes and a false one is found, field by field."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.truth.conditions import FOR_KSTATUS, JUDGED, NOT_JUDGED
from tests.truth.objects import Object
from tests.unit.truth.scene import NO_GPU, VERDICT, WAITS, Scene, says, says_it_waits

Situation = Callable[[Scene], Object]


def serving(scene: Scene) -> Object:
    return scene.serving()


def loaded(scene: Scene) -> Object:
    model = scene.serving()
    says(model, ModelLoaded=("True", "Loaded"))
    return model


def just_made(scene: Scene) -> Object:
    model = scene.model()
    starting(model, 0)
    return model


def starting(model: Object, replicas: int = 1, /, **verdicts: VERDICT) -> None:
    """The status of a model that has just begun."""
    on_its_way = {
        "Ready": ("False", "Starting"),
        "Scheduled": ("False", "Starting"),
        "ModelLoaded": ("False", "Unloaded"),
        "Progressing": ("True", "RollingOut"),
    }
    says(model, "Starting", replicas, 0, **{**on_its_way, **verdicts})


def loading(scene: Scene) -> Object:
    model = scene.model()
    scene.pod(model, node="gpu-0", container={"state": {"running": {}}})
    starting(model, Scheduled=("True", "Scheduled"), ModelLoaded=("False", "Loading"))
    return model


def waiting(scene: Scene) -> Object:
    model = scene.waiting()
    says_it_waits(model, 1, 1)
    return model


def no_such_resource(scene: Scene) -> Object:
    model = scene.waiting(gpus=9)
    never = ("False", "NoSuchResource")
    says(model, "WaitingForResources", None, 0, **{**WAITS, "Ready": never, "Scheduled": never})
    return model


def unschedulable(scene: Scene) -> Object:
    model = scene.model()
    scene.pod(model, words="0/1 nodes are available: 1 node(s) had untolerated taint(s).")
    why = ("False", "Unschedulable")
    says(model, "WaitingForResources", None, 0, **{**WAITS, "Ready": why, "Scheduled": why})
    return model


def no_claim(scene: Scene) -> Object:
    model = scene.model(source={"uri": "pvc://models/a.gguf"})
    scene.pod(model, words='0/1 nodes are available: persistentvolumeclaim "models" not found.')
    why = ("False", "VolumeNotFound")
    says(model, "WaitingForResources", None, 0, **{**WAITS, "Ready": why, "Scheduled": why})
    return model


def over_quota(scene: Scene) -> Object:
    return refused(scene, "exceeded quota: small, requested: pods=1", "QuotaExceeded")


def not_restricted(scene: Scene) -> Object:
    return refused(scene, 'violates PodSecurity "restricted:latest"', "PodSecurityDenied")


def refused(scene: Scene, words: str, why: str) -> Object:
    """A model whose pods may not be made."""
    model = scene.model()
    failure = {"type": "ReplicaFailure", "status": "True", "message": f"pods is forbidden: {words}"}
    scene.child("ReplicaSet", model)["status"] = {"conditions": [failure]}
    because = ("False", why)
    says(model, "WaitingForResources", 0, **{**WAITS, "Ready": because, "Scheduled": because})
    return model


def not_pulled(scene: Scene) -> Object:
    return failing(scene, {"state": {"waiting": {"reason": "ImagePullBackOff"}}}, "ImagePullFailed")


def out_of_memory(scene: Scene) -> Object:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    return failing(scene, {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}, "OutOfMemory")


def bad_file(scene: Scene) -> Object:
    message = '{"reason": "ModelFileInvalid", "message": "cut short"}'
    return failing(scene, {"state": {"terminated": {"exitCode": 3, "message": message}}}, "ModelFileInvalid")


def crash_looping(scene: Scene) -> Object:
    return failing(scene, {"state": {"terminated": {"exitCode": 1}}}, "CrashLooping")


def failing(scene: Scene, container: Object, why: str) -> Object:
    """A model whose only pod does not come up."""
    model = scene.model()
    scene.pod(model, node="gpu-0", container=container)
    because = ("False", why)
    says(model, "Failed", None, 0, Ready=because, ModelLoaded=because, Progressing=("False", "RolloutStuck"))
    return model


def stopped(scene: Scene) -> Object:
    model = scene.model(suspend=True)
    off = ("False", "Stopped")
    says(model, "Stopped", 0, Ready=off, Scheduled=off, ModelLoaded=("False", "Unloaded"))
    return model


def stopping(scene: Scene) -> Object:
    model = scene.model(suspend=True)
    scene.pod(model, node="gpu-0", ready=True)["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    off, over = ("False", "Stopped"), ("False", "Stopping")
    says(model, "Stopping", 0, Ready=over, Scheduled=off, ModelLoaded=over)
    return model


def name_conflict(scene: Scene) -> Object:
    model = scene.model()
    for kind in ("Deployment", "ReplicaSet"):
        scene.remove(scene.child(kind, model))
    scene.add("Deployment", "tiny", spec={})
    why = ("False", "NameConflict")
    unloaded = ("False", "Unloaded")
    says(model, "Failed", 0, Ready=why, Scheduled=why, ModelLoaded=unloaded, Progressing=why)
    return model


def stopped_with_a_stranger(scene: Scene) -> Object:
    model = name_conflict(scene)
    model["spec"]["suspend"] = True
    off = ("False", "Stopped")
    conflict = ("False", "NameConflict")
    says(model, "Stopped", 0, Ready=off, Scheduled=off, ModelLoaded=("False", "Unloaded"), Progressing=conflict)
    return model


def rolling(scene: Scene) -> Object:
    model = scene.serving()
    scene.roll_out(model)
    scene.pod(model, node="gpu-0")
    says(model, "Running", 2, 1, Progressing=("True", "RollingOut"))
    return model


def making_room(scene: Scene) -> Object:
    model = scene.serving()
    scene.roll_out(model, surge=0)
    scene.pod(model, words=NO_GPU)
    says(model, "Running", 2, 1, Scheduled=("False", "WaitingForGPU"), Progressing=("True", "MakingRoom"))
    model["status"]["queue"] = {"position": 1, "of": 1, "summary": "1/1", "waitingFor": "2 nvidia.com/gpu"}
    return model


def stuck(scene: Scene) -> Object:
    model = scene.serving()
    scene.roll_out(model)
    scene.pod(model, node="gpu-0", container={"state": {"waiting": {"reason": "ErrImagePull"}}})
    why = ("True", "RolloutStuck")
    says(model, "Running", 2, 1, Ready=why, Progressing=("False", "RolloutStuck"), Reconciling=why)
    return model


def half_ready(scene: Scene) -> Object:
    model = scene.model(replicas=2)
    scene.pod(model, node="gpu-0", ready=True)
    scene.pod(model, node="gpu-0", container={"state": {"running": {}}})
    says(model, "Running", None, 1, Progressing=("True", "RollingOut"))
    return model


SITUATIONS: tuple[Situation, ...] = (
    *(serving, loaded, just_made, loading, waiting, no_such_resource, unschedulable, no_claim, over_quota),
    *(not_restricted, not_pulled, out_of_memory, bad_file, crash_looping, stopped, stopping, name_conflict),
    *(stopped_with_a_stranger, rolling, making_room, stuck, half_ready),
)


STRANGERS = (name_conflict, stopped_with_a_stranger)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_true_status_passes(scene: Scene, situation: Situation) -> None:
    situation(scene)
    assert [str(lie) for lie in scene.lies()] == []


WRONG: dict[str, Any] = {
    "phase": "Hidden",
    "observedGeneration": 7,
    "replicas": 9,
    "readyReplicas": 9,
    "readyOfDesired": "9/9",
    "selector": "app=other",
    "url": "http://elsewhere.example/v1",
    "servedName": "other",
    "preemptedBy": "team-b/nobody",
}
WRONG_SECTIONS: dict[str, dict[str, Any]] = {
    "queue": {"position": 9, "of": 9, "summary": "9/9", "waitingFor": "9 nvidia.com/gpu"},
    "preemption": {"count": 9, "last": {"by": "team-b/nobody"}, "history": [{"by": "team-b/nobody"}]},
}


@pytest.mark.parametrize(
    ("situation", "field"),
    # Without a Deployment of its own a model has no pods, and nothing says what would select them.
    [(one, field) for one in SITUATIONS for field in WRONG if field != "selector" or one not in STRANGERS],
)
def test_a_false_field_is_found(scene: Scene, situation: Situation, field: str) -> None:
    situation(scene)["status"][field] = WRONG[field]
    assert scene.false_fields() == {field}


@pytest.mark.parametrize(("section", "field"), [(s, f) for s, fields in WRONG_SECTIONS.items() for f in fields])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_false_field_of_a_section_is_found(scene: Scene, situation: Situation, section: str, field: str) -> None:
    status = situation(scene)["status"]
    status[section] = {**status.get(section, {}), field: WRONG_SECTIONS[section][field]}
    assert scene.false_fields() == {f"{section}.{field}"}


@pytest.mark.parametrize("kind", JUDGED)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_false_condition_is_found(scene: Scene, situation: Situation, kind: str) -> None:
    entry = next(one for one in situation(scene)["status"]["conditions"] if one["type"] == kind)
    entry["reason"] = "Forbidden"
    assert f"conditions.{kind}" in scene.false_fields() <= {f"conditions.{kind}", "phase"}


@pytest.mark.parametrize("kind", JUDGED)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_condition_of_the_wrong_status_is_found(scene: Scene, situation: Situation, kind: str) -> None:
    entry = next(one for one in situation(scene)["status"]["conditions"] if one["type"] == kind)
    entry["status"] = "False" if entry["status"] == "True" else "True"
    assert f"conditions.{kind}" in scene.false_fields()


@pytest.mark.parametrize("kind", JUDGED)
def test_a_missing_condition_and_one_about_an_older_spec_are_found(scene: Scene, kind: str) -> None:
    status = serving(scene)["status"]
    entry = next(one for one in status["conditions"] if one["type"] == kind)
    entry["observedGeneration"] = 0
    assert scene.false_fields() == {f"conditions.{kind}.observedGeneration"}
    status["conditions"].remove(entry)
    assert f"conditions.{kind}" in scene.false_fields()


def test_a_condition_that_nobody_knows_is_found_and_one_of_the_engine_is_not_judged(scene: Scene) -> None:
    status = serving(scene)["status"]
    status["conditions"] += [{"type": kind, "status": "True", "reason": "X"} for kind in ("Degraded", *NOT_JUDGED)]
    assert scene.false_fields() == {"conditions.Degraded"}


def test_a_status_that_says_nothing_is_found(scene: Scene) -> None:
    del serving(scene)["status"]
    assert scene.false_fields() == {"status"}


def test_numbers_in_messages_are_held_against_the_pods(scene: Scene) -> None:
    entry = serving(scene)["status"]["conditions"][0]
    entry["message"] = "1 of 1 replicas ready"
    assert scene.lies() == []
    entry["message"] = "1 of 2 replicas ready"
    assert scene.false_fields() == {"conditions.Ready.message"}
    for wrong in ("Waiting for 2 nvidia.com/gpu, queue position 1 of 1", "preempting pods on node gpu-7"):
        entry["message"] = wrong
        assert scene.false_fields() == {"conditions.Ready.message"}
    scene.found["Pod"][0]["status"]["nominatedNodeName"] = "gpu-7"
    assert scene.lies() == []


def test_the_reason_is_of_the_spec_as_it_is_now(scene: Scene) -> None:
    model = scene.model()
    scene.pod(model, node="gpu-0", container={"state": {"waiting": {"reason": "ErrImagePull"}}})
    scene.roll_out(model)
    scene.pod(model)
    starting(model, 2)
    assert scene.lies() == []
    model["status"]["conditions"][0]["reason"] = "ImagePullFailed"
    assert "conditions.Ready" in scene.false_fields()


def test_a_pod_that_is_lost_after_a_change_has_arrived_is_no_change(scene: Scene) -> None:
    model = scene.serving()
    assert scene.lies() == []
    scene.remove(scene.found["Pod"][0])
    scene.pod(model)
    starting(model)
    assert scene.false_fields() == {"conditions.Progressing"}
    starting(model, Progressing=("False", "Complete"))
    assert scene.lies() == []
    # More replicas are a change, however, also those that the operator has decided on.
    model["spec"]["scaling"] = {"minReplicas": 1, "maxReplicas": 2}
    scene.child("Deployment", model)["spec"]["replicas"] = 2
    starting(model, Progressing=("False", "Complete"))
    assert scene.false_fields() == {"conditions.Progressing", "readyOfDesired"}
    del model["spec"]["scaling"]
    model["spec"]["replicas"] = scene.child("Deployment", model)["spec"]["replicas"] = 2
    model["metadata"]["generation"] = 2
    starting(model, Progressing=("False", "Complete"))
    assert scene.false_fields() == {"conditions.Progressing"}


def test_the_address_of_a_stranger_is_no_address_of_the_model(scene: Scene) -> None:
    model = name_conflict(scene)
    scene.remove(scene.child("Service", model))
    scene.add("Service", "tiny", spec={"ports": [{"port": 80}]})
    assert scene.false_fields() == {"url"}
    del model["status"]["url"]
    assert scene.lies() == []


def test_what_a_deleted_model_of_that_name_has_left_is_no_conflict(scene: Scene) -> None:
    model = scene.serving()
    scene.child("PodDisruptionBudget", model)["metadata"]["ownerReferences"][0]["uid"] = "of the one before"
    assert scene.lies() == []


def test_labels_make_no_pod_a_models_own(scene: Scene) -> None:
    model = scene.serving()
    labels = scene.found["Pod"][0]["metadata"].get("labels", {})
    scene.add("Pod", "forged", labels=labels, spec={}, status={"conditions": [{"type": "Ready", "status": "True"}]})
    assert scene.lies() == []
    assert model["status"]["readyReplicas"] == 1


def test_a_model_that_is_being_deleted_has_nothing_to_tell(scene: Scene) -> None:
    model = scene.serving()
    model["status"]["replicas"] = 7
    model["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert scene.lies() == []


def test_a_node_that_has_gone_may_come_back_and_one_that_never_was_only_by_an_autoscaler(scene: Scene) -> None:
    node = scene.found["Node"][0]
    model = scene.waiting(gpus=8)
    says_it_waits(model, 1, 1, "8")
    assert scene.lies() == []
    scene.remove(node)
    assert scene.lies() == []
    model["status"]["conditions"][0]["message"] = "Waiting for 8 nvidia.com/gpu; no node has so many now, but …"
    assert scene.lies() == []
    scene.add("Node", "gpu-1", status={"allocatable": {"nvidia.com/gpu": "8"}})
    assert scene.false_fields() == {"conditions.Ready.message"}
    scene.remove(model)
    no_such_resource(scene)
    assert scene.lies() == []
    assert "conditions.Ready" in scene.false_fields(autoscaled=True)


def test_a_stopped_model_without_an_image_is_stopped(scene: Scene) -> None:
    model = stopped(scene)
    images = {"vllm/cpu"}
    off, none = ("False", "Stopped"), ("False", "NoImageForDevice")
    told = {"Scheduled": off, "ModelLoaded": ("False", "Unloaded"), "Progressing": none}
    says(model, "Stopped", 0, Ready=off, **told)
    assert scene.lies(images=images) == []
    says(model, "Failed", 0, Ready=none, **told)
    assert scene.false_fields(images=images) == {"conditions.Ready", "conditions.Stalled", "phase"}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_is_said_for_kstatus_is_judged(scene: Scene, situation: Situation) -> None:
    said = situation(scene)["status"]["conditions"]
    entry = next((one for one in said if one["type"] in FOR_KSTATUS), None)
    if entry is None:
        said.append({**said[0], "type": "Stalled", "status": "True", "reason": "RolloutStuck"})
        assert scene.false_fields() == {"conditions.Stalled"}
        return
    kind = entry["type"]
    entry["reason"] = "Forbidden"
    assert scene.false_fields() == {f"conditions.{kind}"}
    said.remove(entry)
    assert scene.false_fields() == {f"conditions.{kind}"}


def test_failed_pods_do_not_pile_up(scene: Scene) -> None:
    model = just_made(scene)
    for _ in range(2):
        scene.pod(model, node="gpu-0")["status"]["phase"] = "Failed"
    assert scene.false_fields() == {"failed pods"}
    scene.remove(scene.found["Pod"][0])
    assert scene.lies() == []
    scene.pod(model, node="gpu-0", ready=True)
    says(model)
    assert scene.false_fields() == {"failed pods"}
    scene.remove(scene.found["Pod"][0])
    assert scene.lies() == []


def test_other_namespaces_and_unknown_images_are_judged_on_demand(scene: Scene) -> None:
    model = serving(scene)
    model["status"]["replicas"] = 7
    assert scene.lies(namespaces=["team-b"]) == []
    assert scene.false_fields(namespaces=["team-a"]) == {"replicas"}
    assert "conditions.Progressing" in scene.false_fields(images={"vllm/cpu"})
    assert scene.false_fields(images={"vllm/gpu"}) == {"replicas"}


RWOP = (
    "0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
    "already in-use by another pod."
)
MODELS: dict[str, Any] = {"persistentVolumeClaim": {"claimName": "models"}}


def volume_event(scene: Scene, pod: Object, reason: str, message: str) -> None:
    """An Event on a pod."""
    scene.add(reason, f"{pod['metadata']['name']}.1", involvedObject={"uid": pod["metadata"]["uid"]}, message=message)


def replacing(scene: Scene, *, surge: int = 1, claim: str = "models", **new: Any) -> tuple[Object, Object]:
    """A model that serves from a claim, and the new pod of a rollout."""
    model = scene.serving(gpus=0, source={"uri": "pvc://models/a.gguf"})
    scene.add("PersistentVolumeClaim", "models")
    scene.found["Pod"][0]["spec"]["volumes"] = [MODELS]
    scene.roll_out(model, surge=surge)
    pod = scene.pod(model, **new)
    pod["spec"]["volumes"] = [{"persistentVolumeClaim": {"claimName": claim}}]
    return model, pod


@pytest.mark.parametrize(("claim", "reason"), [("models", "MakingRoom"), ("others", "RollingOut")])
def test_cluster_09_who_waits_for_the_claim_of_its_old_pod_makes_room(scene: Scene, claim: str, reason: str) -> None:
    model, _ = replacing(scene, claim=claim, words=RWOP)
    for told in ("MakingRoom", "RollingOut"):
        says(model, "Running", 2, 1, Scheduled=("False", "Unschedulable"), Progressing=("True", told))
        assert scene.false_fields() == (set() if told == reason else {"conditions.Progressing"})


def test_cluster_09_a_volume_that_is_attached_elsewhere_makes_room_or_not_yet(scene: Scene) -> None:
    model, pod = replacing(scene, node="gpu-1")
    says(model, "Running", 2, 1, Progressing=("True", "MakingRoom"))
    assert scene.false_fields() == {"conditions.Progressing"}, "no Event says so"
    volume_event(scene, pod, "FailedAttachVolume", "Multi-Attach error for volume")
    assert scene.false_fields() == set()
    says(model, "Running", 2, 1, Progressing=("True", "RollingOut"))
    assert scene.false_fields() == set(), "it is told after 10 s"


def test_cluster_09_a_volume_is_unavailable_where_an_event_says_so_and_no_container_has_begun(scene: Scene) -> None:
    model = scene.model()
    pod = scene.pod(model, node="gpu-0", container={"state": {"waiting": {"reason": "ContainerCreating"}}})
    why = ("False", "VolumeUnavailable")
    told = {"Ready": why, "ModelLoaded": why, "Progressing": ("False", "RolloutStuck")}
    says(model, "Failed", None, 0, **told)
    assert {"conditions.Ready", "conditions.ModelLoaded", "conditions.Progressing"} <= scene.false_fields()
    volume_event(scene, pod, "FailedMount", "mount failed")
    assert scene.false_fields() == set()
    pod["status"]["containerStatuses"][0]["state"] = {"running": {}}
    assert "conditions.Ready" in scene.false_fields()


def test_cluster_07_a_quota_that_nothing_can_free_makes_no_room(scene: Scene) -> None:
    model = scene.serving()
    replica_set = scene.roll_out(model)
    for words, reason in (
        ("failed quota: q: must specify limits.cpu", "RollingOut"),
        ("exceeded quota: q", "MakingRoom"),
    ):
        failure = {"type": "ReplicaFailure", "status": "True", "message": words}
        replica_set["status"] = {"conditions": [failure]}
        says(model, "Running", 1, 1, Scheduled=("False", "QuotaExceeded"), Progressing=("True", reason))
        assert scene.false_fields() == set()
