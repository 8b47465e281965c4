"""What a model must not reach, by the rows of reliability.md: other namespaces, nodes, accounts, classes, images."""

import time
from typing import Any

import pytest

from tests.support.api import Api, ApiRefusedError, is_ready
from tests.support.models import model
from tests.support.operator import IMAGES, OperatorProcess
from tests.support.people import person
from tests.support.refusals import assert_no_such_field, assert_says, refusal

FIELDS: dict[int, dict[str, Any]] = {
    21: {"envFrom": [{"secretRef": {"name": "x", "namespace": "kube-system"}}], "secretRef": {"name": "x"}},
    22: {"secretName": "missing"},
    23: {"imagePullSecrets": [{"name": "default-token"}], "serviceAccountToken": {"path": "x"}},
    25: {
        "podTemplate": {"spec": {"hostNetwork": True}},
        "template": {"spec": {"hostPID": True}},
        "securityContext": {"privileged": True},
        "hostPath": "/",
        "hostNetwork": True,
        "serviceAccountName": "admin",
        "volumes": [{"name": "x", "hostPath": {"path": "/"}}],
        "volumeMounts": [{"name": "x", "mountPath": "/"}],
        "initContainers": [{"name": "x", "image": "x"}],
        "sidecars": [{"name": "x", "image": "x"}],
        "command": ["sh"],
        "args": ["-c"],
        "runtimeClassName": "x",
        "affinity": {},
    },
    26: {"labels": {"app.kubernetes.io/managed-by": "me"}, "annotations": {"ad.datadoghq.com/x": "y"}, "selector": {}},
    27: {"priorityClassName": "system-node-critical", "preemptionPolicy": "Never"},
    29: {"minReplicas": 5},
    30: {"idleTimeout": "5 min"},
}
"""By row: what the schema has no field for, so that it can be asked for by nobody."""


@pytest.mark.parametrize("row", FIELDS)
def test_bad_input_21_22_23_25_26_27_29_30_there_is_no_such_field(api: Api, row: int) -> None:
    assert_no_such_field(api, f"row-{row}", **FIELDS[row])


