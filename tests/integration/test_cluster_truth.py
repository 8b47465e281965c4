"""Failures that real clusters have and that a status must explain, by the rows of clusters.md."""

import itertools
from typing import Any

import pytest

from tests.support.api import Api, Object, condition, is_ready, reason, settled
from tests.support.kubelet import PlayedPod
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess, described
from tests.support.refusals import assert_says, refusal
from tests.support.waiting import eventually
from tests.truth import Truth

HF = {"uri": "hf://Qwen/Qwen2-7B@" + "a" * 40}
CLAIM = {"uri": "pvc://models/tiny.gguf"}
MULTI_ATTACH = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) tiny'
MOUNT = 'MountVolume.SetUp failed for volume "models": mount failed: exit status 32'
_numbers = itertools.count(1)


def make_claim(api: Api, mode: str) -> None:
    """The claim `models`, bound to a volume."""
    common = {"accessModes": [mode], "storageClassName": ""}
    name, size = f"models-of-{api.namespace}", {"storage": "1Gi"}
    volume = {**common, "capacity": size, "hostPath": {"path": "/nowhere"}}
    api.request("POST", "/api/v1/persistentvolumes", json={"metadata": {"name": name}, "spec": volume})
    claim = {**common, "volumeName": name, "resources": {"requests": size}}
    path = f"/api/v1/namespaces/{api.namespace}/persistentvolumeclaims"
    api.request("POST", path, json={"metadata": {"name": "models"}, "spec": claim})


def make_rule(api: Api, kind: str, spec: Object) -> None:
    """A ResourceQuota or LimitRange, and what it takes to be seen."""
    manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "strict"}, "spec": spec}
    path = f"/api/v1/namespaces/{api.namespace}/{kind.lower()}s"
    api.request("POST", path, json=manifest)
    if kind == "ResourceQuota":
        eventually(lambda: (api.request("GET", f"{path}/strict").get("status") or {}).get("hard"), "the quota is used")


def tell(api: Api, pod: PlayedPod, why: str, message: str) -> None:
    """What the attach/detach controller or a kubelet would tell of a pod."""
    uid = (api.get("Pod", pod.name) or {})["metadata"]["uid"]
    now = pod.at(1)
    event = {
        "metadata": {"name": f"{pod.name}.{next(_numbers)}"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "namespace": api.namespace, "uid": uid},
        "type": "Warning",
        "reason": why,
        "message": message,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": "kubelet"},
    }
    api.request("POST", api.path("Event"), json=event)


def events(api: Api, name: str) -> list[tuple[str, str]]:
    """Type and reason of all Events on a model."""
    uid = (api.get("InferenceModel", name) or {})["metadata"]["uid"]
    selector = {"fieldSelector": f"involvedObject.uid={uid}"}
    items = api.request("GET", api.path("Event"), params=selector)["items"]
    return sorted((event["type"], event["reason"]) for event in items)


def complete(obj: Object | None) -> bool:
    """Whether all pods are as the spec says."""
    return settled(obj) and reason(obj, "Progressing") == "Complete"


def surge(api: Api, name: str) -> Any:
    """How many pods more than wanted the Deployment may have."""
    return (api.get("Deployment", name) or {})["spec"]["strategy"]["rollingUpdate"]["maxSurge"]


def test_cluster_09_a_rollout_that_waits_for_a_claim_of_one_pod_makes_room(
    api: Api, operator: OperatorProcess, truth: Truth
) -> None:
    make_claim(api, "ReadWriteOncePod")
    api.create(model("tiny", source=CLAIM))
    api.wait("InferenceModel", "tiny", complete, what="Complete")
    api.patch("InferenceModel", "tiny", {"spec": {"maxConcurrency": 9}})
    api.wait("InferenceModel", "tiny", lambda im: reason(im, "Progressing") == "MakingRoom", what="MakingRoom")
    api.wait("InferenceModel", "tiny", complete, what="Complete again")
    assert is_ready(api.get("InferenceModel", "tiny"))
    eventually(lambda: surge(api, "tiny") == 1, "the next change is made beside the old pods")
    truth.hold()
    assert events(api, "tiny") == []


