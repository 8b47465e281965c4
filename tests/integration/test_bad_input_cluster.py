"""What the API server takes and the cluster has to answer, by the rows of reliability.md, and what a refusal leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden.cases import FOLDER
from tests.support.api import Api, ApiRefusedError, Object, condition, is_ready, reason
from tests.support.models import model
from tests.support.operator import IMAGES, Audit, OperatorProcess, described
from tests.support.people import person
from tests.support.refusals import assert_says, refusal
from tests.truth import Truth


@pytest.fixture
def truth(api: Api) -> Truth:
    """What the statuses are held against."""
    return Truth(api, images=set(IMAGES))


def test_bad_input_05_no_image_for_the_device(api: Api, operator: OperatorProcess) -> None:
    api.create(model("no-image", framework="vllm"))
    seen = api.wait("InferenceModel", "no-image", lambda im: reason(im) == "NoImageForDevice", what="NoImageForDevice")
    assert_says(condition(seen, "Ready")["message"], "vllm/cpu", "runtime.images", "llamacpp/cpu")
    assert api.get("Deployment", "no-image") is None
    # It clears by itself once the spec asks for something that there is.
    api.patch("InferenceModel", "no-image", {"spec": {"framework": "llamacpp"}})
    api.wait("InferenceModel", "no-image", lambda im: reason(im) == "Serving", what="Serving")


def test_bad_input_05_a_suspended_model_without_an_image_is_stopped(
    api: Api, operator: OperatorProcess, truth: Truth
) -> None:
    api.create(model("tiny"))
    api.wait("InferenceModel", "tiny", is_ready, what="Ready")
    # There is no image for this framework, and none is needed to end the pods of the one before.
    api.patch("InferenceModel", "tiny", {"spec": {"framework": "vllm", "suspend": True}})
    seen = api.wait("InferenceModel", "tiny", lambda im: reason(im) == "Stopped", what="Stopped")
    assert (seen or {})["status"]["phase"] == "Stopped"
    assert reason(seen, "Progressing") == "NoImageForDevice"
    assert api.find("Pod", "moorage.dev/model=tiny") == []
    truth.hold()


@pytest.mark.parametrize("resources", [{"cpu": "0.1", "memory": "1.5Gi"}, {"cpu": "1000m", "memory": "1024Mi"}])
def test_a_quantity_that_the_api_server_writes_otherwise_is_no_drift(
    api: Api, operator: OperatorProcess, audit: Audit, resources: dict[str, str]
) -> None:
    api.create(model("same", resources=resources))
    api.wait("InferenceModel", "same", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    start = audit.position()
    live = api.patch("Deployment", "same", {"metadata": {"labels": {"example.org/touched": "yes"}}})
    # Whatever the operator does about the label comes before what it does about the model that is made after it.
    api.create(model("later"))
    api.wait("InferenceModel", "later", lambda im: reason(im) == "Serving", what="Serving")
    # The last write of the status may get into the log after its event has reached us; the Deployment's are meant.
    targets = [write["objectRef"] for write in audit.writes(start)]
    assert [t for t in targets if (t["resource"], t.get("name")) == ("deployments", "same")] == []
    assert (api.get("Deployment", "same") or {})["metadata"]["generation"] == live["metadata"]["generation"]


def test_bad_input_33_two_models_of_one_served_name_do_not_collide(api: Api, operator: OperatorProcess) -> None:
    # A served name is what clients write into a request to the model's own address. Each model has its own Service, so
    # two may have the same one; that changes when one gateway answers for all of them.
    for name in ("first", "second"):
        api.create(model(name, servedName="shared"))
    seen = [api.wait("InferenceModel", name, is_ready, what="Ready") or {} for name in ("first", "second")]
    assert [im["status"]["servedName"] for im in seen] == ["shared", "shared"]
    assert [im["status"]["url"] for im in seen] == [
        f"http://{name}.{api.namespace}.svc/v1" for name in ("first", "second")
    ]
    selectors = [(api.get("Service", name) or {})["spec"]["selector"] for name in ("first", "second")]
    pods = [api.find("Pod", ",".join(f"{key}={value}" for key, value in selector.items())) for selector in selectors]
    assert [len(found) for found in pods] == [1, 1]
    assert pods[0][0]["metadata"]["uid"] != pods[1][0]["metadata"]["uid"]


@pytest.mark.parametrize(("gpu", "most"), [({"count": 9}, 8), ({"count": 1, "resourceName": "amd.com/gpu"}, 0)])
def test_bad_input_35_more_gpus_than_any_node_has(
    api: Api, operator: OperatorProcess, gpu: dict[str, Any], most: int
) -> None:
    api.create(model("huge", gpu=gpu))
    seen = api.wait("InferenceModel", "huge", lambda im: reason(im) == "NoSuchResource", what="NoSuchResource")
    name = gpu.get("resourceName", "nvidia.com/gpu")
    assert_says(condition(seen, "Scheduled")["message"], f"requests {gpu['count']} {name}", f"more than {most}")
    # It clears by itself once the spec asks for what there is.
    api.patch("InferenceModel", "huge", {"spec": {"gpu": {"count": 1, "resourceName": "nvidia.com/gpu"}}})
    api.wait("InferenceModel", "huge", is_ready, what="Ready")


def test_cluster_03_where_nodes_are_autoscaled_no_request_is_too_large(
    api: Api, operator_kubeconfig: Path, tmp_path: Path
) -> None:
    operator = OperatorProcess(operator_kubeconfig, tmp_path / "operator.log", MOORAGE_AUTOSCALED_NODES="true")
    operator.start()
    api.create(model("huge", gpu={"count": 9}))
    seen = api.wait("InferenceModel", "huge", lambda im: reason(im) == "WaitingForGPU", what="WaitingForGPU")
    told = condition(seen, "Ready")["message"]
    assert_says(told, "Waiting for 9 nvidia.com/gpu", "no node has so many now, but an autoscaler may add one")
    Truth(api, autoscaled=True).hold()
    operator.stop()
    assert operator.errors() == []


def test_a_node_selector_that_no_node_has_is_told_in_the_scheduler_s_words(api: Api, operator: OperatorProcess) -> None:
    api.create(model("nowhere", nodeSelector={"example.org/moon": "yes"}))
    seen = api.wait("InferenceModel", "nowhere", lambda im: reason(im) == "Unschedulable", what="Unschedulable")
    assert_says(condition(seen, "Scheduled")["message"], "node affinity/selector")
    api.patch("InferenceModel", "nowhere", {"spec": {"nodeSelector": None}})
    api.wait("InferenceModel", "nowhere", is_ready, what="Ready")


def test_a_toleration_lets_a_model_on_a_tainted_node(api: Api, operator: OperatorProcess) -> None:
    node = add_tainted_node(api)
    place = {"nodeSelector": {"kubernetes.io/hostname": node}}
    api.create(model("tainted", **place))
    api.wait("InferenceModel", "tainted", lambda im: reason(im) == "Unschedulable", what="Unschedulable")
    api.patch("InferenceModel", "tainted", {"spec": {"tolerations": [{"key": "example.org/ours", "value": "yes"}]}})
    api.wait("InferenceModel", "tainted", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    (pod,) = [p for p in api.find("Pod", "moorage.dev/model=tainted") if "deletionTimestamp" not in p["metadata"]]
    assert pod["spec"]["nodeName"] == node
    api.delete("InferenceModel", "tainted")
    api.request("DELETE", f"/api/v1/nodes/{node}")


def add_tainted_node(api: Api) -> str:
    """Another fake node, which takes only pods that tolerate `example.org/ours=yes`."""
    (like, *_) = api.request("GET", "/api/v1/nodes")["items"]
    name = f"{api.namespace}-tainted"
    metadata = {
        "name": name,
        "labels": {**like["metadata"]["labels"], "kubernetes.io/hostname": name},
        "annotations": like["metadata"].get("annotations", {}),
    }
    spec = {"taints": [{"key": "example.org/ours", "value": "yes", "effect": "NoSchedule"}]}
    wanted = {"metadata": metadata, "spec": spec, "status": like["status"]}
    api.request("POST", "/api/v1/nodes", json=wanted)
    return name


def test_bad_input_38_forged_annotations_change_nothing(api: Api, operator: OperatorProcess) -> None:
    forged = model("forged")
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-0000-0000-000000000000"}
    forged["metadata"] |= {
        "annotations": {
            "kopf.zalando.org/last-handled-configuration": '{"spec":{}}',
            "kopf.zalando.org/create": '{"success":true}',
            "moorage.dev/applied-hash": "0000",
        },
        "labels": {"moorage.dev/model": "another", "app.kubernetes.io/managed-by": "moorage"},
    }
    api.create(forged)
    api.create(model("honest"))
    for name in ("forged", "honest"):
        api.wait("InferenceModel", name, lambda im: reason(im) == "Serving", what="Serving")
    specs = [(api.get("Deployment", name) or {})["spec"] for name in ("forged", "honest")]
    assert _anonymous(specs[0]) == _anonymous(specs[1])
    # A finalizer of the author's is the author's: the children go all the same, by the garbage collector.
    api.patch(
        "InferenceModel", "forged", {"metadata": {"finalizers": ["example.org/mine"], "ownerReferences": [stranger]}}
    )
    api.delete("InferenceModel", "forged")
    api.patch("InferenceModel", "forged", {"metadata": {"finalizers": []}})
    api.wait("Deployment", "forged", lambda found: found is None, what="the children are gone")


IDENTITY = {"moorage.dev/model-uid", "moorage.dev/revision"}


def _anonymous(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _anonymous(item) for key, item in value.items() if key not in IDENTITY}
    if isinstance(value, list):
        return [_anonymous(item) for item in value]
    return value.replace("forged", "NAME").replace("honest", "NAME") if isinstance(value, str) else value


def test_bad_input_39_status_written_by_a_user(api: Api, operator: OperatorProcess) -> None:
    lie = model("liar") | {"status": {"phase": "Running", "url": "http://elsewhere.example"}}
    assert "status" not in api.create(lie), "a status given at creation is dropped"
    complete = api.wait("InferenceModel", "liar", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    # Somebody with the right to write a status, which our roles give to nobody, is corrected.
    api.patch("InferenceModel", "liar", {"status": {"phase": "Failed", "url": "http://elsewhere.example"}}, "status")
    api.wait(
        "InferenceModel", "liar", lambda im: (im or {})["status"] == (complete or {})["status"], what="the truth again"
    )


def test_bad_input_39_an_editor_has_no_right_to_a_status(api: Api, operator: OperatorProcess) -> None:
    editor = person(api, "edith", "moorage-edit", "moorage-view", "moorage-admin")
    editor.create(model("honest"))
    done = api.wait("InferenceModel", "honest", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    seen = done or {}
    lie = {"status": {"phase": "Failed", "url": "http://elsewhere.example"}}
    with pytest.raises(ApiRefusedError, match="inferencemodels/status") as refused:
        editor.patch("InferenceModel", "honest", lie, "status")
    assert refused.value.status == 403
    # Through the object itself, it is left out.
    editor.patch("InferenceModel", "honest", {**lie, "metadata": {"labels": {"touched": "yes"}}})
    assert (api.get("InferenceModel", "honest") or {})["status"] == seen["status"]


def test_roles_for_people_do_not_grant_status(api: Api) -> None:
    for role in ("moorage-edit", "moorage-view", "moorage-admin"):
        rules = api.request("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}")["rules"]
        writable = [r for rule in rules if {"update", "patch"} & set(rule["verbs"]) for r in rule["resources"]]
        assert "inferencemodels/status" not in writable


BAD: list[dict[str, Any]] = [
    {"framework": "vLLM"},
    {"priority": 11},
    {"quantization": "awq"},
    {"source": {"uri": "https://169.254.169.254/"}},
    {"extraArgs": ["--trust-remote-code"]},
    {"env": [{"name": "LD_PRELOAD", "value": "x"}]},
    {"hostNetwork": True},
    {"tolerations": [{"operator": "Exists"}]},
    {"parameters": {"temperature": 99}},
    {"description": "x" * 5000},
]


def test_a_refused_model_never_reaches_the_operator(api: Api, operator: OperatorProcess, audit: Audit) -> None:
    start = audit.position()
    for number, fields in enumerate(BAD):
        refusal(api, fields, f"refused-{number}")
    api.create(model("accepted"))
    api.wait("InferenceModel", "accepted", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    assert [im["metadata"]["name"] for im in api.find("InferenceModel")] == ["accepted"]
    # Nor does a change that is refused.
    for fields in BAD:
        query = {"fieldValidation": "Strict"}
        headers = {"Content-Type": "application/merge-patch+json"}
        path = api.path("InferenceModel", "accepted")
        with pytest.raises(ApiRefusedError):
            api.request("PATCH", path, json={"spec": fields}, headers=headers, params=query)
    assert (api.get("InferenceModel", "accepted") or {})["metadata"]["generation"] == 1
    writes = [write for write in audit.writes(start) if write["objectRef"].get("namespace") == api.namespace]
    assert writes
    assert [line for line in described(writes) if "refused" in line] == []
    assert "refused-" not in operator.log.read_text()


@pytest.fixture
def restricted(api: Api) -> Api:
    """The namespace refuses pods that are not as Pod Security `restricted` has them."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    headers = {"Content-Type": "application/merge-patch+json"}
    patch = {"metadata": {"labels": labels}}
    api.request("PATCH", f"/api/v1/namespaces/{api.namespace}", json=patch, headers=headers)
    return api