@pytest.mark.parametrize("extra", [{"valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}, {"namespace": "other"}])
def test_bad_input_21_a_variable_takes_its_value_from_nowhere_else(api: Api, extra: dict[str, Any]) -> None:
    assert_says(refusal(api, {"env": [{"name": "LOG_LEVEL", "value": "INFO", **extra}]}), "unknown field", *extra)
    assert_says(refusal(api, {"env": [{"name": "LOG_LEVEL"}]}), "spec.env[0].value", "Required")


def test_bad_input_25_26_27_the_pods_are_those_of_a_model_that_asks_for_nothing(
    api: Api, operator: OperatorProcess
) -> None:
    greedy = model("greedy", **{name: value for fields in FIELDS.values() for name, value in fields.items()})
    greedy["metadata"] |= {
        "labels": {"ad.datadoghq.com/x": "y", "moorage.dev/model": "other", "pod-security.kubernetes.io/enforce": "x"},
        "annotations": {"ad.datadoghq.com/tags": "y\nz", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
    }
    api.create(greedy, validate="Ignore")
    api.create(model("modest"))
    for name in ("greedy", "modest"):
        api.wait("InferenceModel", name, is_ready, what="Ready")
    made = [api.get("Deployment", name) or {} for name in ("greedy", "modest")]
    assert anonymous(made[0]["spec"]) == anonymous(made[1]["spec"])
    assert anonymous(made[0]["metadata"]["labels"]) == anonymous(made[1]["metadata"]["labels"])
    (pod,) = api.find("Pod", "moorage.dev/model=greedy")
    assert pod["spec"]["priorityClassName"] == "moorage-5"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert set(pod["metadata"].get("annotations", {})) <= {"kwok.x-k8s.io/node"}
    assert [label for label in pod["metadata"]["labels"] if "datadog" in label or "security" in label] == []


IDENTITY = {"moorage.dev/model-uid", "moorage.dev/revision"}


def anonymous(value: Any) -> Any:
    """A manifest without what tells two models apart."""
    if isinstance(value, dict):
        return {key: anonymous(item) for key, item in value.items() if key not in IDENTITY}
    if isinstance(value, list):
        return [anonymous(item) for item in value]
    return value.replace("greedy", "NAME").replace("modest", "NAME") if isinstance(value, str) else value


IMAGE = "registry.example/somebody/runtime:1"


@pytest.fixture
def editor(api: Api, policies: None) -> Api:
    """Somebody who may edit models."""
    return person(api, "edith", "moorage-edit")


@pytest.fixture
def keeper(api: Api, policies: None) -> Api:
    """Somebody who may edit models, and choose their images too."""
    return person(api, "karl", "moorage-edit", "moorage-admin")


def forbidden(api: Api, attempt: Any) -> None:
    """The attempt is refused, with the image, the verb and what to do instead."""
    with pytest.raises(ApiRefusedError) as refused:
        attempt()
    assert refused.value.status == 403
    assert_says(str(refused.value), "spec.runtimeImage", "use-custom-image", "edith", api.namespace, "Leave it out")


def test_bad_input_24_an_image_needs_the_verb(api: Api, editor: Api) -> None:
    forbidden(api, lambda: editor.create(model("evil", runtimeImage=IMAGE)))
    generated = model("evil", runtimeImage=IMAGE)
    generated["metadata"] = {"generateName": "evil-"}
    forbidden(api, lambda: editor.create(generated))
    editor.create(model("plain"))
    forbidden(api, lambda: editor.patch("InferenceModel", "plain", {"spec": {"runtimeImage": IMAGE}}))
    path, headers = editor.path("InferenceModel", "plain"), {"Content-Type": "application/apply-patch+yaml"}
    applied = model("plain", runtimeImage=IMAGE)
    query = {"fieldManager": "edith", "force": "true"}
    forbidden(api, lambda: editor.request("PATCH", path, json=applied, headers=headers, params=query))
    live = editor.get("InferenceModel", "plain") or {}
    live["spec"]["runtimeImage"] = IMAGE
    forbidden(api, lambda: editor.request("PUT", path, json=live))
    assert "runtimeImage" not in (api.get("InferenceModel", "plain") or {})["spec"]


def test_bad_input_24_whoever_has_the_verb_chooses_the_image(api: Api, keeper: Api, operator: OperatorProcess) -> None:
    keeper.create(model("own", runtimeImage=IMAGE))
    api.wait("InferenceModel", "own", is_ready, what="Ready")
    assert image_of(api, "own") == IMAGE
    keeper.patch("InferenceModel", "own", {"spec": {"runtimeImage": f"{IMAGE}.1"}})
    api.wait("Deployment", "own", lambda obj: image_of(api, "own") == f"{IMAGE}.1", what="the other image")


def image_of(api: Api, name: str) -> str:
    """The image of a model's pods."""
    image: str = (api.get("Deployment", name) or {})["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def test_bad_input_24_a_model_with_somebody_elses_image_can_be_edited(
    api: Api, keeper: Api, editor: Api, operator: OperatorProcess
) -> None:
    keeper.create(model("shared", runtimeImage=IMAGE))
    editor.patch("InferenceModel", "shared", {"spec": {"priority": 7}, "metadata": {"labels": {"a": "b"}}})
    editor.patch("InferenceModel", "shared", {"spec": {"replicas": 2}}, "scale")
    forbidden(api, lambda: editor.patch("InferenceModel", "shared", {"spec": {"runtimeImage": f"{IMAGE}.1"}}))
    api.wait("InferenceModel", "shared", is_ready, what="Ready")
    assert image_of(api, "shared") == IMAGE
    # To go back to the image that the operator has is everybody's right; to come again is not.
    editor.patch("InferenceModel", "shared", {"spec": {"runtimeImage": None}})
    api.wait("Deployment", "shared", lambda obj: image_of(api, "shared") == IMAGES["llamacpp/cpu"], what="ours")
    forbidden(api, lambda: editor.patch("InferenceModel", "shared", {"spec": {"runtimeImage": IMAGE}}))


def test_bad_input_24_the_verb_may_be_for_one_model_only(api: Api, editor: Api) -> None:
    rule = {
        "apiGroups": ["moorage.dev"],
        "resources": ["inferencemodels"],
        "resourceNames": ["special"],
        "verbs": ["use-custom-image"],
    }
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{api.namespace}"
    api.request("POST", f"{rbac}/roles", json={"metadata": {"name": "special"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "special"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "special"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "edith"}],
    }
    api.request("POST", f"{rbac}/rolebindings", json=binding)
    deadline = time.monotonic() + 10
    while not _created(editor, "special"):
        assert time.monotonic() < deadline
        time.sleep(0.02)  # what the authorizer has taken in, nothing tells
    forbidden(api, lambda: editor.create(model("ordinary", runtimeImage=IMAGE)))


def _created(api: Api, name: str) -> bool:
    try:
        api.create(model(name, runtimeImage=IMAGE))
    except ApiRefusedError as refused:
        assert refused.status == 403
        return False
    return True


@pytest.mark.parametrize(
    "image", ["a b", "Upper/x", "registry.example/x:y z", "http://registry.example/x", "-x", "a" * 513]
)
def test_bad_input_24_an_image_is_a_reference(api: Api, image: str) -> None:
    assert_says(refusal(api, {"runtimeImage": image}), "spec.runtimeImage")