def test_cluster_09_a_volume_that_is_attached_to_the_old_pods_node_makes_room(
    api: Api, operator: OperatorProcess, truth: Truth
) -> None:
    # Without the claim the scheduler leaves the pods alone, and they are bound by hand.
    api.create(model("tiny", source=CLAIM))
    old = PlayedPod(api, "tiny")
    old.runs("10.1.0.1", ready=1)
    api.wait("InferenceModel", "tiny", complete, what="Complete")
    api.patch("InferenceModel", "tiny", {"spec": {"maxConcurrency": 9}})
    api.wait("InferenceModel", "tiny", lambda im: (im or {})["status"]["replicas"] == 2, what="a new pod")
    new = PlayedPod(api, "tiny")
    tell(api, new, "FailedAttachVolume", MULTI_ATTACH)
    api.wait("InferenceModel", "tiny", lambda im: reason(im, "Progressing") == "MakingRoom", what="MakingRoom")
    truth.hold()
    api.wait("Pod", old.name, lambda pod: "deletionTimestamp" in (pod or {})["metadata"], what="the old pod ends")
    seen = api.wait("InferenceModel", "tiny", lambda im: reason(im) == "VolumeUnavailable", what="the error is told")
    assert condition(seen, "Ready")["message"] == f"FailedAttachVolume: {MULTI_ATTACH}"
    truth.hold()
    old.vanishes()
    new.runs("10.1.0.2", ready=1)
    api.wait("InferenceModel", "tiny", complete, what="Complete again")
    eventually(lambda: surge(api, "tiny") == 1, "the next change is made beside the old pods")


def test_cluster_09_a_volume_that_cannot_be_mounted_is_told_in_the_kubelets_words(
    api: Api, operator: OperatorProcess, truth: Truth, audit: Audit
) -> None:
    api.create(model("tiny", source=CLAIM))
    pod = PlayedPod(api, "tiny")
    api.wait("InferenceModel", "tiny", lambda im: reason(im) == "Starting", what="Starting")
    tell(api, pod, "FailedMount", "Unable to attach or mount volumes: timed out waiting for the condition")
    tell(api, pod, "FailedMount", MOUNT)
    seen = api.wait("InferenceModel", "tiny", lambda im: reason(im) == "VolumeUnavailable", what="VolumeUnavailable")
    assert condition(seen, "Ready")["message"] == f"FailedMount: {MOUNT}"
    assert (reason(seen, "ModelLoaded"), reason(seen, "Progressing")) == ("VolumeUnavailable", "RolloutStuck")
    truth.hold()
    assert ("Warning", "VolumeUnavailable") in events(api, "tiny")
    position = audit.position()
    operator.stop()
    operator.start()
    api.create(model("later"))
    api.wait("InferenceModel", "later", complete, what="the operator is at work")
    assert [line for line in described(audit.writes(position)) if "/tiny" in line] == [], "it tells nothing twice"
    pod.runs("10.1.0.3", ready=1)
    api.wait("InferenceModel", "tiny", is_ready, what="Ready")
    truth.hold()


@pytest.mark.parametrize("source", [{"uri": "oci://localhost/models/tiny:1"}, HF], ids=["mounted", "fetched"])
def test_cluster_07_a_quota_on_cpu_limits_is_met_by_a_field(
    api: Api, operator: OperatorProcess, source: Object
) -> None:
    make_rule(api, "ResourceQuota", {"hard": {"limits.cpu": "4", "requests.cpu": "4", "limits.memory": "8Gi"}})
    api.create(model("tiny", source=source))
    seen = api.wait("InferenceModel", "tiny", lambda im: reason(im) == "QuotaExceeded", what="QuotaExceeded")
    assert_says(condition(seen, "Ready")["message"], "limits.cpu for: ", "set spec.resources.cpuLimit")
    assert events(api, "tiny") == [("Warning", "QuotaExceeded")]
    api.patch("InferenceModel", "tiny", {"spec": {"resources": {"cpuLimit": "2"}}})
    api.wait("InferenceModel", "tiny", has_a_pod, what="a pod")
    (pod,) = api.find("Pod", "moorage.dev/model=tiny")
    parts = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    assert {container["resources"]["limits"]["cpu"] for container in parts} == {"2"}