def test_a_model_with_every_field_makes_pods_that_the_api_server_takes_as_restricted(
    restricted: Api, operator: OperatorProcess
) -> None:
    fields = golden("all-fields")
    # What only this cluster lacks: nodes of that kind, and this resource.
    del fields["nodeSelector"], fields["gpu"]["resourceName"]
    restricted.create(model("everything", **fields))
    restricted.wait("InferenceModel", "everything", is_ready, what="Ready")
    pods = restricted.find("Pod", "moorage.dev/model=everything")
    assert len(pods) == fields["replicas"]
    (container,) = pods[0]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert json.loads(environment["REQUEST_DEFAULTS"])["temperature"] == fields["parameters"]["temperature"]
    assert json.loads(environment["EXTRA_ARGS"]) == fields["extraArgs"]
    assert environment["LOG_LEVEL"] == "DEBUG"
    assert container["image"] == fields["runtimeImage"]
    keys = {toleration["key"] for toleration in pods[0]["spec"]["tolerations"]}
    assert {toleration["key"] for toleration in fields["tolerations"]} <= keys


def golden(case: str) -> Object:
    """The spec of a golden case."""
    spec: Object = yaml.safe_load((FOLDER / case / "model.yaml").read_text())["spec"]
    return spec


def test_a_model_with_every_field_leaves_nothing_to_write_again(
    api: Api, operator: OperatorProcess, audit: Audit
) -> None:
    # How the API server keeps a field is how we write it: numbers, empty values, the order of lists.
    fields = golden("all-fields") | {"replicas": 1}
    del fields["nodeSelector"], fields["gpu"]["resourceName"]
    api.create(model("everything", **fields))
    api.wait("InferenceModel", "everything", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    start = audit.position()
    api.patch("Deployment", "everything", {"metadata": {"labels": {"example.org/touched": "yes"}}})
    # Whatever the operator does about the label comes before what it does about the model that is made after it.
    api.create(model("later"))
    api.wait("InferenceModel", "later", lambda im: reason(im) == "Serving", what="Serving")
    again = [line for line in described(audit.writes(start)) if "deployments" in line and "everything" in line]
    assert again == []
