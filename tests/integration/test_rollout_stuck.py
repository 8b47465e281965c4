"""A change that is stuck behind a pod that serves: `kubectl get` and an Event show it, and so do GitOps tools."""

from hack.cluster.api import Cluster
from tests.support.api import Api, condition, is_ready, reason
from tests.support.kstatus import kstatus
from tests.support.models import model
from tests.support.operator import IMAGES, OperatorProcess, kubectl
from tests.support.waiting import eventually
from tests.truth import Truth


def test_cluster_10_a_change_that_is_stuck_is_shown_by_kubectl_get(
    api: Api, operator: OperatorProcess, cluster: Cluster
) -> None:
    truth = Truth(api, images=set(IMAGES))
    api.create(model("tiny"))
    api.wait("InferenceModel", "tiny", is_ready, what="Ready")
    # There is no image for it, so the old pod goes on.
    api.patch("InferenceModel", "tiny", {"spec": {"framework": "vllm"}})
    seen = api.wait("InferenceModel", "tiny", lambda im: reason(im) == "RolloutStuck", what="RolloutStuck")
    assert condition(seen, "Ready")["status"] == "True"
    assert (seen or {})["status"]["phase"] == "Running"
    table = kubectl(cluster, "-n", api.namespace, "get", "im", "tiny", "-o", "wide")
    assert "True    RolloutStuck" in table
    assert "1 of 1 replicas ready; the last change is not rolled out: NoImageForDevice: " in table
    told = "Warning   NoImageForDevice"
    eventually(lambda: told in kubectl(cluster, "-n", api.namespace, "events", "--for", "im/tiny"), "a Warning")
    truth.hold()


def test_cluster_20_kstatus_understands_a_model(api: Api, operator: OperatorProcess) -> None:
    truth = Truth(api, images=set(IMAGES))

    def becomes(state: str) -> None:
        api.wait("InferenceModel", "tiny", lambda im: kstatus(im or {}) == state, what=state)
        truth.hold()

    api.create(model("tiny", nodeSelector={"moorage.test/node": "none"}))
    api.wait("InferenceModel", "tiny", lambda im: reason(im) == "Unschedulable", what="Unschedulable")
    becomes("InProgress")
    api.patch("InferenceModel", "tiny", {"spec": {"nodeSelector": None}})
    becomes("Current")
    api.patch("InferenceModel", "tiny", {"spec": {"framework": "vllm"}})
    becomes("Failed")
    api.patch("InferenceModel", "tiny", {"spec": {"framework": "llamacpp"}})
    becomes("Current")
