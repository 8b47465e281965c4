"""What some clusters want of every pod, by values of the chart: no user of ours, a RuntimeClass, pull secrets."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hack.cluster.api import Cluster
from tests.integration.test_chart_gateway import objects, pod
from tests.integration.test_chart_policies import rendered
from tests.support.api import Api, ApiRefusedError, Object, condition, is_ready, reason
from tests.support.models import model
from tests.support.operator import OperatorProcess
from tests.support.policies import until_refused

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
ADAPT = "global.compatibility.openshift.adaptSecurityContext"
USER_FIELDS = ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")
AS_OPENSHIFT = (
    "[object.spec.?securityContext.?runAsUser, object.spec.?securityContext.?runAsGroup]"
    ".all(id, id.orValue(1000700000) >= 1000700000)"
    " && object.spec.?securityContext.?fsGroup.orValue(1000700000) >= 1000700000"
)


@pytest.fixture
def openshift(api: Api) -> Iterator[None]:
    """The test's namespace has a range of user IDs, as every one of OpenShift has."""
    name = f"like-openshift-{api.namespace}"
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "validations": [
                {"expression": AS_OPENSHIFT, "message": "runAsUser: must be in the range 1000700000/10000"}
            ],
        },
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": api.namespace}}}
    binding = {
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": here},
    }
    paths = {
        f"{ADMISSION}/validatingadmissionpolicies": policy,
        f"{ADMISSION}/validatingadmissionpolicybindings": binding,
    }
    for path, body in paths.items():
        api.request("POST", path, json=body)
    until_refused(lambda: api.create(bare_pod({"runAsUser": 65532}), dry_run=True))
    yield
    for path in paths:
        api.request("DELETE", f"{path}/{name}")


def bare_pod(security: Object, **spec: Any) -> Object:
    """A pod with that securityContext."""
    container = {"name": "main", "image": "registry.example/x:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": {"securityContext": security, "containers": [container], **spec},
    }


@contextmanager
def operating(kubeconfig: Path, log: Path, **settings: str) -> Iterator[OperatorProcess]:
    """An operator with these settings, which logs no error."""
    process = OperatorProcess(kubeconfig, log, **settings)
    process.start()
    try:
        yield process
    finally:
        process.stop()
    assert process.errors() == []


def refused_with(*words: str) -> Callable[[Object | None], bool]:
    """Whether a model's pods are refused, and the message has these words."""

    def told(found: Object | None) -> bool:
        message = condition(found, "Ready").get("message", "")
        return reason(found) == "PodsRefused" and all(word in message for word in words)

    return told