def has_a_pod(obj: Object | None) -> bool:
    """Whether the pods of a model are not refused any more."""
    return bool(((obj or {}).get("status") or {}).get("replicas"))


@pytest.mark.parametrize(
    ("limit", "resources", "words"),
    [
        (
            {"min": {"memory": "512Mi"}},
            ({"memory": "300Mi"}, {"memory": "512Mi"}),
            ("512Mi", "raise spec.resources.memory"),
        ),
        ({"min": {"cpu": "200m"}}, ({"cpu": "100m"}, {"cpu": "200m"}), ("200m of cpu", "raise spec.resources.cpu")),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            ({"cpu": "1", "cpuLimit": "4"}, {"cpuLimit": "2"}),
            ("at most 2 times", "4 times", "lower spec.resources.cpuLimit"),
        ),
        ({"max": {"cpu": "2"}}, ({"cpu": "3"}, {"cpu": "2"}), ("limit of 2", "lower spec.resources.cpu")),
    ],
)
def test_cluster_08_a_limit_range_is_told_with_the_field_to_change_which_suits_the_fetching_container_too(
    api: Api, operator: OperatorProcess, limit: Object, resources: tuple[Object, Object], words: tuple[str, ...]
) -> None:
    before, after = resources
    make_rule(api, "LimitRange", {"limits": [{"type": "Container", **limit}]})
    api.create(model("tiny", source=HF, resources=before))
    seen = api.wait("InferenceModel", "tiny", lambda im: reason(im) == "LimitRangeViolated", what="LimitRangeViolated")
    assert_says(condition(seen, "Ready")["message"], "A LimitRange ", *words)
    api.patch("InferenceModel", "tiny", {"spec": {"resources": after}})
    api.wait("InferenceModel", "tiny", has_a_pod, what="a pod")


def test_cluster_07_a_cpu_limit_is_a_quantity_of_at_least_the_request(api: Api) -> None:
    assert_says(
        refusal(api, {"resources": {"cpu": "1.5", "cpuLimit": "1400m"}}),
        "spec.resources.cpuLimit",
        "must be at least resources.cpu",
    )
    assert_says(refusal(api, {"resources": {"cpuLimit": "500m"}}), "must be at least resources.cpu")
    text = refusal(api, {"resources": {"cpuLimit": "lots"}})
    assert_says(text, "spec.resources.cpuLimit", "lots", "positive Kubernetes quantity")
    for resources in ({"cpu": 2, "cpuLimit": "2000m"}, {"cpuLimit": 1}, {"cpu": "500m", "cpuLimit": "0.5"}):
        api.create(model("tiny", resources=resources), dry_run=True)


def test_cluster_11_what_fails_has_one_warning_and_what_works_none(
    api: Api, operator: OperatorProcess, truth: Truth
) -> None:
    api.create(model("tiny"))
    api.wait("InferenceModel", "tiny", complete, what="Complete")
    assert events(api, "tiny") == []
    # The old pod serves on, and the change does not arrive.
    api.patch("InferenceModel", "tiny", {"spec": {"source": CLAIM}})
    api.wait("InferenceModel", "tiny", lambda im: reason(im, "Scheduled") == "VolumeNotFound", what="VolumeNotFound")
    assert is_ready(api.get("InferenceModel", "tiny"))
    assert events(api, "tiny") == [("Warning", "VolumeNotFound")]
    truth.hold()
    api.create(model("alone", source=CLAIM))
    api.wait("InferenceModel", "alone", lambda im: reason(im) == "VolumeNotFound", what="VolumeNotFound")
    assert events(api, "alone") == [("Warning", "VolumeNotFound")]