@pytest.mark.usefixtures("openshift")
def test_cluster_05_pods_run_where_the_cluster_assigns_users(
    api: Api, operator_kubeconfig: Path, tmp_path: Path
) -> None:
    api.create(model("tiny"))
    with operating(operator_kubeconfig, tmp_path / "first.log"):
        told = refused_with("must be in the range", f"{ADAPT}=force", "Moorage's chart")
        api.wait("InferenceModel", "tiny", told, what="PodsRefused with the value to set")
    with operating(operator_kubeconfig, tmp_path / "second.log", MOORAGE_SET_USER="false"):
        api.wait("InferenceModel", "tiny", is_ready, what="Ready")
        (made,) = api.find("Pod", "moorage.dev/model=tiny")
    assert made["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.usefixtures("openshift")
@pytest.mark.parametrize("name", ["moorage-operator", "moorage-gateway"])
def test_cluster_05_the_charts_own_pods_are_let_in_with_the_value_alone(cluster: Cluster, api: Api, name: str) -> None:
    def make(*settings: str) -> None:
        spec, _ = pod(objects(cluster, "gateway.enabled=true", *settings), name)
        made = bare_pod(spec["securityContext"], containers=spec["containers"], volumes=spec.get("volumes", []))
        made["spec"]["serviceAccountName"] = "default"
        api.create(made, dry_run=True)

    make(f"{ADAPT}=force")
    with pytest.raises(ApiRefusedError, match="must be in the range"):
        make(f"{ADAPT}=disabled")


@pytest.mark.parametrize(
    ("settings", "ours"),
    [
        ((), True),
        (("--api-versions=security.openshift.io/v1",), False),
        (("--api-versions=security.openshift.io/v1", f"--set={ADAPT}=disabled"), True),
        ((f"--set={ADAPT}=force",), False),
        (("--set=global=null",), True),
    ],
)
def test_cluster_05_one_value_is_for_the_pods_of_operator_gateway_and_models(
    cluster: Cluster, settings: tuple[str, ...], ours: bool
) -> None:
    made = objects(cluster, "gateway.enabled=true", flags=settings)
    for name in ("moorage-operator", "moorage-gateway"):
        spec, _ = pod(made, name)
        security = spec["securityContext"]
        assert [field for field in USER_FIELDS if field in security] == (["runAsUser", "runAsGroup"] if ours else [])
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    _, environment = pod(made, "moorage-operator")
    assert environment["MOORAGE_SET_USER"] == ("true" if ours else "false")


def test_cluster_06_a_runtime_class_that_is_missing_is_named_and_pull_secrets_reach_the_pods(
    cluster: Cluster, api: Api, operator_kubeconfig: Path, tmp_path: Path
) -> None:
    name = f"class-of-{api.namespace}"
    values = (
        f"runtime.runtimeClassNames.gpu={name}",
        "runtime.imagePullSecrets[0].name=registry",
        "runtime.imagePullSecrets[1].name=hub",
    )
    _, environment = pod(objects(cluster, *values), "moorage-operator")
    settings = {key: value for key, value in environment.items() if key in ("MOORAGE_IMAGE_PULL_SECRETS", CLASSES)}
    assert len(settings) == 2
    api.create(model("on-cpu"))
    api.create(model("on-gpu", gpu={"count": 1}))
    with operating(operator_kubeconfig, tmp_path / "operator.log", **settings):
        api.wait("InferenceModel", "on-cpu", is_ready, what="Ready, as there is no class for the CPU")
        told = refused_with(f'RuntimeClass "{name}" not found', "runtime.runtimeClassNames")
        api.wait("InferenceModel", "on-gpu", told, what="PodsRefused with the class that is missing")
        api.request("POST", RUNTIME_CLASSES, json={"metadata": {"name": name}, "handler": "nvidia"})
        try:
            # The ReplicaSet's controller would try again after up to 17 minutes.
            restart = {"metadata": {"annotations": {"moorage.dev/restarted-at": "2026-01-02T03:04:05Z"}}}
            api.patch("InferenceModel", "on-gpu", restart)
            api.wait("InferenceModel", "on-gpu", is_ready, what="Ready once the class is there")
        finally:
            api.request("DELETE", f"{RUNTIME_CLASSES}/{name}")
    (cpu,) = api.find("Pod", "moorage.dev/model=on-cpu")
    (gpu,) = api.find("Pod", "moorage.dev/model=on-gpu")
    assert "runtimeClassName" not in cpu["spec"]
    assert gpu["spec"]["runtimeClassName"] == name
    assert [made["spec"]["imagePullSecrets"] for made in (cpu, gpu)] == [[{"name": "registry"}, {"name": "hub"}]] * 2


CLASSES = "MOORAGE_RUNTIME_CLASSES"


def test_cluster_06_without_the_values_the_operator_is_told_nothing(cluster: Cluster) -> None:
    _, environment = pod(objects(cluster), "moorage-operator")
    assert not {"MOORAGE_IMAGE_PULL_SECRETS", CLASSES} & environment.keys()
    _, environment = pod(objects(cluster, "runtime.runtimeClassNames.cpu=gvisor"), "moorage-operator")
    assert json.loads(environment[CLASSES]) == {"cpu": "gvisor"}


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("runtime.imagePullSecrets={registry}", "imagePullSecrets"),
        ("runtime.imagePullSecrets[0].secret=registry", "imagePullSecrets"),
        ("runtime.runtimeClassNames.tpu=google", "runtimeClassNames"),
        (f"{ADAPT}=yes", "adaptSecurityContext"),
        ("global.compatibility.openshift.adapt=force", "openshift"),
        ("priorityClasses.keep=often", "keep"),
    ],
)
def test_bad_input_a_value_of_another_form_is_refused_by_name(cluster: Cluster, setting: str, named: str) -> None:
    done = rendered(cluster, setting)
    assert done.returncode != 0
    assert named in done.stderr
